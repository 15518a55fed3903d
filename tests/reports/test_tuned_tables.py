"""A tuned grid's report: its rows as they are and tuned, how they were tuned, and nothing chosen by test images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator import open_database, run_grid
from orchestrator.grid import load_grid
from orchestrator.grid.tuned import draws_of
from reports import ReportError, explain, verify, write_report
from reports.gathering import Gathered, gather
from reports.tuning import searches
from tests.orchestrator.tuning_runs import Training, error_of, grid_file, stand_in

DECLARED = {
    "name": "both",
    "title": "Both",
    "rows": "methods",
    "across": "tuning",
    "columns": ["top1", {"top1": {"minus": {"tuning": "default"}, "key": "gain"}}],
    "notes": "short",
}


@pytest.fixture
def training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Training:
    """A formula in the place of training, in a new folder."""
    monkeypatch.chdir(tmp_path)
    return stand_in(monkeypatch)


def gathered(**options: Any) -> Gathered:
    """The tables of the database in this folder."""
    with open_database("r.db", readonly=True) as database:
        return gather(database, **options)


def cells(table: Any) -> dict[str, list[str]]:
    """The numbers of a table by the address of their row, as text."""
    return {
        row.key: [each.text or ("" if each.value is None else f"{each.value:.3f}") for each in row.entries]
        for row in table.rows
    }


def test_rows_stand_as_they_are_and_tuned_and_no_draw_stands_anywhere(training: Training, tmp_path: Path) -> None:
    path = grid_file(tmp_path, tune={"draws": 8})
    run_grid(path, "r.db")
    table = gathered().table("grid-tuned")
    assert [row.key for row in table.rows] == [
        f"resnet18/{methods}/{tuning}" for methods in ("baseline", "pskd") for tuning in ("default", "tuned")
    ]
    numbers = cells(table)
    for name, draws in draws_of(load_grid(path)).items():
        best = min(error_of(draw.config) for draw in draws)
        default, winner = 60 - error_of(draws[0].config), 60 - best
        assert numbers[f"{name}/default"][:2] == [f"{default:.3f}", "\u2013"]
        # The formula's test images say the opposite of its validation images: tuned is worse there, and is shown so.
        assert numbers[f"{name}/tuned"][:2] == [f"{winner:.3f}", f"{winner - default:.3f}"]
    trials = {sample.name for row in table.rows for each in row.entries for sample in each.samples}
    assert len(trials) == 8 and not any("draw" in name for name in trials)
    assert "Tuned: 8 draws per row, draw 0 the row as it is, by random search from seed 100" in table.caption
    assert "top-1 error on the validation images (best_val)" in table.caption
    footnotes = dict(table.footnotes)
    assert [footnotes[row.note].split(":")[0] for row in table.rows if row.note] == ["draw 5 of 8", "draw 5 of 8"]


def test_a_row_whose_default_won_is_tuned_as_it_is(training: Training, tmp_path: Path) -> None:
    fixed = {"learning_rate": 0.05, "dataset": "synthetic", "subset": 2, "validation": 20, "epochs": 2, "width": 4}
    run_grid(grid_file(tmp_path, fixed=fixed, grid={"seed": [0, 1]}, tune={"draws": 3, "spaces": SPACES}), "r.db")
    table = gathered().table("grid-tuned")
    assert [each[:2] for each in cells(table).values()] == [["49.800", "\u2013"], ["49.800", "0.000"]]
    assert dict(table.footnotes)[table.rows[1].note] == "no draw of 3 is better than the row as it is"
    assert not any("/tuned/" in name for name in training.trained)


SPACES = {"*": {"learning_rate": {"log": [0.1, 0.3]}}}


def test_a_declared_table_spreads_over_tuning_and_its_caption_has_the_budget(
    training: Training, tmp_path: Path
) -> None:
    run_grid(grid_file(tmp_path, report={"tables": [DECLARED]}), "r.db")
    table = gathered().table("both")
    assert [column.key for column in table.columns] == ["default/top1", "tuned/top1", "tuned/gain"]
    assert "; best_val; tuned: 4 draws per row" in table.caption
    assert "Tuned: 4 draws per row" in table.details
    assert all(row.note for row in table.rows)


def test_a_tuned_table_by_test_images_is_refused_with_the_reason(training: Training, tmp_path: Path) -> None:
    run_grid(grid_file(tmp_path), "r.db")
    with pytest.raises(ReportError, match=r"best_test chooses epochs by test images.*take best_val, or last"):
        gathered(selection="best_test")
    assert gathered(selection="last").table("grid-tuned").rows
    # A grid without a search is read beside it as before.
    plain = json.loads(grid_file(tmp_path).read_text()) | {"name": "plain"}
    del plain["tune"]
    (tmp_path / "plain.yaml").write_text(json.dumps(plain))
    run_grid(tmp_path / "plain.yaml", "r.db")
    both = gathered()
    assert len(both.table("grid-plain").rows) == 2 and len(both.table("grid-tuned").rows) == 4
    assert "tuned" not in both.table("grid-plain").caption.lower()


def test_the_search_has_a_table_and_a_figure_of_its_own(training: Training, tmp_path: Path) -> None:
    training.fails = lambda trial: trial.name == "resnet18/pskd/draw1"
    path = grid_file(tmp_path, tune={"draws": 8})
    run_grid(path, "r.db")
    table = gathered().table("search-tuned")
    draws = draws_of(load_grid(path))
    first, second = cells(table).values()
    errors = {name: [error_of(draw.config) for draw in drawn] for name, drawn in draws.items()}
    best = {name: errors[name].index(min(errors[name])) for name in errors}
    rate = draws["resnet18/baseline"][best["resnet18/baseline"]].config.learning_rate
    expected = [f"{errors['resnet18/baseline'][number]:.3f}" for number in (0, best["resnet18/baseline"])]
    assert first == ["8", *expected, str(best["resnet18/baseline"]), f"learning_rate {rate:g}"]
    assert second[0] == "8 (1 failed)" and dict(table.footnotes)[table.rows[1].note] == "failed: draw 1 (diverged)"
    with open_database("r.db", readonly=True) as database:
        (search,) = searches(database)
        written = [each.name for each in write_report(database, tmp_path / "out", formats=["md", "html"])]
    curve = search.best_so_far("resnet18/baseline", lower=True)
    lowest = [min(errors["resnet18/baseline"][: number + 1]) for number in range(8)]
    assert curve == [(number, pytest.approx(error)) for number, error in enumerate(lowest)]
    # A draw that failed leaves the best as it was.
    other = search.best_so_far("resnet18/pskd", lower=True)
    assert [number for number, _ in other] == list(range(8)) and other[1][1] == other[0][1]
    assert {"search-tuned.md", "search-tuned-draws.svg"} <= set(written)
    svg = (tmp_path / "out" / "search-tuned-draws.svg").read_text()
    assert svg.count('<g id="line2d_') > 2


def test_a_search_under_way_shows_what_there_is(training: Training, tmp_path: Path) -> None:
    from orchestrator.scheduler import Interrupted

    training.stop = lambda trial: trial.name == "resnet18/pskd/draw1"
    with pytest.raises(Interrupted):
        run_grid(grid_file(tmp_path), "r.db")
    both = gathered()
    assert [row.key for row in both.table("grid-tuned").rows] == ["resnet18/baseline", "resnet18/pskd"]
    assert [entries[0] for entries in cells(both.table("search-tuned")).values()] == ["2 of 4", "1 of 4"]


def test_numbers_of_tuned_rows_are_explained_and_verified(training: Training, tmp_path: Path) -> None:
    run_grid(grid_file(tmp_path, report={"tables": [DECLARED]}), "r.db")
    with open_database("r.db", readonly=True) as database:
        write_report(database, tmp_path / "out", formats=["tex"])
        paper = tmp_path / "paper.tex"
        paper.write_text("\\input{out/both}\n\\input{out/search-tuned}\n")
        outcome = verify(database, paper)
        assert outcome.numbers and not outcome.problems
        origin = explain(database, "both:pskd/tuned/top1")
        draw = explain(database, "search-tuned:resnet18/pskd/default")
    assert "trial resnet18/pskd/draw0: 17.33" in draw and "seed 100" in draw and "Grids of its trials: tuned." in draw
    assert "resnet18/pskd/tuned/seed0" in origin and "resnet18/pskd/tuned/seed1" in origin
