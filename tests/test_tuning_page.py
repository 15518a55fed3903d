"""docs/tuning.md: its grid is planned as the page says, and it names every key, space and field."""

from __future__ import annotations

import re
from pathlib import Path

from orchestrator.grid import load_grid
from orchestrator.grid.tuning import KINDS, SEARCHES, TUNABLE, TUNE
from orchestrator.grid_records import plan_of
from orchestrator.stages import decide
from reports.columns import TOP1
from reports.figures.search import draw
from tests.reports.search_picture import PATH, ROWS, search

PAGE = Path(__file__).parents[1] / "docs/tuning.md"
TEXT = PAGE.read_text(encoding="utf-8")
GRID, TABLE = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)


def test_the_page_s_grid_costs_what_the_page_says(tmp_path: Path) -> None:
    path = tmp_path / "tuned.yaml"
    path.write_text(GRID + TABLE)
    decision = decide(load_grid(path), None)
    (printed,) = re.findall(r"\n\n```\n(.*?)```", TEXT, re.DOTALL)
    lines = printed.splitlines()
    assert lines == [plan_of(decision.grid, None).summary(), *decision.outlook[: len(lines) - 1]]


def test_the_page_names_every_key_space_and_field() -> None:
    rows = {row.split("|")[1].strip() for row in TEXT.splitlines() if row.startswith("| `")}
    assert {f"`{key}`" for key in TUNE} <= rows
    assert {kind for kind in KINDS if any(row.startswith(f"`{{{kind}: ") for row in rows)} == set(KINDS)
    assert all(f"`{name}`" in TEXT for name in (*TUNABLE, *SEARCHES))


def test_the_picture_is_there_and_shows_lines_that_never_rise() -> None:
    made = search()
    curves = {name: made.best_so_far(name, lower=True) for name in ROWS}
    for curve in curves.values():
        errors = [error for _, error in curve]
        assert errors == sorted(errors, reverse=True) and len(set(errors)) > 1 and len(errors) == 20
    assert f"images/{PATH.name}" in TEXT and PATH.is_file()
    (axes,) = draw(list(curves.items()), TOP1).axes
    assert [text.get_text() for text in axes.texts] == sorted(ROWS, key=lambda name: curves[name][-1][1])
