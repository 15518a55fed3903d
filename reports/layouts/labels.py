"""Label the groups and rows of a declared table, and word its caption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from orchestrator.tables.addresses import filled, row_key, written
from orchestrator.tables.fields import comparable
from orchestrator.tables.placement import Line
from orchestrator.tables.schema import RowSpec, TableSpec
from reports import titles
from reports.columns import ABOUT_EPOCH, ABOUT_TRAINING, Column
from reports.layouts.assemble import unselected
from reports.layouts.bold import Bold
from reports.layouts.cells import Slice
from reports.layouts.wording import head_of, text_of
from reports.results import Selection
from reports.table import Row


class Labels:
    """Labels of one table: what its groups, rows and headings are called, and where its numbers are found."""

    def __init__(self, table: TableSpec, part: Slice, lines: Sequence[Line]) -> None:
        self.table, self.part, self.lines = table, part, lines

    def text(self, name: str, value: Any) -> str:
        """Return a field's value as the table calls it."""
        return text_of(name, value, self.table.names)

    def key(self, line: Line) -> str:
        """Return a row's part of an address."""
        return row_key(self.table, line.group, line.values, line.row)

    def group(self, group: Sequence[Any]) -> str:
        """Return the heading of a group, empty without groups."""
        groups = self.table.groups
        if groups is None:
            return ""
        values = dict(zip(groups.fields, group, strict=True))

        def shown(name: str, value: Any) -> str:
            if name == "network" and groups.parameters:
                return self.part.group(value, self.text(name, value))
            return self.text(name, value)

        if groups.label:
            return filled(groups.label, values, shown)
        return ", ".join(shown(name, value) for name, value in values.items())

    @property
    def group_head(self) -> str:
        """Return the heading of the column of groups, where a format has one."""
        groups = self.table.groups
        if groups is None:
            return "Network"
        return groups.head or ", ".join(head_of(name, self.table.names) for name in groups.fields)

    def of_line(self, line: Line) -> tuple[str, ...]:
        """Return the labels of a row."""
        if line.row is not None:
            return self.of_row(line.row)
        values = dict(zip(self.table.row_fields, line.values, strict=True))
        return tuple(self.text(name, values[name]) for name in self._fields)

    def of_row(self, row: RowSpec) -> tuple[str, ...]:
        """Return the labels of an explicit row."""
        if row.label:
            return row.label
        own = self.table.names.get(row.key or "")
        labels = tuple(self.text(name, written(name, value)) for name, value in row.shared.items())
        return (own,) if own else labels if len(self.table.stub) == len(labels) else (", ".join(labels),)

    def of_fields(self, fields: Mapping[str, Any]) -> str:
        """Return values of fields in one line."""
        return ", ".join(self.text(name, value) for name, value in fields.items())

    @cached_property
    def _fields(self) -> list[str]:
        """Return the row fields with a column of labels: those that vary, and methods; all where `stub` names them."""
        fields = list(self.table.row_fields)
        if self.table.stub:
            return fields
        lines = [line.values for line in self.lines]
        varied = [
            name
            for place, name in enumerate(fields)
            if name == "methods" or len({comparable(values[place]) for values in lines}) > 1
        ]
        return varied or fields[:1]

    @property
    def stub(self) -> tuple[str, ...]:
        """Return the headings of the columns of labels."""
        if self.table.stub:
            return self.table.stub
        if not self.table.explicit:
            return tuple(head_of(name, self.table.names) for name in self._fields)
        first = self.table.explicit[0].shared
        return (", ".join(head_of(name, self.table.names) for name in first),)

    def caption(
        self,
        rows: Sequence[Row],
        columns: Sequence[Column],
        seeds: str,
        selection: Selection,
        bold: Bold,
        search: tuple[str, str] = ("", ""),
    ) -> tuple[str, str]:
        """Return the caption and the details below the table: every rule, a line of them, or none, as `notes` says.

        `search` is how tuned rows were tuned, in sentences and in a few words.
        """
        quantities = {column.quantity for column in columns}
        rules = [ABOUT_TRAINING] if "seconds" in quantities else []
        rules += [ABOUT_EPOCH] if "epoch_seconds" in quantities else []
        rules += [seeds, selection.sentence, unselected(rows, selection), search[0], bold.sentence]
        if self.table.notes == "full":
            return " ".join(filter(None, [self.about, self.table.about, *rules])), ""
        if self.table.notes == "none":
            return self.table.about, ""
        shown = {"mean_ci95": "mean ± 95 % interval", "median_iqr": "median ± IQR", "each": "every seed"}
        plans = sorted({row.planned for row in rows if row.planned})
        many = "" if not plans else f"n = {plans[0]}" if len(plans) == 1 else f"n = {plans[0]} to {plans[-1]}"
        if plans and plans != [1]:
            many = f"{shown.get(self.table.show, 'mean ± s.d.')}, {many}"
        short = "; ".join(filter(None, [self.about.removesuffix("."), many, selection.rule, search[1], bold.short]))
        return " ".join(filter(None, [f"{short}.", self.table.about])), " ".join(filter(None, rules))

    @property
    def about(self) -> str:
        """Return the setting, as a caption begins, with what the table has no labels for."""
        if not self.part.cells:
            return self.part.about
        fixed = dict(self.part.fixed)
        named = [text_of(name, fixed.pop(name), {}) for name in ("network", "methods") if fixed.get(name)]
        silent: dict[str, Any] = {
            "methods": {},
            "heads": fixed.get("heads"),
            "seed": fixed.get("seed"),
            "peer": None,
            "stages": None,
        }
        fixed = {name: value for name, value in fixed.items() if name not in silent or value != silent[name]}
        return ", ".join([titles.setting(fixed), *named]) + "."
