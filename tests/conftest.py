"""What all tests share: how they are dealt to several processes, and that the run ends in pytest's own last line."""

from __future__ import annotations

import atexit
import os

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Group the tests for `pytest -n`: a file's tests share fixtures, and the machine has room for one Ray at a time.

    The tests with a Ray come first, for they take longest.
    """
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.get_closest_marker("ray") is None)
        for item in items:
            group = "ray" if item.get_closest_marker("ray") else item.path.name
            item.add_marker(pytest.mark.xdist_group(group))


def _close_standard_error() -> None:
    """Silence what Triton's library prints as the process ends: what its users still hold, which it calls leaks.

    There is no setting for it. Exit handlers run in reverse order, so that all others can still be heard.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


atexit.register(_close_standard_error)
