"""Training curves: the test error after every epoch, a line per trial, named where it ends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from orchestrator.tables.addresses import slug
from reports import titles
from reports.figures.drawing import COLOURS, Drawing, styled
from reports.figures.labels import spread_out
from reports.layouts.cells import VARIES, varying
from reports.results import Cell, GridInfo, Results, Trial

# What fits into a figure: networks, cells of each, seeds of each. A sample of a larger grid would show nothing.
PANELS, CELLS, SEEDS = 6, 12, 3
MOST_TRIALS = 216
# Points of all lines together, as many as a reader could tell apart.
_POINTS = 30_000
_NAME_SIZE = 7.5
# Solid lines in every colour, then dashed ones.
_DASHES = ("-", (0, (4, 1.6)))
# Where the key of a name and the name begin, in widths of the panel.
_KEYS, _NAMES = 0.022, 0.068
# Inches: a panel's height, the room of its error axis, its width.
_PANEL_HEIGHT, _LEFT, _PLOT = 2.9, 0.62, 4.75

Line = Sequence[tuple[int, float]]


def shown_trials(results: Results) -> dict[int, int]:
    """Return the trials whose curves are drawn, running ones included: their ids with their last epochs."""
    return {
        trial.id: trial.last_epoch or 0
        for grid in results.grids
        for cells in _panels(results, grid).values()
        for _, trials in cells
        for trial in trials
    }


def stride(shown: Mapping[int, int]) -> int:
    """Of how many epochs one is drawn."""
    return -(-sum(last + 1 for last in shown.values()) // _POINTS) or 1


def curves(results: Results, rows: Iterable[tuple[int, int, float]]) -> list[Drawing]:
    """Draw a figure per grid that has begun and is not too large; `rows` (trial, 0-based epoch, error) are ordered."""
    lines: dict[int, list[tuple[int, float]]] = {}
    for trial, epoch, error in rows:
        lines.setdefault(trial, []).append((epoch + 1, error))
    drawings = []
    for grid in results.grids:
        panels = {
            network: [
                (cell, mine) for cell, trials in cells if (mine := [lines[t.id] for t in trials if t.id in lines])
            ]
            for network, cells in _panels(results, grid).items()
        }
        panels = {network: cells for network, cells in panels.items() if cells}
        if panels:
            drawn = sum(len(mine) for cells in panels.values() for _, mine in cells)
            left = sum(len(cell.trials) for cell in results.cells if grid.name in cell.grids) - drawn
            omitted = f" {left:,} more have not begun or are not drawn." if left else ""
            cells = [cell for some in panels.values() for cell, _ in some]
            differing = varying(cells)
            fixed = {name: each for name, each in cells[0].config.items() if name not in (*VARIES, *differing)}
            what = "Top-1 error on the test split after each epoch, a line per trial."
            caption = f"{titles.setting(fixed)}. {what}{omitted}"
            named = {
                network: [(_name(cell, differing), mine) for cell, mine in some] for network, some in panels.items()
            }
            drawings.append(
                Drawing(f"curves-{slug(grid.name)}", f"Training curves of {grid.name}", caption, draw(named))
            )
    return drawings


def _panels(results: Results, grid: GridInfo) -> dict[str, list[tuple[Cell, list[Trial]]]]:
    """Return the content of a grid's figure: by network, its first cells with their first begun trials."""
    begun = {}
    for index, cell in enumerate(results.cells):
        if grid.name in cell.grids and (trials := [trial for trial in cell.trials if trial.last_epoch is not None]):
            begun[index] = (cell, trials)
    if sum(len(trials) for _, trials in begun.values()) > MOST_TRIALS:
        return {}
    networks = list(dict.fromkeys(cell.network for cell, _ in begun.values()))[:PANELS]
    return {
        network: [(cell, trials[:SEEDS]) for cell, trials in begun.values() if cell.network == network][:CELLS]
        for network in networks
    }


def _name(cell: Cell, differing: Sequence[str]) -> str:
    others = [titles.field(name, cell.config[name]) for name in differing if cell.config.get(name) is not None]
    return ", ".join([titles.methods(cell.methods), *others])


def draw(panels: Mapping[str, Sequence[tuple[str, Sequence[Line]]]]) -> Figure:
    """Draw a panel per network; each cell (name, lines of 1-based epoch and error) is named where its line ends."""
    with styled():
        room = _longest([name for cells in panels.values() for name, _ in cells])
        width = _LEFT + _PLOT + room
        figure = Figure(figsize=(width, _PANEL_HEIGHT * len(panels)))
        FigureCanvasAgg(figure)
        for index, (network, cells) in enumerate(panels.items()):
            bottom = (len(panels) - 1 - index + 0.16) / len(panels)
            axes = figure.add_axes((_LEFT / width, bottom, _PLOT / width, 0.74 / len(panels)))
            axes.set_title(titles.network(network), loc="left", fontweight="bold", fontsize=9.5)
            axes.set_xlabel("Epoch")
            axes.set_ylabel("Top-1 error (%)")
            axes.grid(alpha=0.18, linewidth=0.6)
            ends = []
            for place, (name, lines) in enumerate(cells):
                colour, dash = COLOURS[place % len(COLOURS)], _DASHES[place // len(COLOURS)]
                for line in lines:
                    mark = "." if len(line) == 1 else ""
                    axes.plot(
                        *zip(*line, strict=True), marker=mark, linestyle=dash, color=colour, linewidth=0.9, alpha=0.85
                    )
                ends.append((max(lines, key=len)[-1], name, {"color": colour, "linestyle": dash}))
            _clip(axes, [line for _, lines in cells for line in lines])
            _name_ends(axes, ends)
    return figure


def _longest(names: Sequence[str]) -> float:
    """Return the inches that the longest of the names takes beside its panel, the thin line to it included."""
    figure = Figure()
    FigureCanvasAgg(figure)
    extents = [figure.text(0, 0, name, fontsize=_NAME_SIZE).get_window_extent() for name in names]
    # Letters are a little wider at other resolutions than the one measured at.
    return 1.05 * max(extent.width for extent in extents) / figure.dpi + _NAMES * _PLOT + 0.15


def _clip(axes: Any, lines: Sequence[Line]) -> None:
    """Leave the first tenth of training out of the error axis: it would flatten all that follows."""
    last = max(line[-1][0] for line in lines)
    late = [error for line in lines for epoch, error in line if epoch > last / 10 or len(line) == 1]
    room = (max(late) - min(late)) or 1.0
    axes.set_ylim(min(late) - 0.05 * room, max(late) + 0.05 * room)
    axes.set_xlim(min(1, last - 0.5), last * 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))


def _name_ends(axes: Any, ends: Sequence[tuple[tuple[int, float], str, Mapping[str, Any]]]) -> None:
    """Names beside the right edge, as near to their lines' ends as their height allows, joined by a thin line.

    Each has a piece of its line before it.
    """
    frame = axes.get_window_extent()
    step = 11.5
    order = sorted(ends, key=lambda end: end[0][1])
    wanted = [float(axes.transData.transform(end)[1]) for end, _, _ in order]
    heights = spread_out(wanted, step, frame.y0, frame.y1)
    last = max(epoch for (epoch, _), _, _ in ends)
    blended = axes.get_yaxis_transform()
    edge = axes.transData.inverted().transform(axes.transAxes.transform((1 + _KEYS, 0)))[0]
    for ((epoch, error), title, look), height in zip(order, heights, strict=True):
        level = axes.transData.inverted().transform((frame.x0, height))[1]
        beside = {"transform": blended, "color": look["color"]}
        axes.text(1 + _NAMES, level, title, va="center", fontsize=_NAME_SIZE, **beside)
        key = (1 + _KEYS, 1 + _NAMES - 0.006)
        axes.plot(key, [level, level], linestyle=look["linestyle"], linewidth=1.3, clip_on=False, **beside)
        style = "-" if epoch == last else ":"
        axes.plot([epoch, edge], [error, level], style, color=look["color"], linewidth=0.6, alpha=0.7, clip_on=False)
