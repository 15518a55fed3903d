"""The order in which a grid's trials run, and which of them are timed."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.grid import Grid, Trial


def ranks(grid: Grid, order: str) -> dict[str, tuple[int, int]]:
    """Return by key when a trial's turn is: by the file's order, or by the place of its seed in its cell first."""
    answer, seeds = {}, Counter[str]()
    for place, trial in enumerate(grid.trials):
        cell = trial.config.cell_key() if order == "breadth" else ""
        answer[trial.key] = (seeds[cell], place)
        seeds[cell] += order == "breadth"
    return answer


def one_seed_each(grid: Grid) -> list[Trial]:
    """Return one trial of each configuration, of any seed, in random order: a drifting clock then favours none."""
    first: dict[str, Trial] = {}
    for trial in grid.trials:
        if trial.role == "draw":
            continue
        first.setdefault(trial.config.cell_key(), trial)
    return random.sample(list(first.values()), len(first))
