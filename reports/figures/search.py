"""The best draw so far of every row of a search: whether more draws would have helped one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from orchestrator.tables.addresses import slug
from reports.columns import Column, column_of
from reports.figures.drawing import COLOURS, Drawing, styled
from reports.figures.labels import spread_out
from reports.tuning import Search, budget

# Rows of one panel, as many as a reader could tell apart; a search of more rows gets several panels.
ROWS = 12
# Inches: a panel's height and width, the room of its axis of scores, and of a letter of a row's name.
_HEIGHT, _PLOT, _LEFT, _LETTER = 2.9, 4.4, 0.62, 0.068
_NAME_SIZE = 7.5
# Pixels between two names.
_STEP = 11.5
_DASHES = ("-", (0, (4, 1.6)))

Line = tuple[str, list[tuple[int, float]]]


def best_so_far(search: Search) -> Drawing | None:
    """Return the figure of a search: per row the best score among its first draws; None before any draw is done."""
    metric = column_of(search.tune["metric"])
    lower = metric.direction != "higher"
    lines = [(name, curve) for name in search.tune["rows"] if (curve := search.best_so_far(name, lower))]
    if not lines:
        return None
    title = metric.title[:1].lower() + metric.title[1:] if metric.title[1:2].islower() else metric.title
    caption = (
        f"The best {title} on the validation images among the draws so far, a line per row. A line that still "
        f"{'falls' if lower else 'rises'} at its end says that more draws would help that row. {budget(search.tune)[0]}"
    )
    name = f"search-{slug(search.grid)}"
    return Drawing(f"{name}-draws", f"Best so far in the search of {search.grid}", caption, draw(lines, metric))


def draw(lines: Sequence[Line], metric: Column) -> Figure:
    """Draw the lines (row, best score by number of the draw) as stairs, each named at its end."""
    panels = [lines[start : start + ROWS] for start in range(0, len(lines), ROWS)]
    most = max(number for _, curve in lines for number, _ in curve)
    with styled():
        width = _LEFT + _PLOT + 0.3 + _LETTER * max(len(name) for name, _ in lines)
        figure = Figure(figsize=(width, _HEIGHT * len(panels)))
        FigureCanvasAgg(figure)
        for place, panel in enumerate(panels):
            bottom = (len(panels) - 1 - place + 0.16) / len(panels)
            axes = figure.add_axes((_LEFT / width, bottom, _PLOT / width, 0.78 / len(panels)))
            axes.set_xlabel("Draw")
            axes.set_ylabel(f"{metric.title} ({metric.unit})" if metric.unit else metric.title)
            axes.grid(alpha=0.18, linewidth=0.6)
            axes.set_xlim(-0.02 * most, 1.02 * max(most, 1))
            axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
            looks = []
            for number, (name, curve) in enumerate(panel):
                look: dict[str, Any] = {
                    "color": COLOURS[number % len(COLOURS)],
                    "linestyle": _DASHES[number // len(COLOURS)],
                }
                numbers, scores = zip(*curve, strict=True)
                axes.step(numbers, scores, where="post", linewidth=1.1, marker=".", markersize=3, **look)
                looks.append((curve[-1], name, look))
            axes.margins(y=0.08)
            axes.autoscale_view(scalex=False)
            looks.sort(key=lambda end: end[0][1])
            to_pixels, from_pixels = axes.transData.transform, axes.transData.inverted().transform
            frame = axes.get_window_extent()
            heights = spread_out([float(to_pixels(end)[1]) for end, *_ in looks], _STEP, frame.y0, frame.y1)
            for ((last, score), name, look), height in zip(looks, heights, strict=True):
                level = float(from_pixels((frame.x1, height))[1])
                axes.text(1.07 * max(most, 1), level, name, va="center", fontsize=_NAME_SIZE, color=look["color"])
                ends = ([last, 1.06 * max(most, 1)], [score, level])
                axes.plot(*ends, color=look["color"], linewidth=0.5, alpha=0.7, clip_on=False)
    return figure
