"""`orchestrate forget`: what goes, what stays, and what is asked and copied before."""

from __future__ import annotations

import json
import os
import pty
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.database import Busy, Database, DatabaseError, Driver, driver_lock, open_database
from orchestrator.storage import find_leftovers, store
from tests.orchestrator.databases.samples import count, result, save, start, trials_of

TABLES = ("grids", "grid_trials", "trials", "attempts", "epochs", "evaluations")
PROGRAM = "from orchestrator.cli import main; main()"
ROOT = Path(__file__).parents[3]


def rows(database: Database) -> dict[str, int]:
    return {table: count(database, table) for table in TABLES}


def train(database: Database, keys: list[str], **facts: object) -> None:
    for key in keys:
        attempt = start(database, key, **facts)
        for epoch in range(2):
            database.record_epoch(attempt, result(epoch), "exclusive")
        database.finish_attempt(attempt, "done", trial_state="done")


@pytest.fixture
def filled(database: Database, driver: Driver) -> Database:
    """Two grids, of trials 0 to 3 and 2 to 5, all trained."""
    train(database, [*save(database, 4, grid="one"), *save(database, 4, grid="two", start=2)[2:]])
    return database


def test_a_grid_goes_and_its_trials_stay(filled: Database):
    before = rows(filled)
    filled.forget("one")
    assert rows(filled) == before | {"grids": 1, "grid_trials": 4}
    assert [grid.name for grid in filled.grids()] == ["two"]
    # A later grid with the same trials has their results.
    assert [state.state for state in filled.states(save(filled, 4, grid="again")).values()] == ["done"] * 4


def test_its_own_trials_go_with_all_that_was_recorded_of_them(filled: Database):
    extent = filled.extent("one")
    keys = [key for key, _, _ in trials_of(6)]
    assert (extent.trials, list(extent.keys)) == (4, keys[:2])
    assert (extent.attempts, extent.epochs, extent.evaluations) == (2, 4, 8)
    filled.forget("one", trials=True)
    assert rows(filled) == {
        "grids": 1,
        "grid_trials": 4,
        "trials": 4,
        "attempts": 4,
        "epochs": 8,
        "evaluations": 16,
    }
    assert set(filled.states(keys)) == set(keys[2:])
    assert not filled.damage()
    # A transaction may run twice.
    filled.forget("one", trials=True)


def test_a_trial_that_a_living_driver_has_stays(database: Database, driver: Driver):
    keys = save(database, 2, grid="one")
    database.claim(keys[:1], driver)
    assert database.extent("one").keys == (keys[1],)
    database.forget("one", trials=True)
    assert set(database.states(keys)) == {keys[0]}


def test_an_unknown_grid_is_said_with_the_known_ones(filled: Database):
    with pytest.raises(DatabaseError, match=r"no grid named 'noe' in .* \(it holds: one, two\)"):
        filled.extent("noe")


def forget(location: str, *arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["forget", *arguments, "--db", location])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    return done.exit_code, done.output


def test_a_grid_that_runs_is_refused(location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with open_database(location, create=True) as database, driver_lock(database, grid="one"):
        save(database, 2, grid="one")
        before = rows(database)
        if database.path:
            # The lock of this process does not keep this process out.
            command = [sys.executable, "-c", PROGRAM, "forget", "one", "--yes", "--db", location]
            done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
            status, output = done.returncode, done.stderr
        else:
            status, output = forget(location, "one", "--yes")
        assert status == Busy.exit_code == 3 and "is in use by `orchestrate` for one" in output
        assert rows(database) == before
    assert not list(tmp_path.glob("*before-forgetting*"))


def test_numbers_are_said_a_copy_is_made_and_checkpoints_go(
    location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "checks"
    folder.mkdir()
    host = os.uname().nodename
    with open_database(location, create=True) as database, driver_lock(database, grid="one"):
        one = save(database, 2, grid="one")
        two = save(database, 2, grid="two", start=1)
        train(database, one, host=host, environment={"places": {"--checkpoints": str(folder)}})
        train(database, two[1:], host="elsewhere", environment={"places": {"--checkpoints": "/far/away"}})
        before = rows(database)
    for key in {*one, *two}:
        (folder / f"{key}.pt").write_bytes(b"x" * 512)
    (folder / f"{one[0]}.pt.previous").write_bytes(b"x" * 512)
    status, output = forget(location, "one", "--trials", "--yes")
    assert status == 0
    assert "removes: grid one, a list of 2 trials\n" in output
    assert "removes: 1 trial that no other grid has, with 1 attempt, 2 epochs and 4 evaluations\n" in output
    assert f"removes: 2 files of checkpoints in {folder} (1 KiB)\n" in output
    assert "stays: 1 trial that another grid or a running driver has\n" in output
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{key}.pt" for key in two)
    (copy,) = tmp_path.glob("results.db.before-forgetting-one-*")
    assert str(copy.name) in output
    with open_database(copy, readonly=True) as copied:
        assert rows(copied) == before
    with open_database(location, readonly=True) as database:
        assert database.extent("two").trials == 2 and rows(database)["trials"] == 2
    status, output = forget(location, "two", "--trials", "--yes")
    assert "stays: checkpoints that may be in /far/away on elsewhere\n" in output


def test_nothing_goes_where_nobody_answers_yes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with open_database("results.db", create=True) as database:
        save(database, 2, grid="one")
        before = rows(database)
    status, output = forget("results.db", "one")
    assert status == 2 and "nothing was removed: nobody can be asked here; give --yes" in output
    assert "stays: 2 trials that no other grid has" in output and "(--trials removes them)" in output
    for answer, gone in (("n", False), ("y", True)):
        with open_database("results.db", readonly=True) as database:
            assert rows(database) == before
        leader, follower = pty.openpty()
        command = [sys.executable, "-c", PROGRAM, "forget", "one"]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        asked = subprocess.Popen(command, stdin=follower, stdout=subprocess.PIPE, env=environment)
        os.write(leader, f"{answer}\n".encode())
        text = asked.communicate(timeout=60)[0].decode()
        os.close(leader)
        os.close(follower)
        assert asked.returncode == 0
        assert ("nothing was removed" not in text) == gone == bool(list(tmp_path.glob("*before-forgetting*")))
    with sqlite3.connect("results.db") as connection:
        assert connection.execute("SELECT count(*) FROM grids").fetchone() == (0,)
    connection.close()
    assert json.loads(CliRunner().invoke(app, ["status", "--json"]).stdout) == []


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    status, output = forget("results.db", "one", "--yes")
    assert status == 2 and "does not exist" in output and not list(tmp_path.iterdir())


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_checkpoints_are_found_and_removed_in_a_folder_and_below_a_url(
    tmp_path: Path, scheme: str, monkeypatch: pytest.MonkeyPatch
):
    # No waiting between two tries of what cannot be removed.
    monkeypatch.setattr(store, "PAUSES", (0.0, 0.0))
    (tmp_path / "a.pt").write_bytes(b"x" * 100)
    (tmp_path / "a.pt.teacher").write_bytes(b"x")
    (tmp_path / "b.pt").touch()
    files = find_leftovers(f"{scheme}{tmp_path}", ["a", "c"])
    assert files.names == ["a.pt", "a.pt.teacher"] and files.size == (None if scheme else 101)
    assert files.remove({"a"}) == []
    assert [path.name for path in tmp_path.iterdir()] == ["b.pt"]
    (tmp_path / "a.pt").mkdir()
    (line,) = find_leftovers(f"{scheme}{tmp_path}", ["a"]).remove({"a"})
    assert line.startswith(f"{scheme}{tmp_path}/a.pt stays: ")
