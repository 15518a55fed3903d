"""The page of three tables in a real browser without a screen."""

from __future__ import annotations

from functools import partial

import pytest

from reports.gathering import gather
from reports.page import page_data, render_page
from reports.report import page_of
from tests.reports.lookup import one
from tests.reports.synthetic import ablation, make_database, trials

NAMES = ("overview", "table1", "table2")


@pytest.fixture(scope="module")
def tables(database):
    tables = gather(database).tables
    return {name: one(tables, name) for name in NAMES}


@pytest.fixture(scope="module")
def address(database, tables, tmp_path_factory) -> str:
    """The page of three tables as a file."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render_page(page_data(database, gather(database).results, list(tables.values()))), encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def address_one_seed(tmp_path_factory) -> str:
    """The page of one network and one seed as a file."""
    folder = tmp_path_factory.mktemp("one-seed")

    def filling(filler):
        filler.grid("table1", {"tables": [1]}, trials(ablation([0])))

    with make_database(folder / "results.db", filling) as opened:
        (folder / "report.html").write_text(render_page(page_of(opened)), encoding="utf-8")
    return (folder / "report.html").as_uri()


@pytest.fixture
def visit(visiting, address):
    """A function that opens the page, at a place and in a window of one's choice; errors of scripts fail the test."""
    return partial(visiting, address)


@pytest.fixture
def visit_one_seed(visiting, address_one_seed):
    """A function that opens the page of one network and one seed, as `visit` does."""
    return partial(visiting, address_one_seed)


@pytest.fixture(scope="module")
def tab(chromium):
    """A tab for one test after another: another tab, in a process of its own, costs as much as a page."""
    with chromium.new_context() as context:
        yield context.new_page()


@pytest.fixture
def visiting(chromium, tab):
    """A function that opens a page by its address, a test's first one without options of its own in the common tab."""
    contexts, errors, free = [], [], [tab]

    def note(message):
        if message.type == "error":
            errors.append(message.text)

    def fail(error):
        errors.append(str(error))

    def visit(address: str, place: str = "", width: int = 1280, **options):
        size = {"width": width, "height": 900}
        if free and not options:
            page = free.pop()
            page.set_viewport_size(size)
        else:
            contexts.append(chromium.new_context(viewport=size, **options))
            page = contexts[-1].new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", fail)
        page.on("console", note)
        page.goto(address + place)
        if options.get("java_script_enabled", True):
            page.wait_for_selector("html.alive")
        return page

    yield visit
    for context in contexts:
        context.close()
    if not free:
        # As a new tab would be.
        tab.goto("about:blank")
        tab.emulate_media(media="null")
        tab.remove_listener("pageerror", fail)
        tab.remove_listener("console", note)
    assert errors == []
