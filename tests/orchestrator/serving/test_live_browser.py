"""The live page in a real browser: it changes without a reload, and says when the server or the database is away."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from orchestrator.database import open_database
from tests.orchestrator.databases.samples import result
from tests.orchestrator.serving.live_server import PATIENCE, Live, attempt_of, fill, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fill(tmp_path, host=socket.gethostname())
    return tmp_path


@pytest.fixture
def live(folder: Path) -> Iterator[Live]:
    with serving(folder, "--port", "0") as started:
        yield started


@pytest.fixture
def page(chromium: Browser, live: Live) -> Iterator[Page]:
    """The page as the printed address opens it."""
    with opened(chromium, live.address) as page:
        yield page


@pytest.fixture(scope="module")
def unchanging(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server of results that no test changes, for all tests that only read."""
    folder = tmp_path_factory.mktemp("unchanging")
    fill(folder, host=socket.gethostname())
    with serving(folder, "--port", "0") as started:
        yield started


@pytest.fixture
def still(chromium: Browser, unchanging: Live) -> Iterator[Page]:
    """The page of results that do not change."""
    with opened(chromium, unchanging.address) as page:
        yield page


@contextmanager
def opened(chromium: Browser, address: str) -> Iterator[Page]:
    """Open an address in a tab with cookies of its own; `errors` of the tab are what it has logged as errors."""
    context = chromium.new_context()
    context.set_default_timeout(PATIENCE * 1000)
    page = context.new_page()
    page.goto(address)
    page.locator("#live .connection", has_text=re.compile("^live$")).wait_for()
    yield page
    context.close()


def logged(page: Page, live: Live) -> list[str]:
    """Return the errors that a tab logs while it loads."""
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(live.address)
    page.locator("#live .connection", has_text=re.compile("^live$")).wait_for()
    return errors


def test_the_address_loses_the_token_and_nothing_is_refused(still: Page, unchanging: Live):
    page, live = still, unchanging
    assert page.url == f"http://127.0.0.1:{live.port}/"
    assert page.evaluate("document.cookie") == ""
    text = page.inner_text("#live")
    assert "table1 1 of 4 trials done" in text and "resnet18/pskd/seed0: 1 of 4 epochs, 40.00 %" in text
    assert "out_of_memory in table1: 1 trial: CUDA out of memory" in text
    (link,) = page.locator("#live a").all()
    assert (link.inner_text(), link.get_attribute("href")) == ("Ray's dashboard", "http://127.0.0.1:8265")
    assert logged(page, live) == []


def test_a_log_opens_and_shows_what_it_says_and_runs_nothing(still: Page):
    still.locator("#live summary", has_text="pskd").click()
    assert still.locator("#live details[open] pre").inner_text() == "epoch 1/4: so far, <b>so good</b>"
    assert still.locator("#live pre b").count() == 0


def test_a_failure_opens_and_gives_the_command_that_tries_again(still: Page):
    still.locator("#live .failed summary").click()
    assert "--retry-failed" in still.locator("#live .failed code").first.inner_text()


def version(page: Page) -> int:
    """Return the number of the results that the page shows."""
    return page.evaluate("JSON.parse(document.getElementById('data').textContent).live.version")


def wait_for_newer(page: Page, before: int) -> None:
    page.wait_for_function("(before) => data.live.version > before", arg=before)
    assert version(page) > before


def test_an_epoch_changes_the_page_without_a_reload_and_keeps_what_is_open(page: Page, folder: Path):
    page.evaluate("window.same = 1")
    before, tables = version(page), page.locator("#page table").count()
    page.locator("#live summary", has_text="pskd").click()
    with open_database(folder / "results.db") as database:
        database.record_epoch(attempt_of(database, 2), result(1, error=37.5), "exclusive")
    page.locator("#live details[open] summary", has_text="2 of 4 epochs, 37.50 %").wait_for()
    assert "pskd" in page.evaluate("document.activeElement.textContent")
    # The results, too, as the page's own script reads them.
    wait_for_newer(page, before)
    assert page.evaluate("data.trials.find((trial) => trial.name.includes('pskd/seed0')).epochs") == 2
    assert page.locator("#page table").count() == tables > 0
    assert page.evaluate("window.same") == 1


def test_nothing_changes_under_the_hands_of_who_writes(page: Page, folder: Path):
    # Wherever the page has a field, and here in one of the test's own.
    page.evaluate("""() => {
      const field = document.createElement('input');
      field.id = 'own';
      document.getElementById('page').append(field);
      field.focus();
    }""")
    before = version(page)
    page.keyboard.type("res")
    with open_database(folder / "results.db") as database:
        database.record_epoch(attempt_of(database, 2), result(1, error=36.25), "exclusive")
    page.locator("#live summary", has_text="2 of 4 epochs, 36.25 %").wait_for()
    page.wait_for_timeout(1000)
    page.keyboard.type("net")
    assert page.input_value("#own") == "resnet"
    assert version(page) == before
    page.evaluate("document.getElementById('own').blur()")
    wait_for_newer(page, before)


def test_a_database_that_goes_and_comes_back_is_said(page: Page, folder: Path):
    problem = page.locator("#live .problem", has_text="What stands below was read before")
    (folder / "results.db").rename(folder / "away.db")
    problem.wait_for()
    assert "1 of 4 trials done" in page.inner_text("#live")
    (folder / "away.db").rename(folder / "results.db")
    problem.wait_for(state="hidden")


def test_a_server_that_ended_is_said_and_another_one_asks_for_its_address(chromium: Browser, tmp_path: Path):
    fill(tmp_path, host=socket.gethostname())
    with serving(tmp_path, "--port", "0") as first, opened(chromium, first.address) as page:
        first.press_ctrl_c()
        page.locator("#live .lost", has_text="The connection is lost").wait_for()
        assert "1 of 4 trials done" in page.inner_text("#live")
        with serving(tmp_path, "--port", first.port) as second:
            page.locator("#live .lost", has_text="The server was started anew").wait_for()
            page.goto(second.address)
            page.locator("#live .connection", has_text=re.compile("^live$")).wait_for()


def test_a_browser_that_was_away_is_brought_up_to_date(page: Page, folder: Path):
    page.context.set_offline(True)
    with (folder / "results-logs").glob("*.log").__next__().open("a") as log:
        log.write("while nobody looked\n")
    page.context.set_offline(False)
    page.locator("#live pre", has_text="while nobody looked").wait_for(state="attached")


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_panel_fits_and_can_be_read(still: Page, width: int, scheme: Literal["light", "dark"]):
    still.set_viewport_size({"width": width, "height": 800})
    still.emulate_media(color_scheme=scheme)
    assert still.evaluate("document.getElementById('live').scrollWidth <= innerWidth")
    script = """() => {
      const linear = (v) => v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4;
      const light = (c) => { const [r, g, b] = c.match(/[\\d.]+/g).map(linear);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
      const back = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
        if (!c.startsWith('rgba(0, 0, 0, 0')) return c; } };
      return Math.min(...[...document.querySelectorAll('#live p, #live h2, #live summary, #live pre, #live code')]
        .map((e) => [light(getComputedStyle(e).color), light(back(e))].sort((x, y) => x - y))
        .map(([a, b]) => (b + 0.05) / (a + 0.05)));
    }"""
    assert still.evaluate(script) >= 4.5


def test_the_keyboard_opens_a_log(still: Page):
    still.locator("#live summary").first.focus()
    still.keyboard.press("Enter")
    assert still.locator("#live details").first.get_attribute("open") is not None
