"""What all tests share: in which order several processes run them, and that the run ends in pytest's own last line."""

from __future__ import annotations

import atexit
import os

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the files with a real Ray first in the processes of `pytest -n`: they take longest, none should be last."""
    if hasattr(config, "workerinput"):
        with_ray = {item.path for item in items if item.get_closest_marker("ray")}
        items.sort(key=lambda item: item.path not in with_ray)


def _close_standard_error() -> None:
    """Silence what Triton's library prints as the process ends: what its users still hold, which it calls leaks.

    There is no setting for it. Exit handlers run in reverse order, so that all others can still be heard.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


atexit.register(_close_standard_error)
