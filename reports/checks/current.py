"""Read the numbers of the database that a LaTeX file has places for, as a report would write them now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from reports.checks.manuscript import Defined, Header, Manuscript, Written
from reports.columns import Column
from reports.errors import ReportError
from reports.gathering import gather
from reports.render.latex import KEY_DIGITS
from reports.table import Entry, Row, Table, entries_of

if TYPE_CHECKING:
    from orchestrator.database import Database


class Current(NamedTuple):
    """A number as the database has it now."""

    table: Table
    row: Row
    column: Column
    entry: Entry

    @property
    def trials(self) -> frozenset[str]:
        """Return the trials behind a number, as its comment names them."""
        return frozenset(each.key[:KEY_DIGITS] for each in self.entry.samples if self.entry.value is not None)


Choice = tuple[tuple[str, ...] | None, str]  # grids and rule
Known = Mapping[Choice, Mapping[str, Current]]


def choice_of(written: Written | Header | Defined) -> Choice:
    # Tables without a rule are the same under any; grids may disagree about theirs, and every trial has a last epoch.
    return written.grids, written.rule or "last"


def current_numbers(database: Database, paper: Manuscript, declared: Sequence[Mapping[str, Any]]) -> Known:
    """Return the database's entries by address, for every choice of grids and rule that the file was written with."""
    places: dict[Choice, dict[str, Current]] = {}
    everything: list[Written | Header | Defined] = [*paper.headers, *paper.places]
    everything += [paper.defined[address] for _, address in paper.used if address in paper.defined]
    # Also tables that no grid asks for any more: their numbers are as current as ever.
    names = [written.address.partition(":")[0] for written in paper.places]
    names += [header.table for header in paper.headers] + [address.partition(":")[0] for _, address in paper.used]
    for written in everything:
        grids, rule = choice_of(written)
        if (grids, rule) in places:
            continue
        try:
            options: dict[str, Any] = {"grids": grids, "selection": rule, "vs_paper": True}
            tables = gather(database, tables=declared, also=names, **options).tables
        except ReportError as error:
            raise ReportError(f"{written.where}: {error}") from error
        places[grids, rule] = {
            f"{table.name}:{row.key}/{column.key}": Current(table, row, column, entry)
            for table in tables
            for row, column, entry in entries_of(table)
        }
    return places
