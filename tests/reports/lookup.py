"""Find a table, and what stands in it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from reports import gathering
from reports.declarations import Asked
from reports.layouts.shipped import asked, layout_name, shipped
from reports.results import Results
from reports.table import Entry, Table, entries_of
from reports.text import words


def declarations(page: Path) -> list[dict[str, Any]]:
    """Return the tables or figures that the blocks of a page declare, in its order."""
    blocks = re.findall(r"```yaml\n(name: .*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    return [YAML(typ="safe", pure=True).load(block) for block in blocks]


def one(tables: list[Table], name: str) -> Table:
    """Return the table of this name."""
    (only,) = [table for table in tables if table.name == name]
    return only


def said(table: Table, place: str) -> str:
    """Return the words at a place `row/column`."""
    key, _, column = place.rpartition("/")
    (row,) = [row for row in table.rows if row.key == key]
    position = [header.key for header in table.columns].index(column)
    return words(row.entries[position], table.columns[position], row).plain


def entry(table: Table, place: str) -> Any:
    """Return the entry at a place `row/column`."""
    key, _, column = place.rpartition("/")
    (row,) = [row for row in table.rows if row.key == key]
    return row.entries[[header.key for header in table.columns].index(column)]


def numbers(table: Table) -> dict[str, Entry]:
    """Return the entries that trials stand behind, by their addresses `table:row/column`."""
    return {
        f"{table.name}:{row.key}/{column.key}": entry
        for row, column, entry in entries_of(table)
        if entry.samples and entry.value is not None
    }


def build(results: Results, which: Iterable[int | str] | None = None) -> list[Table]:
    """Build the shipped tables of these numbers or names, or all that the grids ask for."""
    wanted = asked(results.grids)
    if which is not None:
        wanted = {name: wanted.get(name, Asked(shipped(name), ())) for name in map(layout_name, which)}
    built = []
    for one in wanted.values():
        own = [grid for grid in results.grids if one.spec is None and grid.name in one.grids]
        built += gathering.build(results, one.spec, one.grids) if one.spec else []
        built += [table for grid in own for table in gathering.own(results, grid)]
    return built
