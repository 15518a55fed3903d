"""`orchestrate status`: rows of a grid that are one computation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.database import Database, driver_lock, open_database
from tests.orchestrator.databases.samples import config, result, start

# Errors of the last epoch by row and seed; None for a trial that is not done.
Errors = Mapping[str, Sequence[float | None]]


def trained(path: Path, rows: Errors, *, name: str = "mine", epochs: int = 2) -> Database:
    """Make a database with a grid of these rows; two rows have equal numbers where their errors are equal."""
    database = open_database(path, create=True)
    with driver_lock(database, grid=name):
        trials = [
            (
                f"{row}{seed}".encode().hex().zfill(64),
                config("resnet18", row, seed, epochs),
                f"resnet18/{row}/seed{seed}",
            )
            for row, errors in rows.items()
            for seed in range(len(errors))
        ]
        database.save_grid(name, f"{name}.yaml", "", {}, trials)
        for (key, _, _), error in zip(trials, [one for errors in rows.values() for one in errors], strict=True):
            attempt = start(database, key)
            for epoch in range(epochs):
                database.record_epoch(attempt, result(epoch, error=40.0 if epoch == 0 else error or 30.0), "exclusive")
            if error is not None:
                database.finish_attempt(attempt, "done", trial_state="done")
    return database


def status(path: Path, *words: str) -> str:
    done = CliRunner().invoke(app, ["status", "--db", str(path), *words])
    assert done.exit_code == 0, done.output
    return done.output


def test_rows_that_are_one_computation_are_named(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    rows = {
        "baseline": (20.0, 21.0, 22.0),
        "pskd": (20.5, 21.5, 22.5),
        "byot": (20.0, 21.0, 22.0),
        "dmfl": (20.0, 21.0, 22.0),
    }
    trained(path, rows).close()
    words = "the same numbers in all 2 epochs of 3 seeds as resnet18/baseline: this difference changes nothing"
    assert [line for line in status(path).splitlines() if "same numbers" in line] == [
        f"  resnet18/byot: {words}",
        f"  resnet18/dmfl: {words}",
    ]
    (grid,) = json.loads(status(path, "--json"))
    assert grid["same_numbers"] == [
        {"row": f"resnet18/{row}", "as": "resnet18/baseline", "words": words.partition(" as ")[0]}
        for row in ("byot", "dmfl")
    ]


@pytest.mark.parametrize(
    ("rows", "note"),
    [
        # The last digit of one seed tells them apart.
        ({"baseline": (20.0, 21.0), "pskd": (20.0, 21.000000000000004)}, ""),
        # Only seeds that both have count, whichever these are.
        ({"baseline": (None, 21.0), "pskd": (20.0, 21.0)}, "in all 2 epochs of 1 seed as resnet18/baseline"),
        ({"baseline": (20.0,), "pskd": (20.0, 21.0)}, "in all 2 epochs of 1 seed as resnet18/baseline"),
        ({"baseline": (20.0, None), "pskd": (None, 21.0)}, ""),
        # Two seeds of one row are not two rows.
        ({"baseline": (20.0, 20.0)}, ""),
        ({"baseline": (None,), "pskd": (None,)}, ""),
    ],
)
def test_what_differs_or_is_not_done_is_not(tmp_path: Path, rows: Errors, note: str) -> None:
    path = tmp_path / "results.db"
    trained(path, rows).close()
    assert ("the same numbers" in status(path)) == bool(note)
    assert note in status(path)


def test_draws_of_a_search_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    database = trained(path, {"baseline": (20.0,), "pskd": (20.0,)})
    trials = [
        (key, config("resnet18", "x", 0), f"resnet18/x/draw{number}")
        for number, (key, _) in enumerate(database.grid_keys("mine"))
    ]
    with driver_lock(database, grid="mine"):
        database.save_grid("search", "search.yaml", "", {}, trials)
    database.close()
    assert "the same numbers" in status(path, "--grid", "mine")
    assert "the same numbers" not in status(path, "--grid", "search")
