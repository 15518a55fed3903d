"""Put the numbers of a declared figure where its panels and lines have them. Nothing is drawn here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.tables.addresses import slug
from orchestrator.tables.fields import comparable
from orchestrator.tables.figures import MOST_LINES, Facet, FigureSpec, facets, figure_problems, parse_figure
from reports.catalogue import default_of
from reports.columns import Column, own_columns
from reports.declarations import Asked, collected, read_shipped
from reports.errors import ReportError
from reports.layouts.declared import Placed, build_placed, cells_of
from reports.layouts.wording import head_of, text_of
from reports.results import Cell, GridInfo, Results, Trial
from reports.table import Entry, Table

_FOLDER = Path(__file__).parent
# Fields whose values say by themselves what they are.
_PLAIN = ("network", "methods", "dataset", "heads")
# Places named one by one in a caption; more are counted.
_NAMED = 6


@dataclass(frozen=True)
class Point:
    """A row of a figure's table: its number, its number along x (of another quantity), and its label.

    `place` is a value of a field, or the place of a category; None where the trials lack the field.
    """

    key: str
    label: str
    place: float | None
    y: Entry
    x: Entry | None = None


@dataclass(frozen=True)
class Series:
    """A line with its points, the trials behind it, and the number of its look: colour, marker and dashes."""

    label: str
    points: tuple[Point, ...]
    trials: tuple[Trial, ...]
    look: int

    def begun(self, kind: str) -> bool:
        """Return whether there is anything to draw, in a figure of this kind."""
        if kind == "clock":
            return any(trial.last_epoch is not None for trial in self.trials)
        return any(
            all(entry.value is not None and math.isfinite(entry.value) for entry in (point.y, point.x) if entry)
            for point in self.points
        )


@dataclass(frozen=True)
class Panel:
    """Lines that share their axes."""

    title: str
    series: tuple[Series, ...]


@dataclass(frozen=True)
class Plot:
    """A figure as data: its panels, and the table that holds its numbers; `ticks` are the names of categories.

    `setting` is what all its trials share, in words; `omitted` are sentences on what is not there.
    """

    spec: FigureSpec
    table: Table
    setting: str
    panels: tuple[Panel, ...]
    ticks: tuple[str, ...] = ()
    omitted: tuple[str, ...] = ()

    @property
    def y(self) -> Column:
        """Return what stands along y."""
        return self.table.columns[0]

    @property
    def x_heading(self) -> str:
        """Return the heading of x."""
        if self.spec.kind == "clock":
            own = self.spec.names.get(self.spec.x)
            return own or {"epoch": "Epoch", "seconds": "Training time (s)"}[self.spec.x]
        if self.spec.kind == "measured":
            return _heading(self.table.columns[1])
        return head_of(self.spec.x, self.spec.names)

    @property
    def y_heading(self) -> str:
        """Return the heading of y."""
        return _heading(self.y)


def _heading(column: Column) -> str:
    """Return a column's heading for an axis, whose numbers are plain: seconds, where a table writes minutes."""
    return replace(column, unit="s").heading if column.form == "minutes" else column.heading


def shipped_yaml(name: str) -> Mapping[str, Any]:
    """Return the declaration of a figure that ships, in JSON's types."""
    return read_shipped(_FOLDER / f"{name}.yaml")


def declared(written: Mapping[str, Any]) -> FigureSpec:
    """Return a declared figure as a database or a program has it; raises ReportError with all its problems."""
    figure, problems = parse_figure(written, metrics=own_columns())
    if figure is None:
        name = written.get("name", "without a name")
        raise ReportError("\n".join(f"figure {name}: {'.'.join(path)}: {what}" for path, what in problems))
    return figure


def asked_figures(grids: Iterable[GridInfo], more: Sequence[Mapping[str, Any]] = ()) -> dict[str, Asked[FigureSpec]]:
    """Return the figures that grids ask for, by name: Figure 2, those that grids declare, and `more` for all grids.

    Raises ReportError for grids that declare different figures of one name.
    """
    return collected("figure", grids, _declarations, declared, more)


def _declarations(grid: GridInfo) -> list[Mapping[str, Any]]:
    """Return the figures that a grid asks for, as its file has them, or as ours has those that ship."""
    figures = grid.report.get("figures") or ()
    return [item if isinstance(item, Mapping) else shipped_yaml(f"figure{item}") for item in figures]


def plots(results: Results, figure: FigureSpec, asking: Iterable[str] = ()) -> list[Plot]:
    """Return a declared figure as data, from the cells of the grids that ask for it; one per setting where it says so.

    Raises ReportError where the cells leave the declaration open.
    """
    asking = tuple(asking)
    configs = [cell.config for cell in cells_of(results, figure.table, asking)]
    if figure.grids == "own" and (problems := figure_problems(figure, configs)):
        raise ReportError("\n".join(f"figure {figure.name}: {'.'.join(path)}: {what}" for path, what in problems))
    figure = figure.settled(configs)
    return [_plot(figure, placed) for placed in build_placed(results, figure.table, asking)]


def curves_of(results: Results, grid: GridInfo) -> list[Plot]:
    """Return the training curves that every report has of a grid; none where they would not fit on a page."""
    figure, cells = _curves(results, grid)
    if not cells or figure_problems(figure, [cell.config for cell in cells]):
        return []
    return plots(results, figure, [grid.name])


def missing_curves(results: Results, grid: GridInfo) -> str:
    """Return a sentence on why a report has no training curves of a grid that has begun; empty where it has them."""
    figure, cells = _curves(results, grid)
    if not any(trial.last_epoch is not None for cell in cells for trial in cell.trials):
        return ""
    problems = figure_problems(figure, [cell.config for cell in cells])
    return f"No training curves of {grid.name}: their figure {problems[0][1]}." if problems else ""


def _curves(results: Results, grid: GridInfo) -> tuple[FigureSpec, tuple[Cell, ...]]:
    """Return the declaration of a grid's training curves, and the cells in them."""
    name = {"name": f"curves-{slug(grid.name)[:100]}", "title": f"Training curves of {grid.name}"}
    figure = declared({**shipped_yaml("curves"), **name})
    return figure, cells_of(results, figure.table, [grid.name])


def _plot(figure: FigureSpec, placed: Placed) -> Plot:
    """Return the data of one figure."""
    dealt = facets(figure, [line.group for line in placed.lines])
    numeric, values = _axis(figure, placed)
    labels = {comparable(line): _line_label(figure, facet, line, dealt) for facet in dealt for line in facet.lines}
    distinct = list(dict.fromkeys(labels.values()))
    panels = []
    for facet in dealt:
        series = []
        for number, line in enumerate(facet.lines):
            rows = [
                index
                for index, row in enumerate(placed.lines)
                if comparable(row.group) == comparable(facet.panel + line)
            ]
            points = [_point(figure, placed, index, numeric, values) for index in rows]
            points.sort(key=lambda point: math.inf if point.place is None else point.place)
            cells = [placed.cells[cell] for index in rows for cell in placed.lines[index].spots[0].cells]
            trials = tuple(trial for cell in cells for trial in cell.trials)
            label = labels[comparable(line)]
            look = distinct.index(label) if len(distinct) <= MOST_LINES else number
            series.append(Series(label, tuple(points), trials, look))
        panels.append(Panel(_panel_title(figure, facet), tuple(series)))
    ticks = () if numeric else tuple(text_of(figure.x, value, figure.names) for value in values)
    plot = Plot(figure, placed.table, placed.about, tuple(panels), ticks)
    return replace(plot, omitted=tuple(_omitted(plot)))


def _axis(figure: FigureSpec, placed: Placed) -> tuple[bool, list[Any]]:
    """Return whether the values along x are numbers, and the values that are categories, in their order."""
    if figure.kind != "field":
        return True, []
    values = {
        comparable(value): value for index in range(len(placed.lines)) for value in [_value(figure, placed, index)]
    }
    given = [value for value in values.values() if value is not None or "." not in figure.x]
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in given)
    return numeric, given


def _value(figure: FigureSpec, placed: Placed, index: int) -> Any:
    """Return the value of a line's field along x: a part's default where its configuration leaves the field out.

    That is the default with which its trials were trained, which the part may have replaced since.
    """
    line = placed.lines[index]
    base, *parts = figure.x.split(".")
    if line.values[0] is not None or len(parts) != 2 or not line.spots[0].cells:
        return line.values[0]
    cell, kind = placed.cells[line.spots[0].cells[0]], base.removesuffix("s")
    holder = cell.config.get(base)
    if not isinstance(holder, Mapping) or parts[0] not in holder:
        return None
    trained = [trial.defaults for trial in cell.trials if (kind, *parts) in trial.defaults]
    return trained[0][kind, parts[0], parts[1]] if trained else default_of(kind, *parts)


def _point(figure: FigureSpec, placed: Placed, index: int, numeric: bool, values: Sequence[Any]) -> Point:
    row = placed.table.rows[index]
    if figure.kind != "field":
        x = row.entries[1] if figure.kind == "measured" else None
        return Point(row.key, ", ".join(row.labels), None, row.entries[0], x)
    value = _value(figure, placed, index)
    label = text_of(figure.x, value, figure.names)
    place: float | None = None
    if numeric:
        place = None if value is None else float(value)
    elif value is not None or "." not in figure.x:
        place = float([comparable(each) for each in values].index(comparable(value)))
    return Point(row.key, label, place, row.entries[0])


def _line_label(figure: FigureSpec, facet: Facet, line: Sequence[Any], dealt: Sequence[Facet]) -> str:
    """Return what a line is called: the values that differ between lines and stand in no title."""
    titled = {name for name, _ in facet.title}
    every = [each for one in dealt for each in one.lines]
    parts = []
    for place, name in enumerate(figure.lines):
        if name in titled or (
            len(figure.lines) > 1 and name != "methods" and len({comparable(each[place]) for each in every}) == 1
        ):
            continue
        parts.append(_labelled(figure, name, line[place], alone=len(figure.lines) - len(titled) == 1))
    return ", ".join(filter(None, parts))


def _labelled(figure: FigureSpec, name: str, value: Any, *, alone: bool = False) -> str:
    """Return a field's value, with the field's name where the value does not say it."""
    text = text_of(name, value, figure.names)
    if name in _PLAIN or (alone and isinstance(value, str)):
        return text
    head = head_of(name, figure.names)
    return f"{head if name in figure.names else head[:1].lower() + head[1:]} {text}"


def _panel_title(figure: FigureSpec, facet: Facet) -> str:
    parts = [_labelled(figure, name, value) for name, value in zip(figure.panels, facet.panel, strict=True)]
    parts += [_labelled(figure, name, value) for name, value in facet.title]
    of = f" ({facet.part[0]} of {facet.part[1]})" if facet.part else ""
    title = ", ".join(parts)
    return (title[:1].upper() + title[1:] + of).strip()


def _omitted(plot: Plot) -> list[str]:
    """Return sentences on the numbers that a figure lacks: no trial, no number yet, fewer seeds, an infinite one."""
    if plot.spec.kind == "clock":
        return []
    without: list[str] = []
    fewer: list[str] = []
    infinite: list[str] = []
    no_trial: list[str] = []
    for panel in plot.panels:
        places = {point.place: point.label for one in panel.series for point in one.points}
        for one in panel.series:
            where = ", ".join(filter(None, [panel.title if len(plot.panels) > 1 else "", one.label]))
            for point in one.points:
                name = f"{where}{' at ' if plot.spec.kind == 'field' else ', '}{point.label}".removeprefix(", ")
                for entry in filter(None, [point.y, point.x]):
                    if entry.state == "text":
                        continue
                    if entry.value is None:
                        without.append(f"{name} ({'no trial' if not entry.planned else entry.state})")
                    elif not math.isfinite(entry.value):
                        infinite.append(name)
                    elif entry.n < entry.planned and entry is point.y:
                        fewer.append(f"{name} ({entry.n} of {entry.planned})")
            if plot.spec.kind == "field" and all(point.place is not None for point in one.points):
                here = {point.place for point in one.points}
                no_trial += [
                    f"{where} at {label}".removeprefix(" at ")
                    for place, label in sorted(places.items(), key=lambda item: item[0] or 0.0)
                    if place is not None and place not in here
                ]
    sentences = [("Without a number", without), ("Infinite, not drawn", infinite)]
    sentences += [("No trial", no_trial), ("Fewer seeds", fewer)]
    return [f"{what}: {listing(names)}." for what, names in sentences if names]


def listing(names: Sequence[str]) -> str:
    """Return names in one line, the first of many with how many more there are."""
    names = list(dict.fromkeys(names))
    more = f"; and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return "; ".join(names[:_NAMED]) + more
