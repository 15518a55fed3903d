"""Define what a declared figure may say; a grid file, a file of its own and the shipped figures all say it this way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from orchestrator.tables.fields import Config, comparable
from orchestrator.tables.parsing import checked, parse_columns, parse_rows, unknown_fields
from orchestrator.tables.placement import DERIVED, open_fields, place, table_problems
from orchestrator.tables.schema import (
    COLUMNS,
    SPECIAL,
    BoldSpec,
    ColumnSpec,
    Declaration,
    Fields,
    GroupSpec,
    RowSpec,
    TableSpec,
    as_list,
)
from trainer.problems import Problems, problem, shown, unknown

# The axes of curves, which have a point per epoch.
CLOCKS = ("epoch", "seconds")
TIMES = ("train_time", "epoch_time")
# The word for all fields that vary and have no other place.
VARYING = "varying"
# Lines of a panel that a reader tells apart: as many as there are colours that differ to colour-blind eyes as well, and
# markers of plain shapes for print without colour.
MOST_LINES = 8
# Panels that are still legible on one page.
MOST_PANELS = 12

Kind = Literal["field", "measured", "clock"]


class FigureSpec(Declaration):
    """A declared figure, in its full form: every short form that a file may use has become this one."""

    x: str
    y: ColumnSpec
    lines: Fields = ()
    panels: Fields = ()
    points: Fields | tuple[RowSpec, ...] = ()
    band: Literal["std", "ci95", "none"] = "std"
    seeds: bool = False
    log: tuple[Literal["x", "y"], ...] | None = None
    front: bool = False
    split: Literal["test", "validation"] = "test"
    width: Literal["column", "text"] = "text"
    selection: str | None = None

    _lists_too = field_validator("lines", "panels", mode="before")(as_list)

    @field_validator("log", mode="before")
    @classmethod
    def _axes(cls, log: Any) -> Any:
        return {True: ["x"], False: []}[log] if isinstance(log, bool) else as_list(log) if log is not None else None

    @model_validator(mode="after")
    def _consistent(self) -> FigureSpec:
        placed = [*self.panels, *self.lines, *(self.point_fields or [self.x])]
        twice = next((name for index, name in enumerate(placed) if name in placed[:index]), None)
        if twice:
            raise problem(f"{twice} has two places; leave one out", "panels" if twice in self.panels else "lines")
        if self.kind == "measured" and not self.points:
            raise problem(f"is missing: what is a point, where x is {self.x}? a field, or a list of them", "points")
        if self.kind != "measured" and self.points:
            raise problem(f"belongs to a measured x such as epoch_time, and x is {self.x}; leave it out", "points")
        if self.kind != "measured" and self.front:
            raise problem(f"belongs to a measured x such as epoch_time, and x is {self.x}; leave it out", "front")
        if self.kind != "clock" and self.split != "test":
            raise problem(f"belongs to curves (x: epoch or seconds), and x is {self.x}; leave it out", "split")
        if self.kind == "clock" and self.selection:
            raise problem("selects an epoch, and curves show all of them; leave it out", "selection")
        computed = [name for name in ("minus", "p", "mean") if getattr(self.y, name) not in (None, False)]
        refused = [name for name in computed if name != "minus" or self.kind == "clock"]
        if refused:
            raise problem("is for columns of a table; a figure shows a metric", "y", self.y.metric, refused[0])
        if self.kind == "clock" and self.y.metric in TIMES:
            raise problem(f"{self.y.metric} is one number per trial; over epochs there are metrics such as top1", "y")
        return self

    @property
    def kind(self) -> Kind:
        """Return what stands along x: the values of a field, another measured quantity, or epochs."""
        return "clock" if self.x in CLOCKS else "measured" if self.measured_x else "field"

    @property
    def measured_x(self) -> ColumnSpec | None:
        """Return the quantity along x, as a column; None for a field or epochs."""
        if self.x not in (*COLUMNS, *self.own):
            return None
        return ColumnSpec(metric=self.x, key="x" if self.x == self.y.name else None)

    # The users' own metrics, which x may be as well.
    own: tuple[str, ...] = Field(default=(), exclude=True)

    @property
    def point_fields(self) -> list[str]:
        """Return the fields that `points` names, in explicit points as well."""
        explicit = [each for each in self.points if isinstance(each, RowSpec)]
        named = [name for row in explicit for choice in row.choices for name in choice]
        return list(dict.fromkeys([*(each for each in self.points if isinstance(each, str)), *named]))

    @property
    def table(self) -> TableSpec:
        """Return the table of the figure's numbers: a row per point, grouped by panel and line."""
        groups = (*self.panels, *self.lines)
        shared = {name: getattr(self, name) for name in Declaration.model_fields}
        measured = self.measured_x
        return TableSpec(
            **shared,
            groups=GroupSpec(fields=groups) if groups else None,
            rows=self.points or ((self.x,) if self.kind == "field" else ()),
            columns=(self.y, *([measured] if measured else [])),
            show="mean_ci95" if self.band == "ci95" else "mean_std",
            bold=BoldSpec(rule="none"),
            notes="full",
        )

    def settled(self, configs: Sequence[Config]) -> FigureSpec:
        """Return the figure with the fields that `varying` stands for, methods first."""
        if VARYING not in self.lines:
            return self
        given = tuple(name for name in self.lines if name != VARYING)
        rest = open_fields(self.model_copy(update={"lines": given}).table, configs)
        rest.sort(key=lambda name: name != "methods")
        # What follows from the others by itself, as heads do from methods, needs no place.
        derived = [name for name in rest if name in DERIVED]
        free = [name for name in rest if name not in DERIVED]
        still = open_fields(self.model_copy(update={"lines": (*given, *free)}).table, configs) if derived else []
        return self.model_copy(update={"lines": (*given, *free, *still)})


_KEYS = [name for name in FigureSpec.model_fields if name != "own"]


def parse_figure(
    written: Mapping[str, Any], fields: Iterable[str] | None = None, metrics: Iterable[str] = ()
) -> tuple[FigureSpec | None, Problems]:
    """Return a figure from its YAML, with every problem: the path of the key and a sentence.

    `fields` are those of a configuration (None for a figure that was checked before), `metrics` the names of users' own
    metrics. The figure is None if there is any problem.
    """
    wrong: Problems = []
    whole = dict(written)
    metrics = tuple(metrics)
    if "own" in whole:
        wrong.append((("own",), unknown("key", "own", _KEYS)))
    whole["own"] = metrics
    whole["y"] = _metric(whole.get("y"), [*COLUMNS, *metrics], wrong)
    measured = [*CLOCKS, *COLUMNS, *metrics]
    if whole.get("x") is None:
        wrong.append((("x",), "is missing; give a field, a metric, epoch or seconds"))
        whole["x"] = CLOCKS[0]
    elif not isinstance(whole["x"], str):
        wrong.append((("x",), f"{shown(whole['x'])} is not a field, a metric, epoch or seconds"))
        whole["x"] = CLOCKS[0]
    elif fields is not None and whole["x"].partition(".")[0] not in (*fields, *measured):
        wrong.append((("x",), unknown("field or metric", whole["x"], [*fields, *measured])))
    if whole.get("points") is not None:
        whole["points"] = _points(whole["points"], wrong)
    if fields is not None:
        places = {key: as_list(whole.get(key)) for key in ("lines", "panels", "over")} | {"points": whole.get("points")}
        named = {**whole, **places, "x": None if whole["x"] in measured else whole["x"]}
        wrong += [
            (path, what)
            for path, what in unknown_fields(named, (*places, "x"), [*fields, VARYING])
            if not any(path[:1] == before[:1] == ("x",) for before, _ in wrong)
        ]
    return checked(FigureSpec, whole, _KEYS, wrong)


def _metric(written: Any, metrics: list[str], wrong: Problems) -> ColumnSpec:
    """Return the column of a metric, written `top1` or `{top1: {title: Error}}`."""
    if written is None:
        wrong.append((("y",), "is missing; give a metric, such as top1"))
        return ColumnSpec(metric="top1")
    notes: Problems = []
    if isinstance(written, str) and written in SPECIAL:
        notes.append((("columns", "0"), f"{written} stands for several numbers; give one metric"))
    columns = parse_columns([written], metrics, notes) if not notes else []
    wrong += [(("y", *path[2:]), what.replace("is not a column", "is not a metric")) for path, what in notes]
    return columns[0] if columns and isinstance(columns[0], ColumnSpec) else ColumnSpec(metric="top1")


def _points(written: Any, wrong: Problems) -> Any:
    """Return the points in full: fields, or an explicit list as the rows of a table are."""
    whole = {"rows": written}
    notes: Problems = []
    parse_rows(whole, notes)
    wrong += [(("points", *path[1:]), what.replace("a list of rows", "a list of points")) for path, what in notes]
    return whole["rows"]


def figure_problems(figure: FigureSpec, configs: Sequence[Config]) -> Problems:
    """Return what a figure leaves open for a grid's cells: fields without a place, too many lines or panels."""
    figure = figure.settled(configs)
    table = figure.table
    keys = ("points" if figure.kind == "measured" else "x", "lines", "panels")
    ways = ("lines", "panels") if figure.kind == "clock" else keys
    wrong: Problems = []
    for path, what in table_problems(table, configs, ways):
        moved = path
        if path[:1] == ("columns",):
            moved = ("y", *path[2:])
        elif path[:1] in (("rows",), ("groups",)):
            moved = (keys[0], *path[1:])
        wrong.append((moved, what))
    if not wrong and figure.per is None:
        groups = [line.group for line in place(table, configs).lines]
        if (count := len(facets(figure, groups))) > MOST_PANELS:
            what = (
                f"makes {count} panels of at most {MOST_LINES} lines, and a page has room for {MOST_PANELS}: keep "
                "fewer with where, average over a field with over, or declare several figures"
            )
            wrong.append((("lines",) if figure.lines else ("panels",), what))
    return wrong


class Facet(NamedTuple):
    """A panel: the values of the panels' fields, the fields of lines that went into its title, and its lines.

    `part` is the panel's number of how many, where lines without a field to divide them by fill several panels.
    """

    panel: tuple[Any, ...]
    title: tuple[tuple[str, Any], ...]
    lines: tuple[tuple[Any, ...], ...]
    part: tuple[int, int] | None = None


def facets(figure: FigureSpec, groups: Iterable[Sequence[Any]]) -> list[Facet]:
    """Deal lines out to panels, `MOST_LINES` in each at most; a group has the values of panels, then of lines.

    Where more lines than that have one place, they are divided by one of their fields, the one that gives the fewest
    panels; and where none does, into panels that have nearly as many lines each, in their order.
    """
    panels: dict[str, tuple[tuple[Any, ...], dict[str, tuple[Any, ...]]]] = {}
    count = len(figure.panels)
    for group in groups:
        panel, line = tuple(group[:count]), tuple(group[count:])
        panels.setdefault(comparable(panel), (panel, {}))[1].setdefault(comparable(line), line)
    crowded = max((len(lines) for _, lines in panels.values()), default=0) > MOST_LINES
    divided = _dividing(figure, [list(lines.values()) for _, lines in panels.values()]) if crowded else None
    dealt = []
    for panel, lines in panels.values():
        if not crowded or divided is None:
            dealt += [Facet(panel, (), part, of) for part, of in _parts(list(lines.values()))]
            continue
        by: dict[str, tuple[Any, list[tuple[Any, ...]]]] = {}
        for line in lines.values():
            by.setdefault(comparable(line[divided]), (line[divided], []))[1].append(line)
        for value, inside in by.values():
            title = ((figure.lines[divided], value),)
            dealt += [Facet(panel, title, part, of) for part, of in _parts(inside)]
    return dealt


def _dividing(figure: FigureSpec, panels: Sequence[Sequence[tuple[Any, ...]]]) -> int | None:
    """Return the place of the field of lines that divides crowded panels best; None where there is one field only."""
    if len(figure.lines) < 2:
        return None

    def cost(place: int) -> int:
        total = 0
        for lines in panels:
            counts: dict[str, int] = {}
            for line in lines:
                key = comparable(line[place])
                counts[key] = counts.get(key, 0) + 1
            total += sum(-(-number // MOST_LINES) for number in counts.values())
        return total

    # Of fields that divide alike, the last: methods come first, and are what a reader compares.
    return min(reversed(range(len(figure.lines))), key=cost)


def _parts(
    lines: Sequence[tuple[Any, ...]],
) -> list[tuple[tuple[tuple[Any, ...], ...], tuple[int, int] | None]]:
    """Return lines in parts of nearly equal size, none above `MOST_LINES`, with the number of every part."""
    count = -(-len(lines) // MOST_LINES)
    if count < 2:
        return [(tuple(lines), None)]
    size, larger = divmod(len(lines), count)
    parts: list[tuple[tuple[tuple[Any, ...], ...], tuple[int, int] | None]] = []
    start = 0
    for number in range(count):
        end = start + size + (number < larger)
        parts.append((tuple(lines[start:end]), (number + 1, count)))
        start = end
    return parts
