"""Find trials that are one computation: the same numbers in every epoch, to the last bit."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

from orchestrator.identity import Numbers, same_numbers
from reports.results import Trial


def twins(first: Sequence[Trial], second: Sequence[Trial]) -> str:
    """Return `the same numbers in all 20 epochs of 3 seeds` where that holds for every seed that both have, else ``."""
    return same_numbers(_numbers(first), _numbers(second))


def _numbers(trials: Iterable[Trial]) -> dict[Hashable, Numbers]:
    """Return by seed the numbers of the trials that are done."""
    return {
        (trial.seed, trial.pair): Numbers(trial.numbers, (trial.last_epoch or 0) + 1)
        for trial in trials
        if trial.numbers and trial.state == "done"
    }
