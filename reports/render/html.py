"""All tables and figures as one HTML page that needs nothing else: light and dark, sortable, printable."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from reports.columns import Column
from reports.render.plain import heading_of
from reports.table import Entry, Row, Table
from reports.text import words

if TYPE_CHECKING:
    from reports.figures.drawing import Drawing

TEMPLATES = Path(__file__).resolve().parents[1] / "templates"
# Seeds named one by one in a cell's tooltip; more are counted.
_NAMED = 12


def html(tables: Sequence[Table], drawings: Sequence[Drawing], title: str, subtitle: str) -> str:
    """Render the page. Every text is escaped, since names may contain anything; the drawings' SVG is our own."""
    figures = [
        {
            "name": each.name,
            "title": _unique_title(each.title, each.name, "figure2"),
            "caption": each.caption,
            "svg": each.inline(),
        }
        for each in drawings
    ]
    # The comparison with the papers is long: it comes last.
    own = sum(not table.layout.endswith(("-vs-paper", "-doubts")) for table in tables)
    shown = [_table(table) for table in tables]
    page = _template("report.html")
    return page.render(title=title, subtitle=subtitle, tables=shown, figures=figures, figures_before=own) + "\n"


def fragment(table: Table) -> str:
    """Return one table as a piece of HTML for a notebook, with its caption and footnotes."""
    return _template("table.html").render(table=_table(table))


def _template(name: str) -> Template:
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    return environment.get_template(name)


def _unique_title(title: str, name: str, layout: str) -> str:
    """Append the grid's name to the title of a layout's second setting: two links must not read alike."""
    own, first = name.removesuffix("-vs-paper"), layout.removesuffix("-vs-paper")
    return f"{title} ({own.removeprefix(f'{first}-')})" if own.startswith(f"{first}-") else title


def _table(table: Table) -> dict[str, Any]:
    groups = [
        {"title": group, "rows": [_row(table, row) for row in rows]}
        for group, rows in groupby(table.rows, key=lambda row: row.group)
    ]
    return {
        "id": table.name,
        "title": _unique_title(heading_of(table), table.name, table.layout),
        "caption": table.caption,
        "stub": table.label_heads,
        "columns": table.columns,
        "groups": groups,
        "footnotes": [*table.footnotes, *([("", table.details)] if table.details else [])],
    }


def _row(table: Table, row: Row) -> dict[str, Any]:
    cells = [_cell(row, column, entry) for column, entry in zip(table.columns, row.entries, strict=True)]
    labels = [{"text": label, "note": ""} for label in table.labels(row)]
    labels[len(row.labels) - 1]["note"] = row.note
    return {"id": f"{table.name}:{row.key}", "labels": labels, "cells": cells}


def _cell(row: Row, column: Column, entry: Entry) -> dict[str, Any]:
    said = words(entry, column, row)
    kind = "text" if column.form == "text" else "bad" if entry.state in ("failed", "diverged") else "number"
    if entry.value is None and not entry.text and kind == "number":
        kind = "empty"
    value = entry.value if entry.value is not None and math.isfinite(entry.value) else None
    return {
        "kind": kind,
        "value": None if value is None else repr(float(value)),
        "origin": _origin(entry),
        "bold": entry.bold,
        "number": said.number,
        "spread": said.spread,
        "marks": ",".join([*(["*"] if said.star else []), *entry.notes]),
        "seeds": said.seeds,
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
