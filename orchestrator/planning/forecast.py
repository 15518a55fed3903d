"""Forecast the cost of a plan's trials, from earlier measurements. Pure: it uses neither database nor device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from orchestrator.planning.estimate import Estimate, Measured, Work, make_estimate, setting
from orchestrator.records import MeasuredRow, TrialState

if TYPE_CHECKING:
    from orchestrator.planning.plan import Plan


@dataclass(frozen=True)
class NetworkCost:
    """Measurements of the trials of one network: the fastest and slowest epoch, and the most memory."""

    network: str
    fastest: float
    slowest: float
    peak_memory_bytes: int | None
    trained: int
    rehearsed: int


@dataclass(frozen=True)
class Forecast:
    """Cost of the `trials` of a run. `disk_bytes` is for checkpoints, None where no canary wrote one."""

    trials: int
    left: Estimate
    slots: int
    networks: list[NetworkCost]
    disk_bytes: int | None


def make_forecast(
    plan: Plan, states: Mapping[str, TrialState], measured: Sequence[MeasuredRow], slots: int
) -> Forecast | None:
    """Return the cost of the pending trials of a plan when `slots` run at once; None without measurements."""
    own = {row.key: row.seconds_per_epoch for row in measured if row.purpose == "train"}
    work = []
    for entry in plan.pending:
        trial = entry.trial
        done = states[trial.key].epochs if trial.key in states else 0
        work.append(Work(trial.config.model_dump(mode="json"), trial.config.epochs - done, own.get(trial.key)))
    left = make_estimate(work, as_measured(measured), slots)
    if left is None or not measured:
        return None
    # Other data sets and widths in the database tell nothing about these trials.
    settings = {setting(each.config) for each in work}
    measured = [row for row in measured if setting(row.config) in settings]
    networks = {each.config["network"]: None for each in work}
    return Forecast(
        trials=len(work),
        left=left,
        slots=max(1, min(slots, len(work))),
        networks=[cost for network in networks if (cost := _cost(network, measured)) is not None],
        disk_bytes=_disk(work, measured, slots),
    )


def as_measured(rows: Iterable[MeasuredRow]) -> list[Measured]:
    """Convert rows of the database for an estimate."""
    return [Measured(row.config, row.seconds_per_epoch, rehearsed=row.purpose == "canary") for row in rows]


def _cost(network: str, measured: Sequence[MeasuredRow]) -> NetworkCost | None:
    rows = [row for row in measured if row.config["network"] == network]
    trained = [row for row in rows if row.purpose == "train"]
    if not rows:
        return None
    # Measured epochs are better than extrapolated ones.
    seconds = [row.seconds_per_epoch for row in trained or rows]
    peaks = [row.peak_memory_bytes for row in rows if row.peak_memory_bytes is not None]
    return NetworkCost(
        network, min(seconds), max(seconds), max(peaks, default=None), len(trained), len(rows) - len(trained)
    )


def _disk(work: Sequence[Work], measured: Sequence[MeasuredRow], slots: int) -> int | None:
    """Return the bytes of all checkpoints: one of each finished trial, and a second one of each that trains."""
    sizes: dict[str, list[int]] = {}
    for row in measured:
        if row.checkpoint_bytes is not None:
            sizes.setdefault(row.config["network"], []).append(row.checkpoint_bytes)
    if not sizes:
        return None
    overall = fmean(size for group in sizes.values() for size in group)
    wanted = [fmean(sizes[network]) if (network := each.config["network"]) in sizes else overall for each in work]
    return round(sum(wanted) + sum(sorted(wanted, reverse=True)[:slots]))
