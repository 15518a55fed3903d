"""The frame of a figure: its panels, its titles and its legend, in inches, so that equal data give equal pictures."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import Formatter, LogLocator, MaxNLocator, NullFormatter

from reports.figures.declared import Plot
from reports.figures.drawing import COLOURS, DASHES, INK, MARKERS, SMALL, WIDTHS

# Inches.
_LEFT, _RIGHT, _TOP, _BOTTOM = 0.62, 0.14, 0.05, 0.42
_GAP, _TITLE, _ROW, _KEY, _SPACE = 0.5, 0.09, 0.135, 0.42, 0.16
_HEIGHTS = {1: 3.2, 2: 2.2, 3: 1.75}

# A key of a legend: its text and how its line and marker look.
Keys = Sequence[tuple[str, Mapping[str, Any]]]


def look_of(number: int) -> dict[str, Any]:
    """Return the colour, the dashes and the marker of a line by its number."""
    place = number % len(COLOURS)
    return {"color": COLOURS[place], "linestyle": DASHES[place], "marker": MARKERS[place]}


def band(
    axes: Axes,
    look: Mapping[str, Any],
    x: Sequence[float],
    y: Sequence[float],
    spreads: Sequence[float | None],
    *,
    zorder: float,
) -> bool:
    """Draw the band of `spreads` around a line; returns False, and draws nothing, where a point has no spread."""
    numbers = [spread for spread in spreads if spread is not None]
    if len(numbers) < len(spreads):
        return False
    low = [value - spread for value, spread in zip(y, numbers, strict=True)]
    high = [value + spread for value, spread in zip(y, numbers, strict=True)]
    axes.fill_between(x, low, high, color=look["color"], alpha=0.15, linewidth=0, zorder=zorder)
    return True


def bar(axes: Axes, look: Mapping[str, Any], x: float, y: float, spread: float) -> None:
    """Draw the error bar of a point."""
    axes.errorbar(x, y, spread, color=look["color"], elinewidth=1.0, capsize=2, zorder=2)


def framed(plot: Plot, keys: Keys | None, *, bottom: float = _BOTTOM, height: float | None = None) -> list[Axes]:
    """Return the axes of every panel of a new figure, with titles, headings of the axes, and a legend.

    `keys` is the legend above the panels; with None every panel has one of its own lines below it. `bottom` is the
    room below a panel for the numbers and the heading along x, `height` that of a panel, both in inches.
    """
    width = WIDTHS[plot.spec.width]
    count = len(plot.panels)
    across = 1 if plot.spec.width == "column" or count == 1 else 2 if count in (2, 4) else 3
    down = -(-count // across)
    high = height or (2.1 if plot.spec.width == "column" else _HEIGHTS[across])
    broad = (width - _LEFT - _RIGHT - (across - 1) * _GAP) / across
    drawn = [] if keys is not None else [_drawn(plot, panel) for panel in range(count)]
    own = [[(label, look_of(look)) for label, look in looks.items()] for looks in drawn]
    above = _legend_height(keys or (), width - _LEFT - _RIGHT)
    below = max((_legend_height(each, broad) for each in own), default=0.0)
    titles = [_wrapped(panel.title, broad, weight="bold") if panel.title else [] for panel in plot.panels]
    title = _TITLE + _ROW * max(map(len, titles))
    row = title + high + bottom + below
    total = _TOP + above + down * row
    figure = Figure(figsize=(width, total))
    FigureCanvasAgg(figure)
    if keys:
        _legend(figure, keys, _LEFT, total - _TOP, width - _LEFT - _RIGHT)
    axes = []
    for number in range(count):
        left = _LEFT + number % across * (broad + _GAP)
        top = total - _TOP - above - number // across * row
        one = figure.add_axes(
            (left / width, (top - title - high) / total, broad / width, high / total), label=f"panel{number}"
        )
        if titles[number]:
            text = "\n".join(titles[number])
            one.set_title(text, loc="left", fontweight="bold", fontsize=SMALL, pad=4, linespacing=1.15)
        if own or number + across >= count:
            one.set_xlabel(plot.x_heading)
        if number % across == 0:
            one.set_ylabel(plot.y_heading)
        one.grid(alpha=0.18, linewidth=0.6)
        one.tick_params(labelsize=SMALL)
        if own:
            _legend(figure, own[number], left, top - title - high - bottom, broad)
        axes.append(one)
    return axes


def shared_keys(plot: Plot) -> Keys | None:
    """Return the legend of a figure whose looks mean the same lines in every panel; None where panels differ."""
    labels: dict[int, str] = {}
    for panel in range(len(plot.panels)):
        for label, look in _drawn(plot, panel).items():
            if labels.setdefault(look, label) != label:
                return None
    return [(labels[look], look_of(look)) for look in sorted(labels)]


def _drawn(plot: Plot, panel: int) -> dict[str, int]:
    """Return the looks of a panel's lines that have something to show, by their labels."""
    return {one.label: one.look for one in plot.panels[panel].series if one.label and one.begun(plot.spec.kind)}


def text_width(texts: Iterable[str], weight: str = "normal") -> float:
    """Return the inches that the longest of some texts takes."""
    return max((_width(text, weight) for text in texts), default=0.0)


@lru_cache(maxsize=10_000)
def _width(text: str, weight: str) -> float:
    figure = Figure()
    FigureCanvasAgg(figure)
    extent = figure.text(0, 0, text, fontsize=SMALL, fontweight=weight).get_window_extent()
    # Letters are a little wider at other resolutions than the one measured at.
    return float(1.04 * extent.width / figure.dpi)


def _wrapped(text: str, width: float, weight: str = "normal") -> list[str]:
    """Return a text in lines that are no wider than some inches: broken at commas, then at spaces and plus signs."""
    lines: list[str] = []
    for part in re.split(r"(?<=,) ", text):
        joined = f"{lines[-1]} {part}" if lines else part
        if lines and text_width([joined], weight) <= width:
            lines[-1] = joined
            continue
        long = text_width([part], weight)
        if long <= width:
            lines.append(part)
            continue
        letters = max(6, int(len(part) * width / long))
        # A break may follow a plus sign.
        pieces = textwrap.wrap(part.replace("+", "+\t"), letters, expand_tabs=False, replace_whitespace=False)
        lines += [piece.replace("\t", "") for piece in pieces]
    return lines or [text]


def _arranged(keys: Keys, width: float) -> tuple[int, float, list[list[str]]]:
    """Return a legend's number of columns, their width, and the lines of every text."""
    room = width - _KEY
    lines = [_wrapped(text, room) for text, _ in keys]
    widest = text_width(line for each in lines for line in each)
    step = min(width, _KEY + widest + _SPACE)
    columns = max(1, min(len(keys), int((width + _SPACE) / step)))
    # Columns of nearly equal length: six keys stand in two rows of three, not in one of four and one of two.
    columns = -(-len(keys) // -(-len(keys) // columns))
    return columns, step, lines


def _legend_height(keys: Keys, width: float) -> float:
    if not keys:
        return 0.0
    columns, _, lines = _arranged(keys, width)
    rows = [lines[start : start + columns] for start in range(0, len(lines), columns)]
    return sum(max(map(len, row)) for row in rows) * _ROW + 0.08


def _legend(figure: Figure, keys: Keys, left: float, top: float, width: float) -> None:
    """Draw a legend whose upper left corner stands at some inches; its keys read from left to right."""
    if not keys:
        return
    columns, step, lines = _arranged(keys, width)
    wide, high = figure.get_size_inches()
    for start in range(0, len(keys), columns):
        deep = max(len(lines[index]) for index in range(start, min(start + columns, len(keys))))
        for index in range(start, min(start + columns, len(keys))):
            x = left + (index - start) * step
            middle = (top - _ROW / 2) / high
            look = {"linewidth": 1.2, "markersize": 4} | dict(keys[index][1])
            ends = (x / wide, (x + _KEY - 0.08) / wide)
            # Two ends and a middle: the marker stands on the middle alone.
            figure.add_artist(Line2D((ends[0], sum(ends) / 2, ends[1]), [middle] * 3, markevery=[1], **look))
            text = "\n".join(lines[index])
            figure.text(
                (x + _KEY) / wide, (top - 0.015) / high, text, va="top", fontsize=SMALL, linespacing=1.15, color=INK
            )
        top -= deep * _ROW


class Plain(Formatter):
    """Numbers without exponents, every one along an axis with as many decimals as those in sight need."""

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        assert self.axis is not None
        low, high = sorted(self.axis.get_view_interval())
        shown = [f"{value:.6f}".rstrip("0") for value in values if low <= value <= high]
        decimals = max((len(text.partition(".")[2]) for text in shown), default=0)
        return [self.fix_minus(f"{value:.{decimals}f}") for value in values]


def log_scale(axis: Any, low: float, high: float, most: int = 6) -> None:
    """Make an axis logarithmic between two positive numbers, with at most so many numbers at round places."""
    axis.axes.set_xscale("log") if axis.axis_name == "x" else axis.axes.set_yscale("log")
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    subs: tuple[float, ...] = (1,)
    for denser in ((1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        if sum(low <= sub * 10.0**decade <= high for decade in decades for sub in denser) <= most:
            subs = denser
    axis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(Plain() if len(decades) < 6 else _Short())


class _Short(Formatter):
    """Numbers as short as they go, for axes of many decades."""

    def __call__(self, value: float, pos: int | None = None) -> str:
        return f"{value:g}"


def linear_scale(axis: Any, most: int = 7, *, whole: bool = False) -> None:
    """Give an axis round numbers without exponents."""
    axis.set_major_locator(MaxNLocator(most, integer=whole))
    axis.set_major_formatter(Plain())


def y_limits(plot: Plot, axes: Sequence[Axes], values: Sequence[Sequence[float]], *, below: float = 0.06) -> None:
    """Scale y so that every value of a panel has its place; panels share their range where that shows enough of each.

    `values` are those of every panel, ends of bars and bands included.
    """
    kept = [[value for value in each if math.isfinite(value)] for each in values]
    log = plot.spec.log is not None and "y" in plot.spec.log and all(value > 0 for each in kept for value in each)
    spans = [(min(each), max(each)) for each in kept if each]
    if not spans:
        return
    whole = (min(low for low, _ in spans), max(high for _, high in spans))
    widest = max(high - low for low, high in spans)
    together = widest > 0 and whole[1] - whole[0] <= 2 * widest
    for one, heights in zip(axes, kept, strict=True):
        low, high = whole if together or not heights else (min(heights), max(heights))
        if log:
            room = (high / low) ** below if high > low else 1.2
            one.set_ylim(low / room, high * room)
            log_scale(one.yaxis, low, high)
        else:
            room = (high - low) or abs(high) / 10 or 1.0
            one.set_ylim(low - below * room, high + below * room)
            linear_scale(one.yaxis)
