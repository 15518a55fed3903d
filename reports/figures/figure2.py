"""Figure 2: top-1 error against time per epoch, every point labelled where it stands."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import Formatter, LogLocator, MaxNLocator, NullFormatter

from orchestrator.tables.addresses import methods_key, plain_methods
from reports import titles
from reports.figures.drawing import COLOURS, INK, Drawing, styled
from reports.figures.labels import nearest, place
from reports.layouts.declared import build_declared
from reports.layouts.shipped import shipped
from reports.results import Results
from reports.table import Table

# The rows of Table 1, a marker for each.
ABLATION = (
    *((), ("byot",), ("dmfl",), ("pskd",), ("pskd", "byot"), ("pskd", "dmfl"), ("dmfl", "byot")),
    ("pskd", "byot", "dmfl"),
)
MARKERS = ("o", "s", "^", "D", "P", "X", "v", "*")


class Point(NamedTuple):
    """A cell of the plane: seconds per epoch, top-1 error (percent) and its spread; `shared` if not timed alone."""

    network: str
    methods: tuple[str, ...]
    seconds: float
    error: float
    spread: float | None
    shared: bool

    @property
    def ends(self) -> tuple[float, float]:
        """Return the errors at the lower and the upper end of its bar; the point itself where it has none."""
        return self.error - (self.spread or 0.0), self.error + (self.spread or 0.0)


def points(table: Table) -> list[Point]:
    """Return the rows of Table 1 that have both a top-1 error and a time per epoch."""
    keys = [column.key for column in table.columns]
    points = []
    for row in table.rows:
        network, _, methods = row.key.partition("/")
        chosen = next(names for names in ABLATION if methods_key(plain_methods(names)) == methods)
        error, seconds = row.entries[keys.index("top1")], row.entries[keys.index("epoch_time")]
        if error.value is not None and seconds.value is not None and math.isfinite(error.value):
            points.append(Point(network, chosen, seconds.value, error.value, error.spread, seconds.star))
    return points


def figure2(results: Results) -> list[Drawing]:
    """Top-1 error against time per epoch, one figure per setting that has points."""
    drawings = []
    asking = [grid.name for grid in results.grids if 2 in (grid.report.get("figures") or ())]
    rows = shipped("table1").model_copy(update={"name": "figure2"})
    for table in build_declared(results, rows, asking):
        drawn = points(table)
        if drawn:
            hollow = " Hollow: the device was shared during some of the epochs timed." if _any_shared(drawn) else ""
            front = " Pareto front: no exclusively timed point is both faster and better." if front_of(drawn) else ""
            caption = f"{titles.setting(table.fixed)}.{hollow}{front} {results.selection.sentence}"
            drawings.append(Drawing(table.name, "Figure 2. Top-1 error against time per epoch", caption, plane(drawn)))
    return drawings


def front_of(found: Sequence[Point]) -> list[Point]:
    """Return the Pareto front by time: exclusively timed points that no faster one equals in error; empty below two."""
    front: list[Point] = []
    for point in sorted(found, key=lambda point: (point.seconds, point.error)):
        if not point.shared and (not front or point.error < front[-1].error):
            front.append(point)
    return front if len(front) > 1 else []


def _any_shared(found: Sequence[Point]) -> bool:
    return any(point.shared for point in found)


def plane(found: Sequence[Point]) -> Figure:
    """Draw the plane of time and error with every point labelled."""
    with styled():
        figure = Figure(figsize=(7.2, 5.0))
        canvas = FigureCanvasAgg(figure)
        signs = ["hollow: device shared"] * _any_shared(found)
        signs += ["bars: ± standard deviation over seeds"] * any(point.spread is not None for point in found)
        # What the signs mean stands above the plane, where no point and no bar can be under it.
        right, top = 0.98, 0.94 if signs else 0.97
        axes = figure.add_axes((0.095, 0.1, right - 0.095, top - 0.1))
        figure.text(right, top + 0.012, "; ".join(signs), ha="right", va="bottom", color=INK, fontsize=7, alpha=0.7)
        networks = list(dict.fromkeys(point.network for point in found))
        colours = {network: COLOURS[place % len(COLOURS)] for place, network in enumerate(networks)}
        for point in found:
            colour = colours[point.network]
            if point.spread is not None:
                axes.errorbar(point.seconds, point.error, point.spread, ecolor=colour, elinewidth=0.8, alpha=0.5)
            axes.plot(
                point.seconds,
                point.error,
                MARKERS[ABLATION.index(point.methods)],
                markersize=9 if point.methods == ABLATION[-1] else 6.5,
                markeredgecolor=colour,
                markerfacecolor="none" if point.shared else colour,
                markeredgewidth=1.2,
            )
        _scale(axes, found)
        front = front_of(found)
        line = ([point.seconds for point in front], [point.error for point in front])
        axes.plot(*line, "--", color=INK, linewidth=0.9, alpha=0.5, zorder=0)
        axes.set_xlabel("Time per epoch (s)")
        axes.set_ylabel("Top-1 error (%)")
        axes.grid(alpha=0.18, linewidth=0.6)
        canvas.draw()
        _label(axes, found, networks, colours, front)
    return figure


def _scale(axes: Any, found: Sequence[Point]) -> None:
    """Room around the points and their bars; a logarithmic time axis where networks differ by a factor."""
    times, ends = [point.seconds for point in found], [end for point in found for end in point.ends]
    if min(times) > 0 and max(times) / min(times) > 3:
        axes.set_xscale("log")
        axes.set_xlim(min(times) / 1.25, max(times) * 1.5)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        room = (max(times) - min(times)) or max(times) or 1.0
        axes.set_xlim(min(times) - 0.25 * room, max(times) + 0.4 * room)
        axes.xaxis.set_major_locator(MaxNLocator(7))
    room = (max(ends) - min(ends)) or 1.0
    axes.set_ylim(min(ends) - 0.18 * room, max(ends) + 0.22 * room)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(_Plain())


class _Plain(Formatter):
    """Numbers without exponents, every one along an axis with as many decimals as those in sight need."""

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        assert self.axis is not None
        low, high = sorted(self.axis.get_view_interval())
        shown = [f"{value:.6f}".rstrip("0") for value in values if low <= value <= high]
        decimals = max((len(text.partition(".")[2]) for text in shown), default=0)
        return [self.fix_minus(f"{value:.{decimals}f}") for value in values]


def _label(
    axes: Any, found: Sequence[Point], networks: Sequence[str], colours: Mapping[str, str], front: Sequence[Point]
) -> None:
    """Every method's name at its point, every network's at its cluster, the front's once."""
    pixels = axes.transData.transform
    frame = axes.get_window_extent()
    at = pixels([(point.seconds, point.error) for point in found])
    texts = [titles.methods(plain_methods(point.methods)) for point in found]
    styles = [{"color": colours[point.network], "fontsize": 7.5} for point in found]
    anchors = list(at)
    for network in networks:
        mine = at[[place for place, point in enumerate(found) if point.network == network]]
        # Above its cluster, and not beside a point as if it were that point's name; a lone one is the figure's heading.
        top = max(point.ends[1] for point in found if point.network == network)
        cluster = np.array((mine[:, 0].mean(), pixels((found[0].seconds, top))[1] + 16))
        anchors.append(cluster if len(networks) > 1 else np.array((frame.x0 + 10, frame.y1 - 2)))
        texts.append(titles.network(network))
        styles.append({"color": colours[network], "fontsize": 10.5, "fontweight": "bold"})
    obstacles = [(x - 6, y - 6, x + 6, y + 6) for x, y in at]
    for point in found:
        if point.spread is not None:
            (x, low), (_, high) = pixels([(point.seconds, end) for end in point.ends])
            obstacles.append((x - 1, low, x + 1, high))
    segments = list(pairwise(pixels([(point.seconds, point.error) for point in front]))) if front else []
    for one, two in segments:
        steps = np.linspace(0, 1, max(2, int(np.hypot(*(two - one)) / 6)))[:, None]
        obstacles += [(x - 1, y - 1, x + 1, y + 1) for x, y in one + (two - one) * steps]
    if segments:
        longest = max(segments, key=lambda ends: np.hypot(*(ends[1] - ends[0])))
        anchors.append((longest[0] + longest[1]) / 2)
        texts.append("Pareto front")
        styles.append({"color": INK, "fontsize": 7, "alpha": 0.7})

    artists = [axes.text(0, 0, text, va="bottom", **style) for text, style in zip(texts, styles, strict=True)]
    sizes = [artist.get_window_extent() for artist in artists]
    bounds = (frame.x0 + 4, frame.y0 + 4, frame.x1 - 2, frame.y1 - 2)
    boxes = place(anchors, [(size.width, size.height) for size in sizes], obstacles, bounds)
    back = axes.transData.inverted().transform
    for index, (artist, box) in enumerate(zip(artists, boxes, strict=True)):
        artist.set_position(back(box[:2]))
        end = nearest(anchors[index], box)
        if index < len(found) and np.hypot(*(end - anchors[index])) > 14:
            line = back([anchors[index], end])
            axes.plot(*line.T, color=colours[found[index].network], linewidth=0.6, alpha=0.7, zorder=1)
