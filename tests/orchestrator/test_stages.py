"""Trials that are decided while a grid runs come in stages, on one Ray, and a plan knows them afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator import load_grid, open_database, run_grid
from orchestrator.database import AttemptFacts, Database
from orchestrator.grid import Grid, Trial
from orchestrator.run import Outcome
from orchestrator.scheduler import Interrupted, Observer, RunOptions, cluster, trials
from orchestrator.scheduler.cluster import Cluster
from orchestrator.stages import Decision, decide, rules

GRID = {
    "name": "staged",
    "fixed": {"dataset": "synthetic", "subset": 2, "epochs": 1, "width": 4},
    "grid": {"seed": [0, 1]},
}


def another_seed(grid: Grid, database: Database | None) -> Decision:
    """Ask for seed 2 once the others are done, then for seed 3, and keep nothing."""
    states = database.states([trial.key for trial in grid.trials]) if database else {}
    for seed in (2, 3):
        if any(states.get(trial.key) is None or states[trial.key].state != "done" for trial in grid.trials):
            return Decision(grid, outlook=(f"seed {seed} may come",), may_come=4 - seed)
        config = grid.trials[0].config.model_copy(update={"seed": seed})
        more = Trial(config.key(), f"resnet18/baseline/seed{seed}", config, grid.trials[0].resources)
        grid = replace(grid, trials=[*grid.trials, more])
        states = database.states([trial.key for trial in grid.trials]) if database else {}
    return Decision(grid, news=("the last",))


@pytest.fixture
def grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rules, "add_seeds", another_seed)
    path = tmp_path / "staged.yaml"
    path.write_text(json.dumps(GRID))
    return path


@pytest.fixture
def happened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Note in a list what Ray and the database are asked for: Ray is only named, and its trials are done at once."""
    happened: list[Any] = []

    @contextmanager
    def one(options: RunOptions) -> Iterator[Cluster]:
        happened.append("Ray starts")
        try:
            yield Cluster([{"CPU": 2.0}], None)
        finally:
            happened.append("Ray ends")

    def train(recorder: Any, _: Cluster, shape: Any, members: list[Trial], *__: Any, **how: Any) -> None:
        happened.append([trial.config.seed for trial in members])
        for trial in members:
            attempt = recorder.database.start_attempt(trial.key, AttemptFacts())
            recorder.database.finish_attempt(attempt, "done", trial_state="done")

    release = Database.release
    monkeypatch.setattr(Database, "release", lambda *given: (happened.append("given back"), release(*given))[1])
    monkeypatch.setattr(cluster, "_ray_cluster", one)
    monkeypatch.setattr(cluster, "_living_nodes", lambda: [{"CPU": 2.0}])
    monkeypatch.setattr(trials, "_run_shape", train)
    return happened


def test_each_stage_runs_as_soon_as_the_results_call_for_it_and_ray_runs_on(grid: Path, happened: list[Any]) -> None:
    heard: list[str] = []
    observer = Observer(planned=lambda plan: heard.append(plan.summary()), note=heard.append)
    assert run_grid(grid, "r.db", observer=observer) == Outcome(failed=0, elsewhere=0, left=0)
    stage = "given back"
    assert happened == ["Ray starts", [0, 1], stage, [2], stage, [3], stage, "Ray ends"]
    assert [line for line in heard if "trials:" in line] == [
        "2 trials: 2 new; 2 trials to run",
        "3 trials: 1 new, 2 done; 1 trial to run",
        "4 trials: 1 new, 3 done; 1 trial to run",
    ]
    assert "the last" in heard
    with open_database("r.db", readonly=True) as database:
        assert [name[-5:] for _, name in database.grid_keys("staged")] == ["seed0", "seed1", "seed2", "seed3"]
        assert len(decide(load_grid(grid), database).grid.trials) == 4
    # A second run has nothing to do, and takes no trial from the grid.
    del happened[:]
    run_grid(grid, "r.db", observer=Observer())
    with open_database("r.db", readonly=True) as database:
        assert happened == [] and len(database.grid_keys("staged")) == 4
    assert decide(load_grid(grid), None).may_come == 2


def test_a_run_that_is_stopped_in_a_later_stage_ends_ray_before_its_trials_are_given_back(
    grid: Path, happened: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "stop_signal", lambda: 2 if happened[-2:] == [[0, 1], "given back"] else None)
    with pytest.raises(Interrupted):
        run_grid(grid, "r.db")
    assert happened == ["Ray starts", [0, 1], "given back", "Ray ends", "given back"]
    monkeypatch.undo()
    monkeypatch.setattr(rules, "add_seeds", another_seed)
    with open_database(grid.parent / "r.db", readonly=True) as database:
        assert [trial.config.seed for trial in decide(load_grid(grid), database).grid.trials] == [0, 1, 2]
