"""Several databases in one: every number of each is in it, a shared trial once, and the sources are untouched."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import update
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.database import open_database
from orchestrator.database.models import Grid
from reports.gathering import gather
from reports.loading import load
from tests.reports.lookup import one
from tests.reports.synthetic import configuration, make_database, trials


def numbers(path: Path) -> dict[str, float]:
    """Return the top-1 errors of a database by trial."""
    with open_database(path, readonly=True) as database:
        cells = load(database).cells
    return {
        trial.key: trial.measurements[0, "main"].metrics["top1_error"]  # type: ignore[misc]
        for cell in cells
        for trial in cell.trials
        if trial.measurements
    }


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Two databases: one grid each, with one trial that both have, which only the second finished."""
    shared = configuration(["pskd"], seed=0)
    first = [configuration(seed=seed) for seed in range(3)]
    second = [configuration(["byot"], seed=seed) for seed in range(3)]

    def laptop(filler):
        fates = trials(first) + trials([shared], state="running", epochs=3)
        filler.grid("laptop", {}, fates)

    def server(filler):
        filler.grid("server", {}, [*trials([shared]), *trials(second), *trials([first[0]])])

    make_database(tmp_path / "laptop.db", laptop).close()
    make_database(tmp_path / "server.db", server).close()
    return tmp_path


def merge(folder: Path, *names: str):
    return CliRunner().invoke(app, ["merge", str(folder / "all.db"), *(str(folder / name) for name in names)])


def test_one_table_stands_over_the_grids_of_two_databases(two):
    before = [(two / name).read_bytes() for name in ("laptop.db", "server.db")]
    done = merge(two, "laptop.db", "server.db")
    assert done.exit_code == 0, done.output
    assert "1 grid, 3 trials, 4 attempts; 2 trials in both" in done.output
    assert numbers(two / "all.db") == numbers(two / "laptop.db") | numbers(two / "server.db")
    with open_database(two / "all.db", readonly=True) as database:
        assert database.leave_out_broken(numbers=True) == []
        table = one(gather(database, tables=[{"name": "all", "rows": "methods", "columns": ["top1"]}]).tables, "all")
        states = {grid.name: grid.states for grid in load(database).grids}
    assert {row.key: row.entries[0].n for row in table.rows} == {"baseline": 3, "pskd": 1, "byot": 3}
    assert states == {"laptop": {"done": 4}, "server": {"done": 5}}
    assert before == [(two / name).read_bytes() for name in ("laptop.db", "server.db")]


def test_the_order_of_databases_changes_no_number(two):
    merge(two, "laptop.db", "server.db")
    forward = numbers(two / "all.db")
    (two / "all.db").unlink()
    merge(two, "server.db", "laptop.db")
    assert numbers(two / "all.db") == forward


def test_a_grid_that_both_have_gets_the_trials_of_both(tmp_path):
    for place, name in enumerate(("laptop", "server")):
        config = [configuration(seed=seed) for seed in (0, place + 1)]
        make_database(tmp_path / f"{name}.db", lambda filler, c=config: filler.grid("g", {}, trials(c))).close()
    assert merge(tmp_path, "laptop.db", "server.db").exit_code == 0
    with open_database(tmp_path / "all.db", readonly=True) as database:
        (grid,) = load(database).grids
        (cell,) = load(database).cells
    assert grid.states == {"done": 3} and [trial.seed for trial in cell.trials] == [0, 1, 2]


def test_an_existing_file_and_a_missing_database_are_refused(two):
    (two / "all.db").write_text("mine")
    refused = merge(two, "laptop.db", "server.db")
    assert refused.exit_code == 2 and (two / "all.db").read_text() == "mine"
    (two / "all.db").unlink()
    lost = merge(two, "laptop.db", "lost.db")
    assert lost.exit_code == 2 and not (two / "all.db").exists()


@pytest.mark.parametrize("names", [("laptop.db", "server.db"), ("server.db", "laptop.db")])
def test_of_two_unfinished_trials_the_one_with_more_epochs_stays_and_the_rest_is_counted(tmp_path, names):
    shared = configuration(["pskd"], seed=0)
    for name, epochs in (("laptop", 3), ("server", 5)):
        fates = trials([shared], state="running", epochs=epochs)
        make_database(tmp_path / f"{name}.db", lambda filler, n=name, f=fates: filler.grid(n, {}, f)).close()
    done = merge(tmp_path, *names)
    assert done.exit_code == 0, done.output
    left = [line for line in done.output.splitlines() if line.startswith("not added from")]
    if names[0] == "server.db":
        assert len(left) == 1 and "1 attempt with 3 epochs" in left[0], done.output
    else:
        assert left == []
    with open_database(tmp_path / "all.db", readonly=True) as database:
        (trial,) = database.progress("laptop")
    assert trial.epochs_done == 5


def test_a_grid_from_two_files_is_named(tmp_path):
    for name in ("laptop", "server"):
        config = [configuration(seed=0)]
        make_database(tmp_path / f"{name}.db", lambda filler, c=config: filler.grid("g", {}, trials(c))).close()
    assert "another file" not in merge(tmp_path, "laptop.db", "server.db").output
    (tmp_path / "all.db").unlink()
    with open_database(tmp_path / "server.db") as database, database.engine.begin() as connection:
        connection.execute(update(Grid).values(text="name: g  # another"))
    done = merge(tmp_path, "laptop.db", "server.db")
    assert "the grid g of" in done.output and "comes from another file" in done.output
