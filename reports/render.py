"""Tables as Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import csv as csv_format
import io
import json as json_format
import math
import re
import unicodedata
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from reports.columns import Column
from reports.entries import Entry, Row, Table
from reports.printing import words

# Rows that fit on a page beside a caption.
LATEX_ROWS = 40
# Characters of a row that fit into an article's text width; wider tables are scaled down.
_LATEX_WIDTH = 82
KEY_DIGITS = 12


def markdown(table: Table) -> str:
    """A heading, the caption, a GitHub-flavoured table with its groups as a first column, and the footnotes."""
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
    return f"### {_markdown(heading_of(table))}\n\n{_markdown(table.caption)}\n\n{body}{notes}\n"


def heading_of(table: Table) -> str:
    """A table's title, with the paper's number where it is one of the paper's."""
    numbered = re.fullmatch(r"table(\d+)", table.layout)
    return f"Table {numbered[1]}. {table.title}" if numbered else table.title


def _markdown_entry(row: Row, column: Column, entry: Entry) -> str:
    said = words(entry, column, row)
    text = _markdown(said._replace(star=False, seeds="").plain)
    text = f"**{text}**" if entry.bold else text
    return (
        text
        + ("\\*" if said.star else "")
        + (f" {said.seeds}" if said.seeds else "")
        + _marks(entry, "<sup>", "</sup>")
    )


def _marks(entry: Entry, before: str, after: str) -> str:
    return f"{before}{','.join(entry.notes)}{after}" if entry.notes else ""


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>|#~&$])", r"\\\1", text).replace("\n", " ")


def latex(table: Table, grids: Sequence[str] | None = None) -> str:
    """A `table` environment per 40 rows (booktabs, threeparttable), one entry per line.

    A line ends in a comment that names its number, its full precision, and the trials behind it; the first lines say
    which `grids` were read (None for all). `verify` reads both.
    """
    chunks = [table.rows[start : start + LATEX_ROWS] for start in range(0, len(table.rows), LATEX_ROWS)] or [()]
    numbers = sum(1 for _ in table.numbers())
    selection = table.selection.rule if table.selection else "none"
    head = [
        "% Needs \\usepackage{booktabs,threeparttable,graphicx}.",
        f"% orchestrate {table.name}: {numbers} numbers, selection {selection}, grids {json_format.dumps(grids)}",
    ]
    parts = [_latex_part(table, rows, index, len(chunks)) for index, rows in enumerate(chunks)]
    return "\n".join([*head, *parts]) + "\n"


def _latex_part(table: Table, rows: Sequence[Any], index: int, parts: int) -> str:
    stub, columns = len(table.label_heads), table.columns
    wide = _width(table) > _LATEX_WIDTH
    part = f" (part {index + 1} of {parts})" if parts > 1 else ""
    lines = [
        "\\begin{table}[tbp]",
        "\\centering",
        "\\begin{threeparttable}",
        f"\\caption{{{_latex(table.title + part)}. {_latex(table.caption)}}}",
        f"\\label{{tab:{table.name}{f'-{index + 1}' if parts > 1 else ''}}}",
        "\\footnotesize",
        *(["\\resizebox{\\linewidth}{!}{%"] if wide else []),
        f"\\begin{{tabular}}{{{'l' * stub}{''.join('l' if column.form == 'text' else 'r' for column in columns)}}}",
        "\\toprule",
        *_latex_header(table),
        "\\midrule",
    ]
    for place, (group, members) in enumerate(groupby(rows, key=lambda row: row.group)):
        if group:
            lines += ["\\midrule"] * (place > 0)
            lines.append(f"\\multicolumn{{{stub + len(columns)}}}{{l}}{{\\textit{{{_latex(group)}}}}} \\\\")
        for row in members:
            labels = [_latex(label) for label in table.labels(row)]
            labels[len(row.labels) - 1] += f"\\tnote{{{row.note}}}" if row.note else ""
            lines.append(" & ".join(labels))
            for column, entry in zip(columns, row.entries, strict=True):
                text = f"  & {latex_entry(entry, column, row)}"
                lines.append(text + _latex_comment(f"{table.name}:{row.key}/{column.key}", entry, table))
            lines.append("  \\\\")
    lines += ["\\bottomrule", "\\end{tabular}" + ("}" if wide else "")]
    if table.footnotes:
        notes = [f"\\item[{_latex(mark)}] {_latex(text)}" for mark, text in table.footnotes]
        lines += ["\\begin{tablenotes}\\footnotesize", *notes, "\\end{tablenotes}"]
    return "\n".join([*lines, "\\end{threeparttable}", "\\end{table}"])


def _latex_header(table: Table) -> list[str]:
    """Headings in two lines, units below; long ones would widen their column."""
    above = [*[""] * len(table.label_heads), *(_latex(column.title) for column in table.columns)]
    below = [
        *map(_latex, table.label_heads),
        *(f"({_latex(column.unit)})" if column.unit else "" for column in table.columns),
    ]
    return [" & ".join(above) + " \\\\", " & ".join(below) + " \\\\"]


def latex_entry(entry: Entry, column: Column, row: Row) -> str:
    """What LaTeX prints of an entry."""
    said = words(entry, column, row)
    spread = f" $\\pm$ {_latex(said.spread)}" if said.spread else ""
    text = _latex(said.number) + spread
    text = f"\\textbf{{{text}}}" if entry.bold else text
    marks = ("*" if said.star else "") + ",".join(entry.notes)
    return text + (f"\\tnote{{{marks}}}" if marks else "") + (f" {_latex(said.seeds)}" if said.seeds else "")


def _latex_comment(address: str, entry: Entry, table: Table) -> str:
    if not entry.samples or entry.value is None:
        return ""
    selection = f" selection={table.selection.rule}" if table.selection else ""
    trials = ",".join(dict.fromkeys(each.key[:KEY_DIGITS] for each in entry.samples))
    return f" % {address} = {entry.value!r} n={entry.n} quantity={entry.quantity}{selection} trials={trials}"


def _width(table: Table) -> int:
    """The characters of the widest row that the columns make."""
    columns = [
        max([len(column.title), *(len(words(row.entries[place], column, row).plain) for row in table.rows)])
        for place, column in enumerate(table.columns)
    ]
    labels = [[head, *(table.labels(row)[place] for row in table.rows)] for place, head in enumerate(table.label_heads)]
    return sum(columns) + sum(max(map(len, some)) for some in labels) + 2 * (len(columns) + len(labels))


_LATEX = {
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "|": "\\textbar{}",
    '"': "{\\char34}",
    "[": "{[}",
    "]": "{]}",
    "±": "$\\pm$",
    "\u00d7": "$\\times$",
    "³": "$^3$",
    "\u2212": "$-$",
    "\u2013": "--",
    "∞": "$\\infty$",
    "\n": " ",
}


def _latex(text: str) -> str:
    return "".join(
        _LATEX.get(char) or (char if _typesettable(char) else f"{{[}}U+{ord(char):04X}{{]}}") for char in text
    )


def _typesettable(char: str) -> str:
    """A character, or its code where pdflatex's standard fonts lack it: they have ASCII and accented Latin letters."""
    base = unicodedata.normalize("NFD", char)
    accented = char.isalpha() and ord(char) < 0x17F and base[0].isascii() and len(base) == 2
    return char if accented or (char.isascii() and char.isprintable()) else f"{{[}}U+{ord(char):04X}{{]}}"


def csv(table: Table) -> str:
    """A line per row: labels, then value, spread, n and flags of every column, in full precision."""
    written = io.StringIO()
    out = csv_format.writer(written, lineterminator="\n")
    heads = [head.lower().replace(" ", "_") for head in table.label_heads]
    names = [[column.key] if column.form == "text" else _csv_names(column.key) for column in table.columns]
    out.writerow(["group", "row", *heads, *(name for some in names for name in some)])
    for row in table.rows:
        cells: list[Any] = [row.group, row.key, *table.labels(row)]
        for column, entry in zip(table.columns, row.entries, strict=True):
            cells += [entry.text] if column.form == "text" else _csv_entry(entry)
        out.writerow(cells)
    return written.getvalue()


def _csv_names(key: str) -> list[str]:
    return [key, f"{key}_spread", f"{key}_n", f"{key}_flags"]


def _csv_entry(entry: Entry) -> list[Any]:
    flags = [entry.state] if entry.state not in ("done", "text") else []
    flags += [name for name, there in (("starred", entry.star), ("bold", entry.bold)) if there]
    number = ["" if each is None else repr(float(each)) for each in (entry.value, entry.spread)]
    return [*number, entry.n, " ".join(flags)]


def json(table: Table) -> str:
    """Everything that is known of the table, trials included."""
    document = {
        "name": table.name,
        "title": heading_of(table),
        "caption": table.caption,
        "selection": table.selection.rule if table.selection else None,
        "setting": table.fixed,
        "columns": [
            {"key": c.key, "title": c.title, "unit": c.unit, "quantity": c.quantity, "better": c.direction}
            for c in table.columns
        ],
        "rows": [
            {
                "group": row.group,
                "row": row.key,
                "labels": dict(zip(table.label_heads, table.labels(row), strict=True)),
                "entries": {c.key: _json_entry(e) for c, e in zip(table.columns, row.entries, strict=True)},
            }
            for row in table.rows
        ],
        "footnotes": dict(table.footnotes),
    }
    return json_format.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _json_entry(entry: Entry) -> dict[str, Any]:
    found: dict[str, Any] = {"state": entry.state, "value": _finite(entry.value), "spread": _finite(entry.spread)}
    found |= {"n": entry.n, "planned": entry.planned, "bold": entry.bold, "starred": entry.star}
    found["text"] = entry.text or None
    found["trials"] = [
        {"key": each.key, "name": each.name, "seed": each.seed, "epoch": each.epoch, "value": _finite(each.value)}
        for each in entry.samples
    ]
    return found


def _finite(value: float | None) -> float | None:
    return value if value is None or math.isfinite(value) else None
