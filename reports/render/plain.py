"""Tables as Markdown, CSV and JSON."""

from __future__ import annotations

import csv as csv_format
import io
import json as json_format
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from reports.columns import Column
from reports.table import Entry, Row, Table
from reports.text import words

if TYPE_CHECKING:
    import pandas as pd

_PANDAS = {int: "Int64", float: "float64", str: "str"}


def markdown(table: Table) -> str:
    """Render a heading, the caption, a GitHub-flavoured table with its groups as a first column, and the footnotes."""
    grouped = any(row.group for row in table.rows)
    headings = [
        *([table.group_head] if grouped else []),
        *table.label_heads,
        *(column.heading for column in table.columns),
    ]
    left = len(headings) - len(table.columns)
    rule = [":--"] * left + [":--" if column.form == "text" else "--:" for column in table.columns]
    lines = [[_markdown(heading) for heading in headings], rule]
    last = None
    for row in table.rows:
        cells = [_markdown(row.group) if row.group != last else ""] if grouped else []
        last = row.group
        labels = [_markdown(label) for label in table.labels(row)]
        labels[len(row.labels) - 1] += f"<sup>{row.note}</sup>" if row.note else ""
        cells += labels
        cells += [_markdown_entry(row, column, entry) for column, entry in zip(table.columns, row.entries, strict=True)]
        lines.append(cells)
    body = "\n".join(f"| {' | '.join(cells)} |" for cells in lines) if table.rows else "No rows."
    notes = "".join(f"\n\n<sup>{_markdown(mark)}</sup> {_markdown(text)}" for mark, text in table.footnotes)
    notes += f"\n\n{_markdown(table.details)}" if table.details else ""
    return f"### {_markdown(heading_of(table))}\n\n{_markdown(table.caption)}\n\n{body}{notes}\n"


def heading_of(table: Table) -> str:
    """Return a table's title, with the paper's number where it is one of the paper's."""
    numbered = re.fullmatch(r"table(\d+)(-vs-paper)?", table.layout)
    return f"Table {numbered[1]}. {table.title}" if numbered else table.title


def _markdown_entry(row: Row, column: Column, entry: Entry) -> str:
    shown = words(entry, column, row)
    text = _markdown(shown._replace(star=False, seeds="").plain)
    text = f"**{text}**" if entry.bold else text
    return (
        text
        + ("\\*" if shown.star else "")
        + (f" {shown.seeds}" if shown.seeds else "")
        + (f"<sup>{','.join(entry.notes)}</sup>" if entry.notes else "")
    )


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>|#~&$])", r"\\\1", text).replace("\n", " ")


def csv(table: Table) -> str:
    """Render a line per row: labels, then each column in full precision.

    Behind a number that trials stand behind follow its spread, n and flags (state, starred, bold, and mixed, where they
    rounded differently); behind a text that has one, its footnote.
    """
    types, rows = flat(table)
    written = io.StringIO()
    out = csv_format.writer(written, lineterminator="\n")
    out.writerow(types)
    out.writerows(rows)
    return written.getvalue()


def flat(table: Table) -> tuple[dict[str, type], list[list[Any]]]:
    """Return the columns of `csv` by name, with the type of what stands there unless it is None, and the rows."""
    measured = [any(row.entries[place].planned for row in table.rows) for place in range(len(table.columns))]
    heads = [head.lower().replace(" ", "_") for head in table.label_heads]
    types: dict[str, type] = dict.fromkeys(["group", "row", *heads], str)
    for column, trials in zip(table.columns, measured, strict=True):
        types |= _types(column, trials)
    notes = dict(table.footnotes)
    rows = []
    for row in table.rows:
        cells: list[Any] = [row.group, row.key, *table.labels(row)]
        for column, trials, entry in zip(table.columns, measured, row.entries, strict=True):
            cells += _values(column, trials, entry, notes)
        rows.append(cells)
    return types, rows


def frame(table: Table) -> pd.DataFrame:
    """Return the rows of `flat` as a DataFrame, in full precision, with types that allow for missing values."""
    import pandas as pd

    types, rows = flat(table)
    return pd.DataFrame(rows, columns=list(types)).astype({name: _PANDAS[kind] for name, kind in types.items()})


def _types(column: Column, measured: bool) -> dict[str, type]:
    name = column.key
    if column.form == "text":
        return {name: str, f"{name}_note": str}
    value = {name: float if column.digits else int}
    return value | ({f"{name}_spread": float, f"{name}_n": int, f"{name}_flags": str} if measured else {})


def _values(column: Column, measured: bool, entry: Entry, notes: Mapping[str, str]) -> list[Any]:
    if column.form == "text":
        return [entry.text, "; ".join(notes[mark] for mark in entry.notes)]
    value = None if entry.value is None else round(entry.value) if column.digits == 0 else float(entry.value)
    flags = [entry.state] if entry.state not in ("done", "text") else []
    flags += [name for name, there in (("starred", entry.star), ("bold", entry.bold), ("mixed", entry.mixed)) if there]
    spread = None if entry.spread is None else float(entry.spread)
    return [value, *([spread, entry.n, " ".join(flags)] if measured else [])]


def json(table: Table) -> str:
    """Render all that is known of the table, a line per row; samples are [trial key, epoch, value] in seed order."""
    trials = {
        sample.key: {"name": sample.name, "seed": sample.seed}
        for row in table.rows
        for e in row.entries
        for sample in e.samples
    }
    head = {
        "name": table.name,
        "title": heading_of(table),
        "caption": table.caption,
        "selection": table.selection.rule if table.selection else None,
        "setting": table.fixed,
        "columns": [
            {"key": c.key, "title": c.title, "unit": c.unit, "quantity": c.quantity, "better": c.direction}
            | ({"group": c.group} if c.group else {})
            for c in table.columns
        ],
        "footnotes": dict(table.footnotes),
        **({"details": table.details} if table.details else {}),
        **({"declaration": table.declaration} if table.declaration else {}),
        "trials": trials,
    }
    # The C encoder, which a table of a thousand trials needs, knows no indentation.
    rows = ",\n".join(map(_json_text, (_json_row(table, row) for row in table.rows)))
    lines = ",\n".join(f'"{name}": {_json_text(value)}' for name, value in head.items())
    return f'{{{lines},\n"rows": [\n{rows}\n]}}\n'


def _json_text(value: Any) -> str:
    return json_format.dumps(value, ensure_ascii=False, allow_nan=False)


def _json_row(table: Table, row: Row) -> dict[str, Any]:
    return {
        "group": row.group,
        "row": row.key,
        "labels": dict(zip(table.label_heads, table.labels(row), strict=True)),
        "entries": {c.key: _json_entry(e) for c, e in zip(table.columns, row.entries, strict=True)},
    }


def _json_entry(entry: Entry) -> dict[str, Any]:
    return {
        "state": entry.state,
        "value": _finite(entry.value),
        "spread": _finite(entry.spread),
        "n": entry.n,
        "planned": entry.planned,
        "bold": entry.bold,
        "starred": entry.star,
        **({"mixed": entry.mixed} if entry.mixed else {}),
        "text": entry.text or None,
        "samples": [(each.key, each.epoch, _finite(each.value)) for each in entry.samples],
    }


def _finite(value: float | None) -> float | None:
    return value if value is None or math.isfinite(value) else None
