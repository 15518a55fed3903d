"""A table as HTML: the values that templates read, and a piece of HTML for a notebook."""

from __future__ import annotations

import math
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from reports.columns import Column
from reports.render.plain import heading_of
from reports.table import Entry, Row, Table
from reports.text import words

TEMPLATES = Path(__file__).resolve().parents[1] / "templates"
# Seeds named one by one in a cell's tooltip; more are counted.
_NAMED = 12


def fragment(table: Table) -> str:
    """Return one table as a piece of HTML for a notebook, with its caption and footnotes."""
    return template("table.html").render(table=table_data(table))


def template(name: str) -> Template:
    """Return a template. Every text that goes into one is escaped, since names may contain anything."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    return environment.get_template(name)


def heading(title: str, name: str, layout: str) -> str:
    """Append the grid's name to the title of a layout's second setting: two links must not read alike."""
    own, first = name.removesuffix("-vs-paper"), layout.removesuffix("-vs-paper")
    return f"{title} ({own.removeprefix(f'{first}-')})" if own.startswith(f"{first}-") else title


def table_data(table: Table) -> dict[str, Any]:
    """Return the words of a table as templates read them, its rows in groups."""
    groups = [
        {"title": group, "rows": [_row(table, row) for row in rows]}
        for group, rows in groupby(table.rows, key=lambda row: row.group)
    ]
    return {
        "id": table.name,
        "title": heading(heading_of(table), table.name, table.layout),
        "caption": table.caption,
        "stub": list(table.label_heads),
        "group_head": table.group_head,
        "columns": table.columns,
        "groups": groups,
        "footnotes": [list(note) for note in [*table.footnotes, *([("", table.details)] if table.details else [])]],
    }


def _row(table: Table, row: Row) -> dict[str, Any]:
    cells = [_cell(row, column, entry) for column, entry in zip(table.columns, row.entries, strict=True)]
    labels = [{"text": label, "note": ""} for label in table.labels(row)]
    labels[len(row.labels) - 1]["note"] = row.note
    return {"id": f"{table.name}:{row.key}", "labels": labels, "cells": cells}


def _cell(row: Row, column: Column, entry: Entry) -> dict[str, Any]:
    shown = words(entry, column, row)
    kind = "text" if column.form == "text" else "bad" if entry.state in ("failed", "diverged") else "number"
    if entry.value is None and not entry.text and kind == "number":
        kind = "empty"
    return {
        "kind": kind,
        "value": float(entry.value) if entry.value is not None and math.isfinite(entry.value) else None,
        "origin": _origin(entry),
        "bold": entry.bold,
        "number": shown.number,
        "spread": shown.spread,
        "marks": ",".join([*(["*"] if shown.star else []), *entry.notes]),
        "seeds": shown.seeds,
    }


def _origin(entry: Entry) -> str:
    """Return a tooltip: the value at full length and the trials behind it."""
    if not entry.samples or entry.value is None:
        return ""
    named = [
        f"{each.name}: {each.value:.6g}" + (f" at epoch {each.epoch}" if each.epoch is not None else "")
        for each in entry.samples[:_NAMED]
    ]
    more = len(entry.samples) - len(named)
    return "\n".join([f"{entry.value:.8g}", *named, *([f"and {more} more"] if more else [])])
