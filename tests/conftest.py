"""Fix the order in which all tests run, and have a run end in pytest's own last line."""

from __future__ import annotations

import atexit
import gc
import os
import signal
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

import pytest
import typer.testing

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PLACE = pytest.StashKey[int]()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser without a screen, driven by Playwright; skips where none is installed."""
    # Imported here: `test_order.py` copies this file to a folder without the rest of the tests.
    from tests.browser import ARGUMENTS, NAMES, browser

    executable = browser()
    if executable is None:
        pytest.skip(f"no browser is installed (looked for {', '.join(NAMES)})")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=executable, args=list(ARGUMENTS))
        yield opened
        opened.close()


def pytest_itemcollected(item: pytest.Item) -> None:
    """Note the place of a test among all, before pytest-randomly shuffles the files and the tests in each."""
    item.stash[PLACE] = item.session.stash[PLACE] = item.session.stash.get(PLACE, 0) + 1


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the written order in files with a real Ray, and put them first in the processes of `pytest -n`.

    Their tests share a cluster or a run that would cost minutes to start for each test, and go on from one another:
    nodes join it and die. These files take longest, so none of them should be last. pytest-randomly shuffles before.
    """
    with_ray = {item.path for item in items if item.get_closest_marker("ray")}
    written = {path: iter(sorted((i for i in items if i.path == path), key=_place)) for path in with_ray}
    items[:] = [next(written[item.path]) if item.path in written else item for item in items]
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.path not in with_ray)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Take what collecting the tests has imported out of the garbage collector's sight."""
    _settle()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Take what the tests of a file have imported out of its sight, too, once they and their fixtures are over."""
    if nextitem is not None and nextitem.path != item.path:
        _settle()


def _settle() -> None:
    """Freeze all that lives: looking through a million objects of imported packages takes a third of a second.

    Tests cause hundreds of such looks, most of them unasked.
    """
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say how this order can be repeated: `-q` leaves out pytest-randomly's own line."""
    seed = config.getoption("randomly_seed", None)
    if isinstance(seed, int):
        terminalreporter.write_line(f"the order of this run: --randomly-seed={seed}")


def _heed_ctrl_c() -> None:
    """Have programs that tests start heed SIGINT: those of a run in a shell's background ignore the signal."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _place(item: pytest.Item) -> int:
    return item.stash[PLACE]


def _close_standard_error() -> None:
    """Silence Triton's library at the end of the process, where it calls everything a leak that its users still hold.

    There is no setting for it. Exit handlers run in reverse order, so that all others can still be heard.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


_heed_ctrl_c()
# `CliRunner` builds all commands anew for every call, which takes longer than most calls do.
typer.testing._get_command = cache(typer.testing._get_command)
atexit.register(_close_standard_error)
