"""Find the cells that stand in a declared table, and what a declaration leaves open. Cells are configurations here."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import groupby
from typing import Any, NamedTuple

from orchestrator.tables.fields import Config, by_name, comparable, has, in_words, matches, named, not_among, value_of
from orchestrator.tables.schema import RowSpec, TableSpec
from trainer.problems import Problems, shown

Values = tuple[Any, ...]
# What follows from other fields by itself: heads left to `auto` are there where a method needs them.
DERIVED = ("heads",)


class Spot(NamedTuple):
    """The cells of one place, as indices; several where `over` averages more than seeds. `note` is the row's own."""

    cells: tuple[int, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Line:
    """A row: the values of its group, those of its fields or its explicit row, and a spot per value of `across`."""

    group: Values
    values: Values
    row: RowSpec | None
    spots: tuple[Spot, ...]


@dataclass
class Placement:
    """Hold where every cell of a table stands: the values of `across` ((None,) without it), and the rows."""

    across: Values = (None,)
    lines: list[Line] = field(default_factory=list)
    problems: Problems = field(default_factory=list)


def place(
    table: TableSpec,
    configs: Sequence[Config],
    asked: Collection[int] | None = None,
    places: Sequence[str] = ("rows", "groups", "across"),
) -> Placement:
    """Return where the cells with these configurations stand in a table.

    Groups, rows and columns are those of the `asked` cells (all of them for None), in their order. `places` are the
    keys of the declaration that give a field a place, for messages.
    """
    return _Placing(table, configs, set(range(len(configs)) if asked is None else asked), places).place()


def open_fields(table: TableSpec, configs: Sequence[Config]) -> list[str]:
    """Return the fields that vary between the configurations that a table is about, and have no place in it."""
    placing = _Placing(table, configs, set(range(len(configs))), ())
    return list(placing.open_fields(placing.scope))


class _Placing:
    """State of the placement of one table: which cells are in its scope and which values its fields have there."""

    def __init__(self, table: TableSpec, configs: Sequence[Config], asked: set[int], places: Sequence[str]) -> None:
        self.table, self.configs, self.asked, self.places = table, configs, asked, places
        self.problems: Problems = []
        self.placed = table.placed
        self.scope = [index for index in range(len(configs)) if self._has(index, table.where, whole=True)]

    def place(self) -> Placement:
        self._check_where()
        scope = [index for index in self.scope if not self.table.explicit or self._row_of(index)]
        self._check_accounted(scope)
        self.complete = not self.problems
        having = self.table.groups.having if self.table.groups else {}
        opening = [index for index in scope if index in self.asked and self._has(index, having, whole=True)]
        across = self._distinct(opening, [self.table.across]) if self.table.across else [()]
        groups = self._distinct(opening, self.table.group_fields)
        inside: dict[str, list[int]] = {}
        for index in scope:
            inside.setdefault(comparable(self._values(index, self.table.group_fields)), []).append(index)
        lines = []
        for group in groups:
            cells = inside[comparable(group)]
            rows: list[tuple[tuple[Spot, ...], Values, RowSpec | None]]
            if self.table.explicit:
                rows = [(self._explicit(cells, row, across), (), row) for row in self.table.explicit]
            else:
                rows = [(spots, values, None) for spots, values in self._by_fields(cells, across)]
            lines += [Line(group, values, row, spots) for spots, values, row in rows]
        if not self.problems:
            self._check_order()
        names = tuple(one[0] for one in across) if self.table.across else (None,)
        return Placement(names, lines, list(dict.fromkeys(self.problems)))

    def _value(self, index: int, name: str) -> Any:
        return value_of(self.configs[index], name, self.placed)

    def _values(self, index: int, names: Iterable[str]) -> list[Any]:
        return [self._value(index, name) for name in names]

    def _has(self, index: int, wanted: Mapping[str, Any], *, whole: bool = False) -> bool:
        return has(self.configs[index], wanted, () if whole else self.placed)

    def _row_of(self, index: int) -> bool:
        return any(self._has(index, choice) for row in self.table.explicit for choice in row.choices)

    def _distinct(self, indices: Iterable[int], names: Sequence[str | None]) -> list[Values]:
        """Return the values of some fields together, without repetition: by `order`, then as the cells come."""
        fields = [name for name in names if name is not None]
        first: dict[str, Values] = {}
        for index in indices:
            values = tuple(self._values(index, fields))
            first.setdefault(comparable(values), values)
        rank = {key: place for place, key in enumerate(first)}
        if not any(name in self.table.order for name in fields):
            return list(first.values())
        # A field without an order keeps that of its first appearance, so that fields sort from the first to the last.
        seen: dict[str, dict[str, int]] = {name: {} for name in fields}
        for values in first.values():
            for name, value in zip(fields, values, strict=True):
                seen[name].setdefault(comparable(value), len(seen[name]))

        def sorting(values: Values) -> Any:
            ranks = [
                self._rank(name, value, seen[name][comparable(value)])
                for name, value in zip(fields, values, strict=True)
            ]
            return [*ranks, rank[comparable(values)]]

        return sorted(first.values(), key=sorting)

    def _rank(self, name: str, value: Any, otherwise: int) -> int:
        order = self.table.order.get(name, ())
        listed = next((place for place, wanted in enumerate(order) if matches(name, wanted, value)), len(order))
        return listed if listed < len(order) else len(order) + otherwise

    def _by_fields(self, inside: Sequence[int], across: Sequence[Values]) -> Iterator[tuple[tuple[Spot, ...], Values]]:
        """Yield the spots of each row of a group whose rows are the values of fields."""
        column = [self.table.across] if self.table.across else []
        at: dict[tuple[str, str], list[int]] = {}
        for index in inside:
            row, one = self._values(index, self.table.row_fields), self._values(index, column)
            at.setdefault((comparable(row), comparable(one)), []).append(index)
        for values in self._distinct([index for index in inside if index in self.asked], self.table.row_fields):
            cells = [at.get((comparable(values), comparable(one)), []) for one in across]
            yield tuple(Spot(self._one(members, ())) for members in cells), values

    def _explicit(self, inside: Sequence[int], row: RowSpec, across: Sequence[Values]) -> tuple[Spot, ...]:
        """Return the spots of an explicit row."""
        column = [self.table.across] if self.table.across else []
        return tuple(
            self.spot([index for index in inside if self._values(index, column) == list(one)], row) for one in across
        )

    def spot(self, inside: Sequence[int], row: RowSpec) -> Spot:
        """Return the cells of the first choice of a row that has any."""
        for choice, note in zip(row.choices, row.notes or ("",) * len(row.choices), strict=True):
            fitting = [index for index in inside if self._has(index, choice)]
            if cells := self._one(fitting, [name for name, wanted in choice.items() if by_name(wanted)]):
                return Spot(cells, note)
        return Spot()

    def _one(self, cells: list[int], named_alone: Sequence[str]) -> tuple[int, ...]:
        """Return the cell that a place means, of several that fit; two that are alike are a problem.

        Methods given by name are those with their defaults. Where no such cell is there, the only other one that the
        table's own grids have stands in.
        """
        if "methods" in named_alone:
            plain = [index for index in cells if not any((self._value(index, "methods") or {}).values())]
            asked = [index for index in cells if index in self.asked]
            variants = {comparable(self._value(index, "methods")) for index in asked}
            cells = plain or (asked if len(variants) == 1 or self.table.grids == "own" else [])
        for name, order in self.table.prefer.items():
            ranks = {index: self._preference(order, name, index) for index in cells}
            cells = [index for index in cells if ranks[index] == min(ranks.values())]
        if len(cells) < 2:
            return tuple(cells)
        pooled = [name for name in self.table.over if name != "seed"]
        if self.complete and len({self._identity(index, pooled) for index in cells}) > 1:
            self._note_two(cells)
        return tuple(cells)

    def _preference(self, order: Values, name: str, index: int) -> int:
        value = self._value(index, name)
        return next((place for place, wanted in enumerate(order) if matches(name, wanted, value)), len(order))

    def _identity(self, index: int, without: Sequence[str]) -> str:
        whole = {name: each for name, each in self.configs[index].items() if name not in without}
        return comparable([[name, comparable(whole[name])] for name in sorted(whole)])

    def _note_two(self, cells: Sequence[int]) -> None:
        one, two = next(
            (one, two)
            for one in cells
            for two in cells
            if one < two and comparable(self.configs[one]) != comparable(self.configs[two])
        )
        names = [
            name
            for name in self.configs[one]
            if comparable(self.configs[one][name]) != comparable(self.configs[two].get(name))
        ]
        differences = "; ".join(
            f"{name}: {in_words(self.configs[one][name])} and {in_words(self.configs[two].get(name))}" for name in names
        )
        what = f"two cells have one place; they differ in {differences}; "
        what += f"name the field in {self.places[0]}, or fix it with where"
        self.problems.append(((self.places[0],), what))

    def _check_where(self) -> None:
        for name, wanted in self.table.where.items():
            values = {comparable(value): value for config in self.configs for value in [value_of(config, name)]}
            if values and not any(matches(name, wanted, value) for value in values.values()):
                texts = [in_words(value) for value in values.values()]
                self.problems.append((("where", name), f"no trial has {not_among(wanted, texts)}"))

    def _check_accounted(self, scope: Sequence[int]) -> None:
        """Note every field that varies and has no place in the table."""
        ways = f"{', '.join(self.places[:-1])} or {self.places[-1]}" if self.places else ""
        for name, values in self.open_fields(scope).items():
            texts = [in_words(value) for value in values]
            several = ", ".join(texts[:4]) + (f" and {len(texts) - 4} more" if len(texts) > 4 else "")
            what = (
                f"{name} varies ({several}) and has no place: put it into {ways}; "
                f"or keep one value with where: {{{name}: {texts[0]}}}; or average it with over: [seed, {name}]"
            )
            self.problems.append(((self.places[0],), what))

    def open_fields(self, scope: Sequence[int]) -> dict[str, list[Any]]:
        """Return the fields that vary in the scope and have no place in the table, with their values."""
        placed = {*self.table.placed, *self.table.over, *self.table.prefer}
        if self.table.source or not scope:
            return {}
        varying = {}
        for name in self.configs[scope[0]]:
            if name in placed:
                continue
            values = {comparable(value): value for index in scope for value in [self._value(index, name)]}
            if len(values) > 1 and not (name in DERIVED and self._follows(name, scope)):
                varying[name] = list(values.values())
        return varying

    def _follows(self, name: str, scope: Sequence[int]) -> bool:
        """Return whether a field's value follows from the fields that the table has a place for."""
        given: dict[Hashable, str] = {}
        for index in scope:
            key = comparable(self._values(index, self.table.placed))
            if given.setdefault(key, comparable(self._value(index, name))) != comparable(self._value(index, name)):
                return False
        return True

    def _check_order(self) -> None:
        """Note values of `order` that no trial has but that are spelled nearly as one."""
        if self.table.grids == "all":
            return
        for name, order in self.table.order.items():
            values = {comparable(value): value for index in self.scope for value in [self._value(index, name)]}
            texts = [in_words(value) for value in values.values()]
            for wanted in order:
                if any(matches(name, wanted, value) for value in values.values()):
                    continue
                if near := get_close_matches(in_words(wanted), texts, n=1, cutoff=0.75):
                    what = f"no trial has {shown(wanted)}; did you mean {near[0]!r}?"
                    self.problems.append((("order", name), what))


def reference_of(table: TableSpec, wanted: Any, placement: Placement) -> dict[str, Any] | RowSpec | str:
    """Return what `minus` or `p` refers to: values of fields, or an explicit row; a message where it is nothing."""
    fields = {name: _seen(table, placement, name) for name in (*table.group_fields, *table.row_fields, table.across)}
    fields = {name: values for name, values in fields.items() if name}
    if isinstance(wanted, Mapping):
        chosen = {}
        for name, value in wanted.items():
            if name not in fields:
                return f"{name} is not in groups, rows or across (there are: {', '.join(map(str, fields)) or 'none'})"
            fitting = [each for each in fields[name] if matches(name, value, each)]
            if not fitting:
                return f"no trial has {not_among(value, list(map(in_words, fields[name])))}"
            chosen[name] = fitting[0]
        return chosen
    text = in_words(wanted)
    for row in table.explicit:
        texts = [in_words(value) for choice in row.choices for value in choice.values()]
        methods = [named(str(value)) for choice in row.choices for value in choice.values() if isinstance(value, str)]
        if text == row.key or text in row.label or text in texts or named(text) in methods:
            return row
    seen = [(str(name), value) for name, values in fields.items() for value in values]
    fitting = [(name, value) for name, value in seen if matches(name, wanted, value)]
    if len(fitting) == 1:
        return dict(fitting)
    if fitting:
        return f"{shown(wanted)} is a value of {' and '.join(name for name, _ in fitting)}; write {{field: value}}"
    texts = [in_words(value) for _, value in seen]
    texts += [row.key or in_words(next(iter(row.choices[0].values()))) for row in table.explicit]
    return f"nothing here is {not_among(wanted, texts)}"


def _seen(table: TableSpec, placement: Placement, name: str | None) -> list[Any]:
    if name == table.across:
        return list(placement.across) if name else []
    if name in table.group_fields:
        values = [line.group[table.group_fields.index(name)] for line in placement.lines]
    else:
        values = [line.values[table.row_fields.index(str(name))] for line in placement.lines if line.values]
    return [value for _, [value, *_] in groupby(sorted(values, key=comparable), key=comparable)]


def table_problems(
    table: TableSpec, configs: Sequence[Config], places: Sequence[str] = ("rows", "groups", "across")
) -> Problems:
    """Return what a table leaves open for a grid's cells: fields without a place, values that no trial has."""
    if table.source or table.grids == "all":
        return []
    placement = place(table, configs, places=places)
    wrong = placement.problems
    if not wrong:
        for number, column in enumerate(table.columns):
            for kind in ("minus", "p"):
                if (wanted := getattr(column, kind)) is not None:
                    reference = reference_of(table, wanted, placement)
                    if isinstance(reference, str):
                        wrong.append((("columns", str(number), column.metric, kind), reference))
    return wrong
