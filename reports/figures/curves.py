"""Draw a metric over epochs or seconds: the mean of every line's seeds with a band, single seeds on demand."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from orchestrator.database import queries
from reports.figures.declared import Plot, Series, listing
from reports.figures.drawing import MARKERS
from reports.figures.frame import band, bar, framed, linear_scale, log_scale, look_of, shared_keys, y_limits
from reports.layouts.entries import summary
from reports.results import Trial

# Points of all lines together, as many as a reader could tell apart.
_POINTS = 30_000
# Markers along a line.
_MARKERS = 6
# The part of a training that the first epochs take, whose errors would flatten all that follows.
_FIRST = 0.1
_LOST = ("failed", "diverged")

# By trial: epoch (from 1), seconds to its end, value.
Rows = Mapping[int, Sequence[tuple[int, float, float]]]


@dataclass(frozen=True)
class Curve:
    """A line: its mean (x, value, spread) over the epochs that all its seeds have, and the seeds one by one (x, value).

    `tails` go on where the mean ends, since another seed has not come so far; `lost` failed or diverged and are in no
    mean. `counted` is the number of seeds in the mean.
    """

    mean: tuple[tuple[float, float, float | None], ...]
    seeds: tuple[tuple[tuple[float, float], ...], ...]
    tails: tuple[tuple[tuple[float, float], ...], ...]
    lost: tuple[tuple[tuple[float, float], ...], ...]
    counted: int


def read(connection: queries.Connection, plot: Plot) -> dict[int, list[tuple[int, float, float]]]:
    """Return the rows behind a figure, thinned out where they are more than a reader could tell apart."""
    ends = _ends(plot)
    every = stride(ends)
    place, _, metric = plot.y.quantity.rpartition("/")
    network, _, classifier = place.rpartition(":")
    asked = {"network": int(network or 0), "classifier": classifier, "split": plot.spec.split}
    stored = "top1_error" if metric == "accuracy" else metric
    rows: dict[int, list[tuple[int, float, float]]] = {}
    for trial, epoch, seconds, value in queries.curves(connection, ends, every, metric=stored, **asked):  # type: ignore[arg-type]
        shown = 100 - value if metric == "accuracy" else value
        rows.setdefault(trial, []).append((epoch + 1, seconds, shown))
    return rows


def _ends(plot: Plot) -> dict[int, int]:
    """Return the trials that have begun, with the last epoch that every seed of their line has."""
    ends: dict[int, int] = {}
    for one in _series(plot):
        begun = {trial.id: trial.last_epoch for trial in one.trials if trial.last_epoch is not None}
        kept = [begun[trial.id] for trial in one.trials if trial.id in begun and trial.state not in _LOST]
        ends |= dict.fromkeys(begun, min(kept or begun.values(), default=0))
    return ends


def stride(ends: Mapping[int, int]) -> int:
    """Return of how many epochs one is drawn."""
    return -(-sum(last + 1 for last in ends.values()) // _POINTS) or 1


def _series(plot: Plot) -> list[Series]:
    return [one for panel in plot.panels for one in panel.series]


def curve(one: Series, rows: Rows, x: str, band: str) -> Curve:
    """Return a line from the rows of its trials; `x` is epoch or seconds, `band` std, ci95 or none."""
    begun = [trial for trial in one.trials if rows.get(trial.id)]
    kept = [trial for trial in begun if trial.state not in _LOST]
    place = 0 if x == "epoch" else 1
    by_epoch = [{row[0]: row for row in rows[trial.id] if math.isfinite(row[2])} for trial in kept]
    shared = sorted(set.intersection(*(set(each) for each in by_epoch))) if by_epoch else []
    show = "mean_ci95" if band == "ci95" else "mean_std"
    mean = []
    for epoch in shared:
        value, spread = summary([each[epoch][2] for each in by_epoch], show)
        at = sum(each[epoch][place] for each in by_epoch) / len(by_epoch)
        mean.append((float(at), value, spread if band != "none" else None))
    last = shared[-1] if shared else 0

    def line(trial: Trial, start: int = 0) -> tuple[tuple[float, float], ...]:
        inside = [row for row in rows[trial.id] if row[0] >= start and math.isfinite(row[2])]
        return tuple((float(row[place]), row[2]) for row in inside)

    seeds = tuple(line(trial) for trial in kept) if len(kept) > 1 else ()
    tails = tuple(tail for trial in kept if len(tail := line(trial, last)) > 1)
    lost = tuple(filter(None, (line(trial) for trial in begun if trial.state in _LOST)))
    return Curve(tuple(mean), seeds, tails, lost, len(kept))


def sentences(plot: Plot, rows: Rows) -> list[str]:
    """Return what a caption says of curves: the split, the mean and its band, and seeds that are not in it."""
    curves = {index: curve(one, rows, plot.spec.x, plot.spec.band) for index, one in enumerate(_series(plot))}
    counts = sorted({each.counted for each in curves.values() if each.counted})
    split = "" if plot.spec.split == "test" else f" on the {plot.spec.split} split"
    caption = [f"{plot.y.title}{split} after each epoch."]
    if counts and counts[-1] > 1:
        many = str(counts[0]) if len(counts) == 1 else f"up to {counts[-1]}"
        band = {"std": "standard deviation", "ci95": "95 % confidence interval"}.get(plot.spec.band)
        caption.append(f"Mean over {many} seeds{f'; band: ± {band}' if band else ''}.")
        if plot.spec.seeds:
            caption.append("Thin: single seeds.")
    if any(each.tails for each in curves.values()):
        caption.append("Thin where the mean ends: seeds that have come further than others.")
    if any(each.lost for each in curves.values()):
        caption.append("Thin to a cross: seeds that failed or diverged, in no mean.")
    if any(_early(plot, each) for each in curves.values()):
        caption.append("The axis leaves out what is above it in the first tenth.")
    fewer, without = [], []
    for index, one in enumerate(_series(plot)):
        lost = sum(trial.state in _LOST for trial in one.trials)
        states = f", {lost} failed" if lost else ""
        if not curves[index].counted:
            without.append(f"{one.label}{f' ({lost} failed)' if lost else ''}".strip())
        elif curves[index].counted < len(one.trials):
            fewer.append(f"{one.label} ({curves[index].counted} of {len(one.trials)}{states})".strip())
    caption += [f"Fewer seeds: {listing(fewer)}."] if fewer else []
    caption += [f"No mean: {listing(without)}."] if without else []
    return caption


def draw(plot: Plot, rows: Rows) -> Figure:
    """Draw a figure whose x is epochs or seconds."""
    axes = framed(plot, shared_keys(plot))
    values: list[list[float]] = []
    ends = [0.0]
    for one, panel in zip(axes, plot.panels, strict=True):
        curves = [(line.look, curve(line, rows, plot.spec.x, plot.spec.band)) for line in panel.series]
        sight: list[float] = []
        for look, shown in curves:
            _line(one, plot, look_of(look), shown)
            sight += _sight(plot, shown)
            lines: list[Sequence[Sequence[Any]]] = [shown.mean, *shown.seeds, *shown.tails, *shown.lost]
            ends += [float(line[-1][0]) for line in lines if line]
        values.append(sight)
    y_limits(plot, axes, values, below=0.05)
    starts = [point[0] for one in _series(plot) for point in curve(one, rows, plot.spec.x, plot.spec.band).mean[:1]]
    _x_axes(plot, axes, max(ends), starts)
    figure: Figure = axes[0].figure  # type: ignore[assignment]
    return figure


def _line(axes: Axes, plot: Plot, look: Mapping[str, Any], curve: Curve) -> None:
    thin: dict[str, Any] = {"color": look["color"], "linewidth": 0.5, "alpha": 0.45, "zorder": 1}
    if curve.mean:
        x, y = [point[0] for point in curve.mean], [point[1] for point in curve.mean]
        # Markers at other places than those of the other lines, so that they cover nothing.
        step = max(1, len(x) // _MARKERS)
        offset = MARKERS.index(look["marker"]) * step // len(MARKERS)
        axes.plot(x, y, linewidth=1.1, markersize=3.5, markevery=(offset, step), zorder=3, **look)
        spreads = [point[2] for point in curve.mean]
        if len(x) == 1 and spreads[0]:
            bar(axes, look, x[0], y[0], spreads[0])
        elif curve.counted > 1:
            band(axes, look, x, y, spreads, zorder=2)
    for line in (*(curve.seeds if plot.spec.seeds else ()), *curve.tails):
        axes.plot(*zip(*line, strict=True), **thin)
    for line in curve.lost:
        axes.plot(*zip(*line, strict=True), **thin)
        axes.plot(*line[-1], "x", color=look["color"], markersize=4, zorder=3)


def _early(plot: Plot, curve: Curve) -> bool:
    """Return whether the first tenth of a curve has values out of sight."""
    late = _sight(plot, curve)
    return bool(late and curve.mean) and max(point[1] for point in curve.mean) > max(late) + 1e-9


def _sight(plot: Plot, curve: Curve) -> list[float]:
    """Return the values of a curve that must be in sight: after the first tenth, where there are more than a few."""
    lines: list[Sequence[Sequence[Any]]] = [curve.mean, *curve.tails, *curve.lost]
    lines += curve.seeds if plot.spec.seeds else ()
    last = max((line[-1][0] for line in lines if line), default=0.0)
    whole = plot.spec.log is not None and "y" in plot.spec.log
    sight: list[float] = []
    for line in lines:
        for point in line:
            if whole or len(line) == 1 or point[0] > _FIRST * last:
                value, spread = float(point[1]), float(point[2] or 0.0) if len(point) > 2 else 0.0
                sight += [value - spread, value + spread]
    return sight


def _x_axes(plot: Plot, axes: Sequence[Axes], last: float, first: Iterable[float]) -> None:
    start = min(first, default=0.0)
    log = plot.spec.log is not None and "x" in plot.spec.log and start > 0
    for one in axes:
        if log:
            one.set_xlim(start / 1.05, max(last, start * 1.01) * 1.05)
            log_scale(one.xaxis, start, max(last, start * 1.01))
        else:
            low, high = (1.0, last * 1.02) if plot.spec.x == "epoch" and last > 1 else (0.0, last * 1.02 or 1.0)
            one.set_xlim(low, high if last != 1 else 2.0)
            linear_scale(one.xaxis, 5, whole=plot.spec.x == "epoch")
