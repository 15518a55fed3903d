"""Figures as data for tests: a plane of points, without a database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from orchestrator.tables.figures import FigureSpec, parse_figure
from reports.columns import EPOCH, TOP1
from reports.figures.declared import Panel, Plot, Point, Series
from reports.table import Entry, Table


class Spot(NamedTuple):
    """A point of a plane: its line, its name, seconds, error and spread; `shared` if not timed alone."""

    line: str
    name: str
    seconds: float
    error: float
    spread: float | None = None
    shared: bool = False


def figure(**written: Any) -> FigureSpec:
    """Return a declared figure; Figure 2's axes where nothing else is said."""
    whole = {"name": "mine", "x": "epoch_time", "y": "top1", "lines": "network", "points": "methods", "front": True}
    spec, problems = parse_figure({**whole, **written})
    assert spec is not None, problems
    return spec


def plane(spots: Sequence[Spot], **written: Any) -> Plot:
    """Return a figure of points in one panel."""
    lines = list(dict.fromkeys(spot.line for spot in spots))
    series = []
    for look, line in enumerate(lines):
        points = tuple(
            Point(
                f"{line}/{spot.name}",
                spot.name,
                None,
                Entry("done", spot.error, spot.spread, 1, 1),
                Entry("done", spot.seconds, None, 1, 1, star=spot.shared),
            )
            for spot in spots
            if spot.line == line
        )
        series.append(Series(line, points, (), look))
    table = Table("mine", "mine", "", "", (), (TOP1, EPOCH), ())
    return Plot(figure(**written), table, "", (Panel("", tuple(series)),))
