"""Draw a metric against another measured quantity, the error against time say: every point named where it stands."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.figures.declared import Plot, Series
from reports.figures.drawing import COLOURS, INK, MARKERS, SMALL
from reports.figures.frame import Keys, framed, linear_scale, log_scale, shared_keys, y_limits
from reports.figures.labels import nearest, place

# Points that have room for their names in one panel.
_NAMED = 40


class Mark(NamedTuple):
    """A point of the plane: its line and name, the number of its marker, and its numbers; `shared` if a time has `*`.

    `spread` is half the length of its bar, along y.
    """

    line: str
    name: str
    look: int
    marker: int
    x: float
    y: float
    spread: float | None
    shared: bool

    @property
    def ends(self) -> tuple[float, float]:
        """Return the lower and the upper end of its bar; the point itself where it has none."""
        return self.y - (self.spread or 0.0), self.y + (self.spread or 0.0)


def marks(plot: Plot) -> list[list[Mark]]:
    """Return the points of every panel that have both numbers."""
    names = _names(plot)
    panels = []
    for panel in plot.panels:
        inside = []
        for one in panel.series:
            for point in one.points:
                x, y = point.x.value if point.x else None, point.y.value
                if x is None or y is None or not math.isfinite(x) or not math.isfinite(y):
                    continue
                spread = point.y.spread if plot.spec.band != "none" else None
                shared = point.y.star or bool(point.x and point.x.star)
                inside.append(Mark(one.label, point.label, one.look, names.index(point.label), x, y, spread, shared))
        panels.append(inside)
    return panels


def _names(plot: Plot) -> list[str]:
    points = [point for panel in plot.panels for one in panel.series for point in one.points]
    return list(dict.fromkeys(point.label for point in points))


def front_of(points: Sequence[Mark], x: str | None = "lower", y: str | None = "lower") -> list[Mark]:
    """Return the Pareto front by x: points of exclusive times that none beats in both; empty below two.

    `x` and `y` say which way is better, lower or higher.
    """
    across, up = -1 if x == "higher" else 1, -1 if y == "higher" else 1
    front: list[Mark] = []
    for mark in sorted(points, key=lambda mark: (across * mark.x, up * mark.y)):
        if not mark.shared and (not front or up * mark.y < up * front[-1].y):
            front.append(mark)
    return front if len(front) > 1 else []


def sentences(plot: Plot) -> list[str]:
    """Return what a caption says of hollow points and of the front."""
    every = marks(plot)
    lines = []
    if any(mark.shared for panel in every for mark in panel):
        lines.append("Hollow: the device was shared during some of the epochs timed.")
    if plot.spec.front and any(front_of(panel, *_better(plot)) for panel in every):
        lines.append("Pareto front: no exclusively timed point is both faster and better.")
    return lines


def _better(plot: Plot) -> tuple[str | None, str | None]:
    y, x = plot.table.columns
    return x.direction, y.direction


def draw(plot: Plot) -> Figure:
    """Draw a figure whose x is a measured quantity."""
    every = marks(plot)
    # Where names have no room at their points, a legend has them: colours are lines, markers are points.
    narrow = plot.spec.width == "column" or len(every) > 1 or max(map(len, every)) > _NAMED
    named = not narrow or len(_names(plot)) > len(MARKERS)
    keys: list[tuple[str, Mapping[str, Any]]] = []
    if not named:
        lines = shared_keys(plot) or []
        keys = [
            (label, {"color": look["color"], "linestyle": "-", "marker": "", "linewidth": 4}) for label, look in lines
        ]
        keys += [(name, _marker(number)) for number, name in enumerate(_names(plot)) if name]
    keys += _signs(plot, every)
    axes = framed(plot, keys, height=4.3 if named and len(every) == 1 else None)
    values = [[end for mark in panel for end in mark.ends] for panel in every]
    y_limits(plot, axes, values, below=0.2 if named else 0.08)
    _x_axes(plot, axes, [mark.x for panel in every for mark in panel], named)
    for one, panel, points in zip(axes, plot.panels, every, strict=True):
        front = front_of(points, *_better(plot)) if plot.spec.front else []
        _points(one, panel.series, points, front)
        if named and points:
            one.figure.canvas.draw()
            _label(one, points, front)
    figure: Figure = axes[0].figure  # type: ignore[assignment]
    return figure


def _marker(number: int) -> dict[str, Any]:
    return {"color": INK, "linestyle": "", "marker": MARKERS[number % len(MARKERS)]}


def _signs(plot: Plot, every: Sequence[Sequence[Mark]]) -> Keys:
    """Return the keys of what marks mean beside their line and name."""
    several = [mark for panel in every for mark in panel]
    signs: list[tuple[str, Mapping[str, Any]]] = []
    if any(mark.shared for mark in several):
        look = {"color": INK, "linestyle": "", "marker": "o", "markerfacecolor": "none"}
        signs.append(("device shared", look))
    if any(mark.spread is not None for mark in several):
        what = "95 % interval" if plot.spec.band == "ci95" else "s.d."
        # A bar stands upright, as it does at its point.
        signs.append((f"± {what} over seeds", {"color": INK, "linestyle": "", "marker": "|", "markersize": 7}))
    if plot.spec.front and any(front_of(panel, *_better(plot)) for panel in every):
        signs.append(("Pareto front", {"color": INK, "linestyle": "--", "marker": "", "alpha": 0.6}))
    return signs


def _points(axes: Axes, series: Sequence[Series], points: Sequence[Mark], front: Sequence[Mark]) -> None:
    for mark in points:
        colour = COLOURS[mark.look % len(COLOURS)]
        if mark.spread is not None:
            axes.errorbar(mark.x, mark.y, mark.spread, ecolor=colour, elinewidth=0.9, alpha=0.55)
        axes.plot(
            mark.x,
            mark.y,
            MARKERS[mark.marker % len(MARKERS)],
            markersize=6.5,
            markeredgecolor=colour,
            markerfacecolor="none" if mark.shared else colour,
            markeredgewidth=1.2,
        )
    line = ([mark.x for mark in front], [mark.y for mark in front])
    axes.plot(*line, "--", color=INK, linewidth=0.9, alpha=0.5, zorder=0)


def _x_axes(plot: Plot, axes: Sequence[Axes], values: Sequence[float], named: bool) -> None:
    """Scale x alike in every panel, with room for names; logarithmic where values differ by a factor."""
    if not values:
        return
    low, high = min(values), max(values)
    positive = low > 0
    log = positive and high / low > 3 if plot.spec.log is None else "x" in plot.spec.log and positive
    for one in axes:
        if log:
            left, right = (1.25, 1.5) if named else (1.12, 1.12)
            one.set_xlim(low / left, high * right)
            log_scale(one.xaxis, low / left, high * right, 12 if named else 6)
        else:
            room = (high - low) or abs(high) or 1.0
            left, right = (0.25, 0.4) if named else (0.08, 0.08)
            one.set_xlim(low - left * room, high + right * room)
            linear_scale(one.xaxis)


def _label(axes: Axes, points: Sequence[Mark], front: Sequence[Mark]) -> None:
    """Write the name of every point beside the point, and that of every line at the cluster of its points."""
    lines = list(dict.fromkeys(mark.line for mark in points))
    colours = {mark.line: COLOURS[mark.look % len(COLOURS)] for mark in points}
    pixels = axes.transData.transform
    frame = axes.get_window_extent()
    at = pixels([(mark.x, mark.y) for mark in points])
    texts = [mark.name for mark in points]
    styles: list[dict[str, Any]] = [{"color": colours[mark.line], "fontsize": SMALL} for mark in points]
    anchors = list(at)
    for line in filter(None, lines):
        inside = at[[index for index, mark in enumerate(points) if mark.line == line]]
        # Above its cluster, and not beside a point as if it were that point's name; a lone one is the figure's heading.
        top = max(mark.ends[1] for mark in points if mark.line == line)
        cluster = np.array((inside[:, 0].mean(), pixels((points[0].x, top))[1] + 16))
        anchors.append(cluster if len(lines) > 1 else np.array((frame.x0 + 10, frame.y1 - 2)))
        texts.append(line)
        styles.append({"color": colours[line], "fontsize": 10, "fontweight": "bold"})
    obstacles = [(x - 6, y - 6, x + 6, y + 6) for x, y in at]
    for mark in points:
        if mark.spread is not None:
            (x, low), (_, high) = pixels([(mark.x, end) for end in mark.ends])
            obstacles.append((x - 1, low, x + 1, high))
    segments = list(pairwise(pixels([(mark.x, mark.y) for mark in front]))) if front else []
    for one, two in segments:
        steps = np.linspace(0, 1, max(2, int(np.hypot(*(two - one)) / 6)))[:, None]
        obstacles += [(x - 1, y - 1, x + 1, y + 1) for x, y in one + (two - one) * steps]

    artists = [axes.text(0, 0, text, va="bottom", **style) for text, style in zip(texts, styles, strict=True)]
    sizes = [artist.get_window_extent() for artist in artists]
    bounds = (frame.x0 + 4, frame.y0 + 4, frame.x1 - 2, frame.y1 - 2)
    boxes = place(anchors, [(size.width, size.height) for size in sizes], obstacles, bounds)
    back = axes.transData.inverted().transform
    for index, (artist, box) in enumerate(zip(artists, boxes, strict=True)):
        x, y = back(box[:2])
        artist.set_position((float(x), float(y)))
        end = nearest(anchors[index], box)
        if index < len(points) and np.hypot(*(end - anchors[index])) > 14:
            leader = back([anchors[index], end])
            axes.plot(*leader.T, color=colours[points[index].line], linewidth=0.6, alpha=0.7, zorder=1)
