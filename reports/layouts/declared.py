"""Build tables from their declarations: the cells that stand in them, their numbers, their captions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

from orchestrator.records import BY_TEST, TUNED, TUNING
from orchestrator.tables.fields import comparable, has, in_words, value_of
from orchestrator.tables.placement import Line, Spot, place
from orchestrator.tables.schema import ColumnSpec, RowSpec, TableSpec
from reports import titles
from reports.columns import Column
from reports.errors import ReportError
from reports.layouts.assemble import TIME_NOTE, count_seeds
from reports.layouts.bold import embolden
from reports.layouts.cells import Slice, slices
from reports.layouts.entries import entry, p_value, weighted_sum
from reports.layouts.labels import Labels
from reports.layouts.planned import ColumnPlan, Planned
from reports.layouts.twins import twins
from reports.results import Cell, Results, Trial
from reports.table import Entry, Row, Table, add_note, mark_mixed, mark_unmeasured
from reports.text import number
from reports.tuning import budget

_EACH = ", "


class Placed(NamedTuple):
    """A table with what a figure needs beside it: the setting in words, the place of every row, and the cells."""

    table: Table
    about: str
    lines: tuple[Line, ...]
    cells: tuple[Cell, ...]


def build_declared(results: Results, table: TableSpec, asking: Iterable[str] | None = None) -> list[Table]:
    """Build a declared table from the cells that the grids that ask for it have; one per setting where it says so.

    Raises ReportError where the cells leave the declaration open.
    """
    return [placed.table for placed in build_placed(results, table, asking)]


def build_placed(results: Results, table: TableSpec, asking: Iterable[str] | None = None) -> list[Placed]:
    """Build tables as `build_declared` does, with the line of every row; raises ReportError as it does."""
    asking = frozenset(asking or ())
    parts = _parts(replace(results, cells=cells_of(results, table, asking)), table, asking)
    buildings = [_Building(results, table, part) for part in parts]
    return [Placed(one.build(), one.labels.about, tuple(one.placement.lines), one.part.cells) for one in buildings]


def cells_of(results: Results, table: TableSpec, asking: Collection[str] = ()) -> tuple[Cell, ...]:
    """Return the cells that a table is about: of the grids that ask for it, or of all; by seed where seeds stand."""
    cells = [cell for cell in results.cells if table.grids == "all" or not asking or {*asking} & {*cell.grids}]
    if table.places_seeds:
        cells = [_of_seed(cell, place) for cell in cells for place in range(len(cell.trials))]
    return tuple(cells)


def _of_seed(cell: Cell, place: int) -> Cell:
    trial = cell.trials[place]
    return Cell({**cell.config, "seed": trial.seed}, cell.grids, (trial,))


def _parts(results: Results, table: TableSpec, asking: frozenset[str]) -> list[Slice]:
    """Return the cells of each table that a declaration gives: by setting, or all that it has room for."""

    def accept(cell: Cell) -> bool:
        choices = [choice for row in table.explicit for choice in row.choices]
        return has(cell.config, table.where) and (
            not choices or any(has(cell.config, choice, table.placed) for choice in choices)
        )

    if table.per == "setting":
        order = table.order.get("network", ())
        return slices(results, table.name, accept, varies=_varying_fields(table), asking=asking, order=order)
    cells = tuple(filter(accept, results.cells))
    if not cells:
        _refuse(table, place(table, [cell.config for cell in results.cells]).problems)
    names = [name for name in (cells[0].config if cells else ()) if name not in table.placed]
    values = {name: [value_of(cell.config, name, table.placed) for cell in cells] for name in names}
    fixed = {name: several[0] for name, several in values.items() if len(set(map(comparable, several))) == 1}
    return [Slice(table.name, fixed, grids=asking, cells=cells)]


def _refuse(table: TableSpec, problems: Iterable[tuple[Sequence[str], str]]) -> None:
    """Raise ReportError with all that the cells of a table leave open; a table per setting leaves nothing open."""
    if problems and table.per is None:
        raise ReportError("\n".join(f"table {table.name}: {'.'.join(path)}: {what}" for path, what in problems))


def _varying_fields(table: TableSpec) -> frozenset[str]:
    names = (*table.placed, *table.where, *table.prefer, *table.over)
    return frozenset(name.partition(".")[0] for name in names) | {"heads"}


class _Building:
    """The building of one table from the cells of one setting."""

    def __init__(self, results: Results, table: TableSpec, part: Slice) -> None:
        self.results, self.table, self.part = results, table, part
        asked = [
            index for index, cell in enumerate(part.cells) if not part.grids or part.grids.intersection(cell.grids)
        ]
        self.placement = place(table, [cell.config for cell in part.cells], asked)
        _refuse(table, self.placement.problems)
        self.labels = Labels(table, part, self.placement.lines)
        self.columns = ColumnPlan(table, part, self.placement, self.labels)
        self.spots = {
            self._address(line, across): spot for line in self.placement.lines for across, spot in self._at(line)
        }
        self.notes: list[tuple[str, str]] = []

    def _at(self, line: Line) -> Iterator[tuple[Any, Spot]]:
        return zip(self.placement.across, line.spots, strict=True)

    def _address(self, line: Line, across: Any) -> tuple[str, str, str]:
        row = str(self.table.explicit.index(line.row)) if line.row else comparable(line.values)
        return comparable(line.group), row, comparable(across)

    def build(self) -> Table:
        """Return the table."""
        table = self.table
        planned = self.columns.planned()
        columns = [each.column for each in planned]
        rows = [row for line in self.placement.lines if (row := self._row(line, planned)) is not None]
        rows, bold = embolden(
            mark_unmeasured(mark_mixed(rows, self.notes), columns, self.notes),
            columns,
            self.notes,
            table.bold.rule,
            table.bold.within,
            table.bold.correction,
        )
        rows, seeds = count_seeds(rows, table.show)
        if any(each.star for row in rows for each in row.entries):
            self.notes.insert(0, ("*", TIME_NOTE + "; never bold"))
        counted = Counter(row.key for row in rows)
        if twice := next((key for key, count in counted.items() if count > 1), None):
            raise ReportError(f"table {table.name}: two rows have the address {twice}; give them a `key`")
        search = self._search()
        caption, details = self.labels.caption(rows, columns, seeds, self.results.selection, bold, search)
        return Table(
            self.part.name,
            table.name,
            table.title or table.name,
            caption,
            self.labels.stub,
            tuple(columns),
            tuple(rows),
            tuple(self.notes),
            self.results.selection,
            self.part.fixed,
            self.labels.group_head,
            details,
            latex=table.latex,
        )

    def _search(self) -> tuple[str, str]:
        """Return what the caption says of how the tuned rows were tuned; raises ReportError for epochs by test images.

        Of several grids that tune alike it is said once.
        """
        tuned = {name for cell in self.part.cells if cell.config.get(TUNING) == TUNED for name in cell.grids}
        if tuned and self.results.selection.rule == "best_test":
            raise ReportError(f"table {self.table.name}: best_test {BY_TEST}; take best_val, or last")
        searches = {grid.name: grid.report["tune"] for grid in self.results.grids if grid.report.get("tune")}
        budgets = dict.fromkeys(budget(searches[name]) for name in sorted(tuned & set(searches)))
        return " ".join(long for long, _ in budgets), "; ".join(dict.fromkeys(short for _, short in budgets))

    def _referred(self, spec: ColumnSpec, line: Line, across: Any) -> Spot | None:
        """Return the place that a difference is taken from; None where it is the same place."""
        reference = self.columns.reference(spec)
        other = line
        if isinstance(reference, RowSpec):
            other = replace(line, row=reference, values=())
        else:
            group, values = list(line.group), list(line.values)
            for name, value in reference.items():
                if name in self.table.group_fields:
                    group[self.table.group_fields.index(name)] = value
                elif name in self.table.row_fields:
                    values[self.table.row_fields.index(name)] = value
                else:
                    across = value
            other = replace(line, group=tuple(group), values=tuple(values))
        return self.spots.get(self._address(other, across), Spot())

    def _row(self, line: Line, planned: Sequence[Planned]) -> Row | None:
        entries = tuple(self._entry(line, each) for each in planned)
        cells = [index for spot in line.spots for index in spot.cells]
        if not any(each.planned for each in entries):
            if self.table.missing == "error":
                where = self.labels.key(line)
                raise ReportError(
                    f"table {self.table.name}: no trial fits {where}; `missing: dash` lets it stand empty"
                )
            if self.table.missing == "drop":
                return None
        notes = [next((spot.note for spot in line.spots if spot.note), "")]
        notes += dict.fromkeys(about for index in cells if (about := self.part.cells[index].about))
        notes.append(self._twin(line))
        deviation = self._deviation(line, cells)
        if not cells and self.table.grids == "own" and line.row and not line.row.alone:
            notes.append(f"no trial of the chosen grids is {self._wanted(line)}; add it to a grid file")
        mark = "; ".join(filter(None, [*notes, deviation]))
        note = add_note(self.notes, mark) if mark else ""
        return Row(
            self.labels.group(line.group), self.labels.key(line), self.labels.of_line(line), entries, note, deviation
        )

    def _twin(self, line: Line) -> str:
        """Return what to say of a row whose numbers are those of a row above it in every epoch, empty for others."""
        digests = [trial.numbers for spot in line.spots for trial in self._trials(spot) if trial.numbers]
        alike = self._by_numbers.get(digests[0], []) if digests else []
        for other in alike:
            if other is line:
                break
            # A row that its search left as it is has the very trials of that row, and its footnote says so.
            both = zip(line.spots, other.spots, strict=True)
            same = any(spot.cells and self._trials(spot) == self._trials(above) for spot, above in both)
            if other.group != line.group or same:
                continue
            pairs = [
                twins(self._trials(spot), self._trials(above))
                for spot, above in zip(line.spots, other.spots, strict=True)
                if spot.cells and above.cells
            ]
            if pairs and all(pairs):
                label = ", ".join(filter(None, self.labels.of_line(other)))
                return f"{pairs[0]} as {label}: this difference changes nothing"
        return ""

    @cached_property
    def _by_numbers(self) -> dict[str, list[Line]]:
        """Return the lines in which a trial of some digest stands."""
        lines: dict[str, list[Line]] = {}
        for line in self.placement.lines:
            for digest in dict.fromkeys(trial.numbers for spot in line.spots for trial in self._trials(spot)):
                if digest:
                    lines.setdefault(digest, []).append(line)
        return lines

    def _trials(self, spot: Spot) -> list[Trial]:
        cell = self._cell(spot)
        return list(cell.trials) if cell else []

    def _wanted(self, line: Line) -> str:
        """Return what a row without trials asks for, as a grid file says it."""
        fields = dict(zip(self.table.group_fields, line.group, strict=True)) | (line.row.choices[0] if line.row else {})
        return "{" + ", ".join(f"{name}: {in_words(value)}" for name, value in fields.items()) + "}"

    def _deviation(self, line: Line, cells: Sequence[int]) -> str:
        """Return what a row's cell has beyond what its methods' names promise."""
        if line.row is None or not cells:
            return ""
        named = any(isinstance(choice.get("methods"), str) for choice in line.row.choices)
        value = value_of(self.part.cells[cells[0]].config, "methods", self.table.placed)
        given = {name: each for name, each in value.items() if each}
        return f"with {titles.methods(given)}" if named and given else ""

    def _entry(self, line: Line, planned: Planned) -> Entry:
        spec, quantity, show = planned.spec, planned.column.quantity, self.table.show
        if planned.across is None:
            cells = [self._cell(spot) for spot in line.spots]
            return self._shown(weighted_sum([(cell, 1 / len(cells)) for cell in cells], quantity, show), planned.column)
        spot = line.spots[planned.across]
        if line.row is not None and line.row.alone:
            return entry(self._alone(line, spec.network), quantity.removeprefix("1:"), show)
        cell = self._cell(spot)
        if spec.minus is None and spec.p is None:
            return self._shown(entry(cell, quantity, show), planned.column)
        other = self._referred(spec, line, self.placement.across[planned.across])
        if other == spot:
            return Entry("text", quantity=quantity, text="\u2013")
        reference = self._cell(other) if other else None
        if spec.p is not None:
            return p_value(cell, reference, quantity)
        difference = weighted_sum([(cell, 1), (reference, -1)], quantity, show)
        return self._shown(replace(difference, quantity=f"{quantity}-minus"), planned.column)

    def _shown(self, entry: Entry, column: Column) -> Entry:
        if self.table.show == "median_iqr":
            # Another table may print the mean of the same trials.
            return replace(entry, quantity=f"{entry.quantity}-median")
        if self.table.show != "each" or len(entry.samples) < 2 or entry.quantity.endswith("-minus"):
            return entry
        text = _EACH.join(number(each.value, column) for each in entry.samples)
        return replace(entry, spread=None, text=text)

    def _cell(self, spot: Spot) -> Cell | None:
        cells = [self.part.cells[index] for index in spot.cells]
        if len(cells) < 2:
            return cells[0] if cells else None
        # Averaged over more than seeds: one cell of all their trials, each paired by what it is averaged over.
        pooled = [name for name in self.table.over if name != "seed"]
        trials = tuple(
            replace(trial, pair=comparable([value_of(cell.config, name) for name in pooled]))
            for cell in cells
            for trial in cell.trials
        )
        config = {**cells[0].config, **dict.fromkeys(pooled, "several values")}
        return Cell(config, tuple(dict.fromkeys(name for cell in cells for name in cell.grids)), trials)

    def _alone(self, line: Line, network: int) -> Cell | None:
        """Return the cell of one network of a pair trained alone, by the row's own choices."""
        group = dict(zip(self.table.group_fields, line.group, strict=True))
        name = str((group.get("peer") if network else None) or group["network"])
        cells = [index for index, cell in enumerate(self.part.cells) if cell.network == name]
        configs = [self.part.cells[index].config for index in cells]
        ungrouped = self.table.model_copy(update={"groups": None, "rows": (line.row,)})
        lines = place(ungrouped, configs).lines
        return self.part.cells[cells[lines[0].spots[0].cells[0]]] if lines and lines[0].spots[0].cells else None
