"""docs/figures.md: its declarations make the figures that the page says, and its pictures are there."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from orchestrator.database import Database
from orchestrator.tables.figures import MOST_LINES, MOST_PANELS, FigureSpec
from reports.figures.declared import Plot
from tests.reports.figure_pictures import PAGE, fill, page_drawings, page_plots
from tests.reports.lookup import declarations, numbers
from tests.reports.synthetic import make_database

TEXT = PAGE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with make_database(tmp_path_factory.mktemp("page") / "results.db", fill) as opened:
        yield opened


@pytest.fixture(scope="module")
def plots(database: Database) -> dict[str, Plot]:
    return {plot.spec.name: plot for plot in page_plots(database)}


def test_every_declaration_makes_a_figure_and_has_its_picture(database: Database) -> None:
    names = [figure["name"] for figure in declarations(PAGE)]
    assert [drawing.name for drawing in page_drawings(database)] == names and len(names) == 6
    images = re.findall(r"\]\((images/[^)]+)\)", TEXT)
    assert images == [f"images/figure-{name}.png" for name in names]
    assert all((PAGE.parent / image).is_file() for image in images)


def test_no_place_of_the_pages_figures_is_empty_but_the_reference(plots: dict[str, Plot]) -> None:
    assert [plot.omitted for plot in plots.values()] == [()] * len(plots)
    empty = {
        row.key for plot in plots.values() for row in plot.table.rows for entry in row.entries if not entry.samples
    }
    assert empty == {f"baseline/{rate}" for rate in (0.01, 0.03, 0.1, 0.3)}


def test_a_part_of_a_method_has_level_lines_for_the_others(plots: dict[str, Plot]) -> None:
    (panel,) = plots["alpha"].panels
    places = {one.label: [point.place for point in one.points] for one in panel.series}
    assert places == {"baseline": [None], "BYOT": [None], "PS-KD": [0.2, 0.4, 0.6, 0.8, 1.0]}


def test_the_page_names_every_key_and_limit() -> None:
    words = set(re.findall(r"[a-z0-9_]+", TEXT))
    assert [name for name in FigureSpec.model_fields if name not in words and name != "own"] == []
    assert f"at most **{MOST_LINES}** lines" in TEXT and f"at most **{MOST_PANELS}** panels" in TEXT


def test_the_address_of_the_page_is_an_address(plots: dict[str, Plot]) -> None:
    (address,) = re.findall(r"orchestrate explain ([^`]+)`", TEXT)
    assert address in {address for plot in plots.values() for address in numbers(plot.table)}


def test_the_page_is_led_to() -> None:
    assert "figures.md" in (PAGE.parent / "tables.md").read_text(encoding="utf-8")
