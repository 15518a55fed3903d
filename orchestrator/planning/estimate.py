"""Estimate the time that a grid still takes, from earlier measurements. Pure: numbers in, numbers out."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from orchestrator.text import duration

# Error bounds of a trial's speed, as a factor, by the source of its estimate. A trial's own epochs differ by the noise
# of a machine; other seeds of its configuration hardly more; other methods on its network cost up to about a third;
# another network says little.
OWN, SAME_CELL, SAME_NETWORK, ANOTHER = 1.05, 1.10, 1.35, 4.0
# Additional factor for a canary, which extrapolates from a step or two.
REHEARSED = 1.5


@dataclass(frozen=True)
class Measured:
    """Seconds per epoch of a trial that has trained, or whose canary was `rehearsed`, with its configuration."""

    config: Mapping[str, Any]
    seconds_per_epoch: float
    rehearsed: bool = False


@dataclass(frozen=True)
class Work:
    """Epochs that a trial still has to train; `seconds_per_epoch` is its own speed if it has begun."""

    config: Mapping[str, Any]
    epochs_left: int
    seconds_per_epoch: float | None = None


@dataclass(frozen=True)
class Estimate:
    """Seconds until the last trial ends, with bounds, and the sum of all trials' seconds on a device."""

    low: float
    seconds: float
    high: float
    device_seconds: float


def make_estimate(work: Sequence[Work], measured: Iterable[Measured], slots: int) -> Estimate | None:
    """Return the time that `work` takes when `slots` trials run at once, in order; None without measurements.

    A trial's speed is its own, else the mean of its cell (the configuration but for the seed), else of its network,
    else that of canaries of its cell or network, else the mean of its `setting`. For the bounds, all trials are off in
    the same direction by the factor of their source.
    """
    speeds: dict[tuple[bool | str, ...], list[float]] = {}
    for row in measured:
        for level in _levels(row.config):
            speeds.setdefault((row.rehearsed, *level), []).append(row.seconds_per_epoch)
    spans: list[tuple[float, float]] = []
    for trial in work:
        speed, factor = trial.seconds_per_epoch, OWN
        if speed is None:
            cell, network, alike = _levels(trial.config)
            sources: dict[tuple[bool | str, ...], float] = {
                (False, *cell): SAME_CELL,
                (False, *network): SAME_NETWORK,
                (True, *cell): SAME_CELL * REHEARSED,
                (True, *network): SAME_NETWORK * REHEARSED,
                (False, *alike): ANOTHER,
                (True, *alike): ANOTHER * REHEARSED,
            }
            source = next(((fmean(speeds[level]), off) for level, off in sources.items() if level in speeds), None)
            if source is None:
                return None
            speed, factor = source
        spans.append((speed * trial.epochs_left, factor))
    if not spans:
        return Estimate(0.0, 0.0, 0.0, 0.0)
    return Estimate(
        low=_makespan([span / factor for span, factor in spans], slots),
        seconds=_makespan([span for span, _ in spans], slots),
        high=_makespan([span * factor for span, factor in spans], slots),
        device_seconds=sum(span for span, _ in spans),
    )


def _levels(config: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return keys of the groups that share a trial's speed: its cell, its network on the same data, its setting."""
    timeless = ("seed", "epochs", "learning_rate", "warmup", "schedule", "milestones", "gamma", "weight_decay")
    cell = json.dumps({name: value for name, value in config.items() if name not in timeless}, sort_keys=True)
    data = json.dumps(
        [config.get(name) for name in ("network", "peer", "width", "stages", "dataset", "subset", "precision")]
    )
    return [("cell", cell), ("network", data), ("setting", setting(config))]


def setting(config: Mapping[str, Any]) -> str:
    """Return the fields in which trials must agree for a comparison of their speeds: images, width and arithmetic."""
    return json.dumps([config.get(name) for name in ("dataset", "subset", "width", "precision")])


def _makespan(spans: Sequence[float], slots: int) -> float:
    """Return when the last of `spans` ends if each starts, in order, on the slot that is free first."""
    ends = [0.0] * max(1, min(slots, len(spans)))
    for span in spans:
        heapq.heapreplace(ends, ends[0] + span)
    return max(ends)


def interval(left: Estimate) -> str:
    """Format an estimate with its bounds: `5 min 02 s (4 min 10 s to 7 min 30 s)`."""
    if duration(left.low) == duration(left.high):
        return duration(left.seconds)
    return f"{duration(left.seconds)} ({duration(left.low)} to {duration(left.high)})"
