"""Lay out the columns of a declared table: which there are, what they are called, and what they differ from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.tables.addresses import column_key
from orchestrator.tables.placement import Placement, reference_of
from orchestrator.tables.schema import ColumnSpec, RowSpec, TableSpec
from reports.columns import Column, column_of
from reports.errors import ReportError
from reports.layouts.cells import Slice
from reports.layouts.labels import Labels


@dataclass(frozen=True)
class Planned:
    """A column before its numbers are looked up; `across` is the place of its value of `across`, None for a mean."""

    column: Column
    spec: ColumnSpec
    across: int | None


class ColumnPlan:
    """The columns of one table, given the cells of its setting and their places."""

    def __init__(self, table: TableSpec, part: Slice, placement: Placement, labels: Labels) -> None:
        self.table, self.part, self.placement, self.labels = table, part, placement, labels

    def planned(self) -> list[Planned]:
        """Return the columns in their order."""
        planned = []
        spread = [spec for spec in self.table.columns if not spec.mean]
        for index, value in enumerate(self.placement.across):
            for spec in spread:
                if self._refers_to_itself(spec, value):
                    continue
                for column in self._expanded(spec):
                    planned.append(Planned(self._across(column, value), spec, index))
        planned += [Planned(self._column(spec), spec, None) for spec in self.table.columns if spec.mean]
        return planned

    def _across(self, column: Column, value: Any) -> Column:
        name = self.table.across
        if name is None:
            return column
        return replace(column, key=column_key(self.table, value, column.key), group=self.labels.text(name, value))

    def _refers_to_itself(self, spec: ColumnSpec, value: Any) -> bool:
        """Return whether a column of differences would subtract each of its cells from itself."""
        wanted = spec.minus if spec.minus is not None else spec.p
        if wanted is None or self.table.across is None:
            return False
        reference = self.reference(spec)
        return reference == {self.table.across: value}

    def _expanded(self, spec: ColumnSpec) -> list[Column]:
        """Return the columns that one of a declaration stands for: a column for every classifier, say."""
        if spec.metric != "classifiers":
            return [self._column(spec)]
        heads = max((self.part.heads(network) for network in self.part.networks or self._networks()), default=3)
        places = {"main": f"{heads + 1}/{heads + 1}"}
        places |= {f"head{depth}": f"{depth}/{heads + 1}" for depth in range(heads, 0, -1)}
        places |= {"ensemble": "Ensemble"}
        return [Column(key, title, "%", f"{key}/accuracy", "higher") for key, title in places.items()]

    def _networks(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(cell.network for cell in self.part.cells))

    def _column(self, spec: ColumnSpec) -> Column:
        base = column_of(spec.metric)
        quantity = base.quantity
        if "/" in quantity:
            metric = quantity.rpartition("/")[2]
            quantity = f"{f'{spec.network}:' if spec.network else ''}{spec.classifier}/{metric}"
        title = spec.title or self.table.names.get(spec.metric) or base.title
        changes: dict[str, Any] = {"key": spec.name, "title": title, "quantity": quantity}
        changes |= {"unit": spec.unit} if spec.unit is not None else {}
        changes |= {"digits": spec.digits} if spec.digits is not None else {}
        changes |= {"direction": spec.better} if spec.better is not None else {}
        if spec.title is None and spec.minus is not None:
            changes |= {"title": f"{title} \u2212 {self._reference_name(spec)}"}
        if spec.minus is not None:
            changes |= {"direction": None, "form": "signed" if base.form == "number" else base.form}
        if spec.p is not None:
            heading = spec.title or f"{title}: p against {self._reference_name(spec)}"
            digits = 3 if spec.digits is None else spec.digits
            changes |= {"title": heading, "unit": "", "direction": None, "form": "p", "digits": digits}
        if spec.mean:
            changes |= {"title": spec.title or title, "group": "" if spec.title else "Mean"}
        return replace(base, **changes)

    def reference(self, spec: ColumnSpec) -> Mapping[str, Any] | RowSpec:
        """Return what the differences of a column are from: fields, or a row; raises ReportError where it is open."""
        wanted = spec.minus if spec.minus is not None else spec.p
        reference = reference_of(self.table, wanted, self.placement)
        if isinstance(reference, str):
            raise ReportError(f"table {self.table.name}: column {spec.name}: {reference}")
        return reference

    def _reference_name(self, spec: ColumnSpec) -> str:
        reference = self.reference(spec)
        if isinstance(reference, RowSpec):
            return self.labels.of_row(reference)[-1]
        return self.labels.of_fields(reference)
