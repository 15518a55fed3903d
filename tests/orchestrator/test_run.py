"""A grid is run from Python: nothing is printed, and whoever asks hears it. With Ray: tests/test_python_page.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from orchestrator import load_grid, open_database, run_grid
from orchestrator.database import Database
from orchestrator.failures import Failure
from orchestrator.grid import GridError, Trial
from orchestrator.planning import Plan
from orchestrator.run import Outcome
from orchestrator.scheduler import Batch, Observer, TrackerError
from tests.orchestrator.databases.samples import count, result, start

GRID = {
    "name": "small",
    "fixed": {"dataset": "synthetic", "subset": 2, "epochs": 1, "width": 4},
    "grid": {"seed": [0, 1]},
}

NAMES = [f"resnet18/baseline/seed{seed}" for seed in (0, 1)]


@pytest.fixture
def grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.yaml"
    path.write_text(json.dumps(GRID))
    return path


def test_an_observer_hears_of_the_plan_and_yields_one_of_the_trials(
    grid: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    heard: list[Any] = []

    @contextmanager
    def batch(trials: Batch) -> Iterator[Observer]:
        heard.append((trials.grid, sorted(trials.configs)))
        yield Observer(note=heard.append)
        heard.append("over")

    def run_trials(database: Any, trials: Any, options: Any, observer: Observer) -> None:
        observer.note(f"{len(trials)} trials on a Ray at {options.address}")

    observer = Observer(planned=lambda plan: heard.append(plan.summary()), batch=batch)
    with patch("orchestrator.scheduler.trials.run_trials", run_trials):
        outcome = run_grid(grid, "r.db", observer=observer)
    # Nothing trained them, so that they are left to the next run.
    assert outcome.left == 2
    assert heard == ["2 trials: 2 new; 2 trials to run", ("small", NAMES), "2 trials on a Ray at None", "over"]
    assert capfd.readouterr() == ("", "")


def test_an_observer_without_callbacks_of_its_own_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """Take the observer that a run has where none is given."""
    observer = Observer()
    calls: dict[str, tuple[Any, ...]] = {
        **{"planned": (Plan([]),), "note": ("a note",), "warning": ("a warning",), "ready": ("http://127.0.0.1:1",)},
        **{"started": ("trial", "host", "cpu"), "epoch": ("trial", result(0), "exclusive"), "finished": ("trial",)},
        **{"retried": ("trial", "why"), "failed": ("trial", Failure("code", "why", "f")), "tick": ()},
    }
    assert {*calls, "batch"} == {field.name for field in fields(Observer)}
    for name, arguments in calls.items():
        getattr(observer, name)(*arguments)
    with observer.batch(Batch("small", {})) as listener:
        assert listener is None
    assert capfd.readouterr() == ("", "")


def test_a_trial_of_two_grids_is_trained_once(grid: Path, tmp_path: Path) -> None:
    """Write down what is trained, without training it; `test_end_to_end.py` trains with Ray."""
    trained: list[list[str]] = []

    def run_trials(database: Database, trials: list[Trial], *_: Any) -> None:
        trained.append([trial.name for trial in trials])
        for trial in trials:
            attempt = start(database, trial.key)
            database.record_epoch(attempt, result(0, error=float(len(trained))), "exclusive")
            database.finish_attempt(attempt, "done", trial_state="done")

    other = tmp_path / "other.yaml"
    other.write_text(json.dumps(GRID | {"name": "other", "grid": {"seed": [1, 2]}}))
    plans: list[str] = []
    observer = Observer(planned=lambda plan: plans.append(plan.summary()))
    with patch("orchestrator.scheduler.trials.run_trials", run_trials):
        for path in (grid, other, grid, other):
            assert run_grid(path, "r.db", observer=observer) == Outcome(failed=0, elsewhere=0, left=0)
    assert trained == [NAMES, ["resnet18/baseline/seed2"]]
    assert plans[1] == "2 trials: 1 new, 1 done; 1 trial to run"
    with open_database("r.db", readonly=True) as database:
        assert [(row.state, row.last_top1_error) for row in database.progress("other")] == [
            ("done", 1.0),
            ("done", 2.0),
        ]
        assert count(database, "attempts") == 3


def test_a_mistake_is_raised(grid: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TypeError, match="'pakc'"):
        run_grid(grid, "r.db", pakc=True)
    with pytest.raises(TrackerError, match="no such tracker"):
        run_grid(grid, "r.db", trackers=("paper",))
    grid.write_text("name: small\nfixed: {epochs: none}\n")
    with pytest.raises(GridError, match="epochs"):
        run_grid(grid, "r.db")
    assert not Path("r.db").exists()
    assert capfd.readouterr() == ("", "")


def test_the_first_seed_of_every_cell_comes_first_where_breadth_is_asked_for(grid: Path) -> None:
    grid.write_text(json.dumps(GRID | {"grid": {"methods": [{}, "pskd"], "seed": [3, 1]}}))
    heard: list[list[str]] = []

    def order_of(path: Path, **options: Any) -> list[str]:
        with patch("orchestrator.scheduler.trials.run_trials", lambda _, trials, *__: heard.append(trials)):
            run_grid(load_grid(path), "r.db", **options)
        return [f"{'+'.join(trial.config.methods)}{trial.config.seed}" for trial in heard[-1]]

    depth, breadth = ["3", "1", "pskd3", "pskd1"], ["3", "pskd3", "1", "pskd1"]
    assert order_of(grid) == depth
    assert order_of(grid, order="breadth") == breadth
    grid.write_text(json.dumps(json.loads(grid.read_text()) | {"order": "breadth"}))
    assert order_of(grid) == breadth and order_of(grid, order="depth") == depth
    # The place of a trial in its grid, and so in the tables, stays the file's.
    with open_database("r.db", readonly=True) as database:
        assert [name for _, name in database.grid_keys("small")] == [trial.name for trial in load_grid(grid).trials]
    with pytest.raises(ValueError, match="neither 'depth' nor 'breadth'"):
        run_grid(grid, "r.db", order="wide")
