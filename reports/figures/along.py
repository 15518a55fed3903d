"""Draw a metric against the values of a field: lines with bands over numbers, bars of spread over categories."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.figures.declared import Plot, Point, Series, listing
from reports.figures.drawing import INK, SMALL
from reports.figures.frame import (
    band,
    bar,
    framed,
    linear_scale,
    log_scale,
    look_of,
    shared_keys,
    text_width,
    y_limits,
)
from reports.layouts.wording import head_of
from reports.table import Sample

# Numbers from here on, largest by smallest, are shown on a logarithmic axis unless the figure says otherwise.
_LOG_FROM = 10
# Numbers along x that are written one by one.
_WRITTEN = 8


def drawn(plot: Plot) -> list[Point]:
    """Return the points that have a number."""
    points = [point for panel in plot.panels for one in panel.series for point in one.points]
    return [point for point in points if _value(point) is not None]


def sentences(plot: Plot) -> list[str]:
    """Return what a caption says of points, bands and level lines."""
    points = drawn(plot)
    counts = sorted({point.y.n for point in points})
    caption = []
    if counts[-1] > 1:
        many = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        band = {"std": "standard deviation", "ci95": "95 % confidence interval"}.get(plot.spec.band)
        shape = "bars" if plot.ticks else "bands"
        averaged = "seeds" if plot.spec.over == ("seed",) else "trials"
        caption.append(f"Mean over {many} {averaged}{f'; {shape}: ± {band}' if band else ''}.")
        if plot.spec.seeds and plot.spec.y.minus is None:
            caption.append("Thin: single seeds.")
    elif counts[-1] == 1:
        caption.append("One seed.")
    level = [point for point in points if point.place is None]
    if level:
        caption.append(f"Level lines: without {head_of(plot.spec.x, plot.spec.names)}.")
    if plot.spec.y.minus is not None:
        every = [one for panel in plot.panels for one in panel.series]
        # A reference has a text in place of a difference; a row without a number yet is none.
        references = [one.label for one in every if all(point.y.state == "text" for point in one.points)]
        caption.append(f"Zero: {listing(references)}." if references else "")
    if any(point.y.star for point in points):
        caption.append("Hollow: the device was shared during some of the epochs timed.")
    return caption


def draw(plot: Plot) -> Figure:
    """Draw a figure whose x is a field."""
    bottom, turned = _room_of_ticks(plot)
    axes = framed(plot, shared_keys(plot), bottom=bottom)
    values = [_panel(plot, one, number) for number, one in enumerate(axes)]
    y_limits(plot, axes, values)
    _x_axes(plot, axes, turned)
    figure: Figure = axes[0].figure  # type: ignore[assignment]
    return figure


def _panel(plot: Plot, axes: Axes, number: int) -> list[float]:
    """Draw the lines of a panel, and return the values that must be in sight."""
    several = plot.panels[number].series
    sight: list[float] = []
    if plot.spec.y.minus is not None:
        axes.axhline(0.0, color=INK, linewidth=0.7, alpha=0.6, zorder=1)
        sight.append(0.0)
    for place, one in enumerate(several):
        dodge = 0.0
        if plot.ticks:
            dodge = (place - (len(several) - 1) / 2) * min(0.16, 0.7 / len(several))
        if plot.spec.seeds:
            sight += _seeds(plot, axes, one, dodge)
        sight += _line(plot, axes, one, dodge)
    return sight


def _line(plot: Plot, axes: Axes, one: Series, dodge: float) -> list[float]:
    look = look_of(one.look)
    sight: list[float] = []
    run: list[Point] = []

    def flush() -> None:
        if run and not plot.ticks:
            _run(plot, axes, run, look)
        run.clear()

    for point in one.points:
        value = _value(point)
        if value is None:
            # A trial that has no number yet: the line has a gap there.
            flush()
            continue
        spread = (point.y.spread or 0.0) if plot.spec.band != "none" else 0.0
        sight += [value - spread, value + spread]
        if point.place is None:
            axes.axhline(value, color=look["color"], linestyle=look["linestyle"], linewidth=1.2, zorder=2)
            if spread:
                axes.axhspan(value - spread, value + spread, color=look["color"], alpha=0.13, linewidth=0)
            continue
        run.append(point)
        if plot.ticks and spread:
            bar(axes, look, point.place + dodge, value, spread)
        face = "none" if point.y.star else look["color"]
        axes.plot(
            point.place + dodge,
            value,
            look["marker"],
            markersize=5,
            markeredgecolor=look["color"],
            markerfacecolor=face,
            zorder=3,
        )
    flush()
    return sight


def _run(plot: Plot, axes: Axes, run: Sequence[Point], look: dict[str, Any]) -> None:
    """Draw neighbouring points of a line with the band around them."""
    x = [point.place or 0.0 for point in run]
    y = [_value(point) or 0.0 for point in run]
    axes.plot(x, y, color=look["color"], linestyle=look["linestyle"], linewidth=1.2, zorder=2)
    if plot.spec.band == "none":
        return
    spreads = [point.y.spread for point in run]
    if len(run) > 1 and band(axes, look, x, y, spreads, zorder=1):
        return
    for place, value, spread in zip(x, y, spreads, strict=True):
        if spread is not None:
            bar(axes, look, place, value, spread)


def _seeds(plot: Plot, axes: Axes, one: Series, dodge: float) -> list[float]:
    """Draw single seeds thin in the background, and return their values; differences have none of their own."""
    if plot.spec.y.minus is not None:
        return []
    look = look_of(one.look)
    lines: dict[tuple[int, str], list[tuple[float, Sample]]] = {}
    for point in one.points:
        for sample in point.y.samples:
            if point.place is not None and math.isfinite(sample.value):
                lines.setdefault((sample.seed, sample.pair), []).append((point.place + dodge, sample))
    for line in lines.values():
        x, y = [place for place, _ in line], [sample.value for _, sample in line]
        style = {"color": look["color"], "alpha": 0.45, "zorder": 1}
        if plot.ticks:
            # Beside the bar, which would hide them.
            axes.plot([place + 0.05 for place in x], y, ".", markersize=5, markeredgewidth=0, **style)
        else:
            axes.plot(x, y, linewidth=0.5, marker=".", markersize=2.5, **style)
    return [sample.value for line in lines.values() for _, sample in line]


def _value(point: Point) -> float | None:
    value = point.y.value
    return value if value is not None and math.isfinite(value) else None


def _room_of_ticks(plot: Plot) -> tuple[float, float]:
    """Return the inches below a panel, and the degrees by which long names of categories are turned."""
    if not plot.ticks:
        return 0.42, 0.0
    count = len(plot.panels)
    broad = 2.8 if plot.spec.width == "column" else {1: 6.1, 2: 2.8, 4: 2.8}.get(count, 1.7)
    widest = text_width(plot.ticks)
    if widest + 0.08 <= broad / len(plot.ticks):
        return 0.42, 0.0
    return min(1.6, 0.4 + 0.6 * widest), 35.0


def _x_axes(plot: Plot, axes: Sequence[Axes], turned: float) -> None:
    """Scale x alike in every panel."""
    if plot.ticks:
        for one in axes:
            one.set_xlim(-0.5, len(plot.ticks) - 0.5)
            one.set_xticks(range(len(plot.ticks)), plot.ticks)
            if turned:
                one.tick_params(axis="x", labelrotation=turned)
                for label in one.get_xticklabels():
                    label.set(horizontalalignment="right", rotation_mode="anchor", fontsize=SMALL)
        return
    points = [point for panel in plot.panels for one in panel.series for point in one.points]
    places = sorted({point.place for point in points if point.place is not None})
    if not places:
        return
    low, high = places[0], places[-1]
    positive = low > 0
    log = positive and high / low >= _LOG_FROM if plot.spec.log is None else "x" in plot.spec.log and positive
    names = {point.place: point.label for point in points}
    for one in axes:
        if log:
            room = (high / low) ** 0.05 if high > low else 1.5
            one.set_xlim(low / room, high * room)
            log_scale(one.xaxis, low, high)
        else:
            room = 0.05 * (high - low) or abs(high) / 2 or 1.0
            one.set_xlim(low - room, high + room)
            linear_scale(one.xaxis, whole=all(place.is_integer() for place in places))
        if _written(one, places, [names[place] for place in places]):
            one.set_xticks(places, [names[place] for place in places])
            one.set_xticks([], minor=True)


def _written(axes: Axes, places: Sequence[float], names: Sequence[str]) -> bool:
    """Return whether the numbers along x are few and far enough apart to be written one by one."""
    if len(places) > _WRITTEN:
        return False
    at = [float(axes.transData.transform((place, 0.5))[0]) / axes.figure.dpi for place in places]
    width = text_width(names) + 0.06
    return all(two - one >= width for one, two in pairwise(at))
