"""Results of a grid's trials, made up, so that its rows and seeds differ as a test wants."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from orchestrator.database import Database
from orchestrator.failures import Failure
from orchestrator.grid import Grid, Trial
from tests.orchestrator.databases.samples import result, start

# The errors of seeds 0, 1, ... beside a row's mean, without a pattern that two rows share.
NOISE = (0.31, -0.42, 0.05, 0.28, -0.19, 0.11, -0.33, 0.22, -0.08, 0.17, -0.25, 0.4)


def store(database: Database, grid: Grid) -> None:
    """Store a grid as a run does."""
    trials = [(trial.key, trial.config.model_dump(mode="json"), trial.name) for trial in grid.trials]
    database.save_grid(grid.name, str(grid.source), grid.text, grid.report, trials)


def finish(database: Database, trials: Iterable[Trial], error: Callable[[Trial], float]) -> None:
    """Have trials done, with this top-1 error after every epoch."""
    for trial in trials:
        attempt = start(database, trial.key)
        for epoch in range(trial.config.epochs):
            database.record_epoch(attempt, result(epoch, error=error(trial)), "exclusive")
        database.finish_attempt(attempt, "done", trial_state="done")


def fail(database: Database, trials: Iterable[Trial]) -> None:
    """Have trials failed."""
    for trial in trials:
        attempt = start(database, trial.key)
        database.finish_attempt(attempt, "failed", failure=Failure("code", "boom", "f"), trial_state="failed")
