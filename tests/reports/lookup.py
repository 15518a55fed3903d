"""Find a table, and what stands in it."""

from __future__ import annotations

from typing import Any

from reports.table import Table
from reports.text import words


def one(tables: list[Table], name: str) -> Table:
    """Return the table of this name."""
    (found,) = [table for table in tables if table.name == name]
    return found


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
