"""Find trials that are one computation: the same numbers in every epoch, to the last bit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from reports.results import Trial


def twins(first: Sequence[Trial], second: Sequence[Trial]) -> str:
    """Return `the same numbers in all 20 epochs of 3 seeds` where that holds for every seed that both have, else ``."""
    mine, other = _numbers(first), _numbers(second)
    shared = sorted(mine.keys() & other.keys())
    if not shared or any(mine[seed][0] != other[seed][0] for seed in shared):
        return ""
    epochs = max(mine[seed][1] for seed in shared)
    seeds = "1 seed" if len(shared) == 1 else f"{len(shared)} seeds"
    return f"the same numbers in all {epochs:,} epochs of {seeds}" if epochs > 1 else f"the same numbers in {seeds}"


def _numbers(trials: Iterable[Trial]) -> dict[tuple[int, str], tuple[str, int]]:
    """Return by seed the digest of a done trial's numbers, and its epochs."""
    return {
        (trial.seed, trial.pair): (trial.numbers, (trial.last_epoch or 0) + 1)
        for trial in trials
        if trial.numbers and trial.state == "done"
    }
