"""`status` and `watch`: they tell of a grid that runs in another process, from the database alone."""

from __future__ import annotations

import re
import shlex
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.console import print_status, status_of, watch_grids
from orchestrator.console.watch import _matrices
from orchestrator.database import DatabaseError, driver_lock, open_database
from orchestrator.failures import Failure
from tests.orchestrator.databases.samples import config, result, start

CELLS = [(network, method) for method in ("baseline", "pskd") for network in ("resnet18", "resnet50")]


@pytest.fixture
def db(tmp_path: Path) -> str:
    """A grid of two methods, two networks and two seeds: done, running, failed and waiting cells."""
    where = str(tmp_path / "results.db")
    trials = [
        (f"{network}{method}{seed}", config(network, method, seed), f"{network}/{method}/seed{seed}")
        for network, method in CELLS
        for seed in (0, 1)
    ]
    with open_database(where, create=True) as database:
        database.save_grid("table1", "grids/table1.yaml", "name: table1", {}, trials)
        for seed in (0, 1):
            done = start(database, f"resnet18baseline{seed}")
            for epoch in range(4):
                database.record_epoch(done, result(epoch, error=30.0 - 10 * seed, train_seconds=9.4), "exclusive")
            database.finish_attempt(done, "done", trial_state="done")
        running = start(database, "resnet18pskd0")
        for epoch in range(2):
            database.record_epoch(running, result(epoch, error=25.5, train_seconds=19.4), "exclusive")
        failed = start(database, "resnet50baseline0")
        failure = Failure("out_of_memory", "no [memory]", "f")
        database.finish_attempt(failed, "failed", failure=failure, trial_state="failed")
    return where


def printed(capsys: pytest.CaptureFixture[str], db: str, **options) -> list[str]:
    watch_grids(db, None, every=1, once=True, **options)
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def test_a_narrow_terminal_folds_names_and_keeps_numbers(db):
    drawn = StringIO()
    with open_database(db, readonly=True) as database:
        shown = _matrices(status_of(database, None))
    Console(file=drawn, force_terminal=True, color_system=None, width=24).print(shown)
    lines = drawn.getvalue().splitlines()
    assert max(map(len, lines)) <= 24
    # The cells of the first row, which stood nowhere.
    assert "25.00" in drawn.getvalue() and "out_of" in drawn.getvalue()


def test_the_matrix_is_table_1_as_it_fills_up(db, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    # An attempt is open, and nobody writes it.
    warning, headline, heads, baseline, pskd, *_ = printed(capsys, db)
    assert warning.startswith("warning: ") and "orchestrate backup" in warning
    assert headline.startswith("table1: 2 of 8 trials done, 1 running, 4 pending, 1 failed; about ")
    assert heads.split() == ["top-1", "error", "(best_test)", "resnet18", "resnet50"]
    assert re.fullmatch(r"baseline +25\.00 % \(2/2 seeds\) +seed 0: out_of_memory", baseline)
    assert re.fullmatch(r"pskd +seed 0: 2 of 4 epochs, 25\.50 %, 40 s left +waiting", pskd)


def test_the_time_left_follows_the_speeds(db):
    with open_database(db, readonly=True) as database:
        (grid,) = status_of(database, None)
    # One runs at a time. Two epochs of 20 s are left of the running trial, four of 20 s of its other seed; the three
    # pending trials of the other network, four epochs each, take the mean of what was measured.
    mean = (10 + 10 + 20) / 3
    assert grid["seconds_left"] == pytest.approx(2 * 20 + 4 * 20 + 3 * 4 * mean)
    assert grid["seconds_left_low"] < grid["seconds_left"] < grid["seconds_left_high"]


def test_a_canary_tells_the_time_before_anything_was_trained(tmp_path):
    where = str(tmp_path / "new.db")
    with open_database(where, create=True) as database:
        database.save_grid("g", "g.yaml", "", {}, [("k", config("resnet18", "pskd", 0), "resnet18/pskd/seed0")])
        assert status_of(database, None)[0]["seconds_left"] is None
        facts = {"seconds_per_epoch": 30.0, "peak_memory_bytes": None, "checkpoint_bytes": 1}
        canary = start(database, "k", purpose="canary", environment={"canary": facts})
        database.finish_attempt(canary, "done")
        (grid,) = status_of(database, None)
    assert grid["seconds_left"] == pytest.approx(4 * 30.0)
    assert grid["seconds_left_high"] > 1.5 * grid["seconds_left"]


def test_status_names_what_runs_and_what_failed(db, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    with open_database(db, readonly=True) as database:
        print_status(status_of(database, ["table1"]))
        with pytest.raises(DatabaseError, match="no grid named 'table2' in this database"):
            status_of(database, ["table2"])
    lines = capsys.readouterr().out.splitlines()
    assert (
        "  running resnet18/pskd/seed0: 2 of 4 epochs, top-1 error 25.50 %, 40 s left, on node1, cuda:0 (H200)" in lines
    )
    assert "  failed  resnet50/baseline/seed0: out_of_memory" in lines
    assert "  `orchestrate triage --grid table1` says why" in lines
    with open_database(db, readonly=True) as database:
        print_status(status_of(database, ["table1"]), ["--db", "my results.db"])
    assert "`orchestrate triage --grid table1 --db 'my results.db'` says why" in capsys.readouterr().out


def test_what_a_dead_driver_left_is_interrupted_and_not_running(db, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    with open_database(db) as database:
        with driver_lock(database, grid="table1") as driver:
            database.claim(["resnet18pskd1", "resnet50pskd0"], driver)
            attempt = start(database, "resnet18pskd1")
            database.record_epoch(attempt, result(0, error=33.0, train_seconds=19.4), "exclusive")
            (grid,) = status_of(database, None)
            # Nothing is to be continued while somebody trains it.
            assert (grid["counts"]["running"], grid["continue"]) == (2, None)
        # As after a SIGKILL: the lock is free, and nobody has given anything back.
        (grid,) = status_of(database, None, ["--db", "x.db"])
        assert (grid["counts"]["running"], grid["counts"]["pending"]) == (1, 4)
        print_status([grid])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("table1: 2 of 8 trials done, 1 running, 1 interrupted, 3 pending, 1 failed; about ")
    assert any(
        line.startswith("  interrupted resnet18/pskd/seed1: 1 of 4 epochs, top-1 error 33.00 %") for line in lines
    )
    assert "  `orchestrate run grids/table1.yaml --db x.db` continues what was interrupted" in lines


@pytest.mark.parametrize(("waiting", "rest"), [(2, " left for one trial after the other"), (1, " left")])
def test_the_time_left_of_one_trial_is_just_that(waiting, rest, tmp_path, capsys):
    where = str(tmp_path / "results.db")
    with open_database(where, create=True) as database:
        trials = [
            (key, config("resnet18", "pskd", seed), f"resnet18/pskd/seed{seed}") for seed, key in enumerate("abc")
        ]
        database.save_grid("g", "g.yaml", "", {}, trials[: waiting + 1])
        done = start(database, "a")
        for epoch in range(4):
            database.record_epoch(done, result(epoch, train_seconds=9.4), "exclusive")
        database.finish_attempt(done, "done", trial_state="done")
        print_status(status_of(database, None))
    headline = capsys.readouterr().out.splitlines()[0]
    assert re.fullmatch(rf"g: 1 of {waiting + 1} trials done, {waiting} pending; about [^;]*\){rest}", headline)


def test_nothing_was_run_yet(tmp_path, capsys):
    where = str(tmp_path / "empty.db")
    with open_database(where, create=True) as database:
        assert status_of(database, None) == []
        print_status([], ["--db", where])
    assert (
        f"`orchestrate run grids/quickstart.yaml --db {shlex.quote(where)}` runs the first" in capsys.readouterr().out
    )
    assert printed(capsys, where) == ["no grid was run yet"]


@pytest.mark.parametrize(
    ("selection", "heading", "shown"),
    [
        ("best_test", "top-1 error (best_test)", "10.00 %"),
        ("last", "top-1 error (last)", "12.00 %"),
        ("mean_last_2", "top-1 error (best_test; in reports mean_last_2)", "10.00 %"),
    ],
)
def test_the_rule_of_the_grid_is_followed_or_the_other_one_is_named(tmp_path, capsys, selection, heading, shown):
    where = str(tmp_path / "rule.db")
    with open_database(where, create=True) as database:
        trials = [("k", config("resnet18", "pskd", 0, epochs=3), "resnet18/pskd/seed0")]
        database.save_grid("g", "g.yaml", "", {"selection": selection}, trials)
        attempt = start(database, "k")
        for epoch, error in enumerate((30.0, 10.0, 12.0)):
            database.record_epoch(attempt, result(epoch, error=error), "exclusive")
        database.finish_attempt(attempt, "done", trial_state="done")
    _, heads, row, *_ = printed(capsys, where)
    assert heads.startswith(heading) and re.fullmatch(rf"pskd +{shown}", row)


def test_ctrl_c_ends_the_watching(db, monkeypatch, capsys):
    pauses = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    # A terminal, as Rich takes it.
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr("orchestrator.console.watch.time.sleep", sleep)
    watch_grids(db, None, every=1.5, once=False)
    assert pauses == [1.5] * 3
    assert "table1" in capsys.readouterr().out


def test_names_are_text(tmp_path, capsys):
    where = str(tmp_path / "odd.db")
    name = "resnet18/<b>[red]/seed0"
    with open_database(where, create=True) as database:
        database.save_grid("g", "g.yaml", "", {}, [("k", config("resnet18", "pskd", 0), name)])
    assert any("<b>[red]" in line for line in printed(capsys, where))
