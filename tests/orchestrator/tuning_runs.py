"""Runs of tuned grids in which a formula stands for training, so that the right winner is known."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from orchestrator.database import AttemptFacts
from orchestrator.failures import Failure
from orchestrator.grid import Trial
from orchestrator.scheduler import Interrupted, RunOptions, cluster, trials
from orchestrator.scheduler.cluster import Cluster
from tests.orchestrator.databases.samples import result
from trainer.config import TrainConfig
from trainer.results import Evaluation, Metrics

SPACES = {"*": {"learning_rate": {"log": [0.01, 0.3]}}, "pskd": {"alpha": {"uniform": [0.3, 0.95]}}}
GRID: dict[str, Any] = {
    "name": "tuned",
    "fixed": {"dataset": "synthetic", "subset": 2, "validation": 20, "epochs": 2, "width": 4, "learning_rate": 0.2},
    "grid": {"methods": ["baseline", "pskd"], "seed": [0, 1]},
    "tune": {"draws": 4, "spaces": SPACES},
}


def error_of(config: TrainConfig) -> float:
    """The validation error (%) that a configuration comes to: the best rate is 0.05, and alpha matters a little."""
    alpha = config.methods["pskd"].get("alpha", 0.8) if "pskd" in config.methods else 0.7
    return 10 + 5 * abs(math.log(config.learning_rate / 0.05)) + 2 * abs(alpha - 0.6)


@dataclass
class Training:
    """Stands for the scheduler and notes the trained trials in batches; `fails` and `stop` decide by a trial."""

    batches: list[list[str]] = field(default_factory=list)
    fails: Callable[[Trial], bool] = lambda trial: False
    stop: Callable[[Trial], bool] = lambda trial: False

    @property
    def trained(self) -> list[str]:
        """The names of all trials that were trained, in order."""
        return [name for batch in self.batches for name in batch]

    def run(self, recorder: Any, _: Cluster, shape: Any, members: list[Trial], *__: Any, **how: Any) -> None:
        """Stand for the scheduler: every trial is done at once."""
        self.batches.append([])
        for trial in members:
            if self.stop(trial):
                raise Interrupted(2)
            self.batches[-1].append(trial.name)
            attempt = recorder.database.start_attempt(trial.key, AttemptFacts())
            if self.fails(trial):
                failure = Failure("diverged", "the loss is not finite", "f")
                recorder.database.finish_attempt(attempt, "failed", failure=failure, trial_state="failed")
                continue
            for epoch in range(trial.config.epochs):
                # The test images say the opposite, so that a search which looked at them would choose otherwise.
                error = error_of(trial.config) + (trial.config.epochs - 1 - epoch)
                splits = {"test": 60 - error, "validation": error}
                evaluations = [
                    Evaluation(0, "main", Metrics(value, 1.0, 0.5, 3.0, 60.0), 20, split)
                    for split, value in splits.items()
                ]
                recorder.database.record_epoch(attempt, result(epoch, evaluations=evaluations), "exclusive")
            recorder.database.finish_attempt(attempt, "done", trial_state="done")


def grid_file(folder: Path, file: str = "tuned.yaml", **changes: Any) -> Path:
    """Write the grid's file with other sections, and with other values of `tune` given as a mapping."""
    tune = GRID["tune"] | changes.pop("tune", {})
    path = folder / file
    path.write_text(json.dumps({**GRID, "tune": tune, **changes}))
    return path


def stand_in(monkeypatch: pytest.MonkeyPatch) -> Training:
    """Put a formula in the place of training; Ray is only named."""
    made = Training()

    @contextmanager
    def one(options: RunOptions) -> Iterator[Cluster]:
        yield Cluster([{"CPU": 2.0}], None)

    monkeypatch.setattr(cluster, "_ray_cluster", one)
    monkeypatch.setattr(cluster, "_living_nodes", lambda: [{"CPU": 2.0}])
    monkeypatch.setattr(trials, "_run_shape", made.run)
    return made
