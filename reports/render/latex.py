"""Tables as LaTeX, with a comment behind every place of a table that `verify` can check."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from reports.columns import Column
from reports.render.typesetting import (
    MEASURE,
    SIUNITX,
    WRAPPED,
    behind_number,
    column_parts,
    heading,
    is_number,
    is_wide,
    number_format,
    row_parts,
)
from reports.table import Entry, Row, Table
from reports.text import words

KEY_DIGITS = 12


def latex(table: Table, grids: Sequence[str] | None = None) -> str:
    """Render the parts of a table, a page for each (booktabs, threeparttable), one entry per line.

    A line ends in a comment that names its place, the number in full precision and the trials behind it, or why there
    is none; the first lines say which `grids` were read (None for all). `verify` reads both.
    """
    numbers = sum(entry.value is not None for row in table.rows for entry in row.entries)
    selection = table.selection.rule if table.selection else "none"
    parts = [(rows, places) for rows in row_parts(table) for places in column_parts(table)]
    packages = ["booktabs", *(["longtable", "threeparttablex"] if table.latex.long else ["threeparttable", "graphicx"])]
    packages += ["siunitx"] if table.latex.siunitx else []
    head = [
        f"% Needs \\usepackage{{{','.join(packages)}}}.",
        f"% orchestrate {table.name}: {numbers} numbers, selection {selection}, grids {json.dumps(grids)}",
        *([] if table.latex.long else [MEASURE]),
    ]
    write = _long if table.latex.long else _floating
    texts = [write(_Part(table, *part, number, len(parts))) for number, part in enumerate(parts, 1)]
    return "\n".join([*head, *texts]) + "\n"


class _Part(NamedTuple):
    """A part of a table: its rows, the places of its columns, and which of how many it is, from 1."""

    table: Table
    rows: Sequence[Row]
    places: Sequence[int]
    number: int
    of: int

    @property
    def caption(self) -> str:
        about = f" {escape(self.table.caption)}" if self.number == 1 else ""
        label = f"\\label{{tab:{self.table.name}{f'-{self.number}' if self.of > 1 else ''}}}"
        return f"\\caption{{{self.title}.{about}}}{label}"

    @property
    def title(self) -> str:
        part = f" (part {self.number} of {self.of})" if self.of > 1 else ""
        return escape(self.table.title + part)

    @property
    def columns(self) -> list[Column]:
        return [self.table.columns[place] for place in self.places]

    @property
    def width(self) -> int:
        """Return the number of columns with those of the labels."""
        return len(self.table.label_heads) + len(self.places)


def _floating(part: _Part) -> str:
    notes = _notes(part)
    lines = [
        f"\\orchprint{{{part.caption}}}{{{SIUNITX if part.table.latex.siunitx else ''}\\begin{{threeparttable}}",
        f"\\begin{{tabular}}{{{_sides(part)}}}",
        *_heading(part),
        *_body(part),
        "\\bottomrule",
        "\\end{tabular}",
        *(["\\begin{tablenotes}\\orchsize", *notes, "\\end{tablenotes}"] if notes else []),
    ]
    return "\n".join([*lines, "\\end{threeparttable}}"])


def _long(part: _Part) -> str:
    """Return a table that TeX breaks over pages, with its headings on every page."""
    notes = _notes(part)
    size, space = ("scriptsize", "2.5pt") if is_wide(part.table) else ("footnotesize", "4pt")
    heading = _heading(part)
    next_page = f"\\multicolumn{{{part.width}}}{{r}}{{\\textit{{continued on the next page}}}} \\\\"
    lines = [
        "\\begingroup\\def\\orchtext{.33\\linewidth}\\setlength{\\LTcapwidth}{\\linewidth}",
        f"\\{size}\\setlength{{\\tabcolsep}}{{{space}}}{SIUNITX if part.table.latex.siunitx else ''}",
        "\\begin{ThreePartTable}",
        *(["\\begin{TableNotes}", *notes, "\\end{TableNotes}"] if notes else []),
        f"\\begin{{longtable}}{{{_sides(part)}}}",
        f"{part.caption}\\\\",
        *heading,
        "\\endfirsthead",
        f"\\caption[]{{{part.title} (continued).}}\\\\",
        *heading,
        "\\endhead",
        f"\\midrule {next_page}",
        "\\endfoot",
        "\\bottomrule" + (" \\insertTableNotes" if notes else ""),
        "\\endlastfoot",
        *_body(part),
        "\\end{longtable}",
        "\\end{ThreePartTable}\\endgroup",
    ]
    return "\n".join(lines)


def _body(part: _Part) -> Iterator[str]:
    table = part.table
    for place, (group, members) in enumerate(groupby(part.rows, key=lambda row: row.group)):
        if group:
            yield from ["\\midrule"] * (place > 0)
            yield f"\\multicolumn{{{part.width}}}{{l}}{{\\textit{{{escape(group)}}}}} \\\\"
        for row in members:
            labels = [escape(label) for label in table.labels(row)]
            labels[len(row.labels) - 1] += f"\\tnote{{{row.note}}}" if row.note else ""
            yield " & ".join(labels)
            for at in part.places:
                column, entry = table.columns[at], row.entries[at]
                text = latex_entry(entry, column, row, siunitx=_is_aligned(table, at))
                yield f"  & {text}" + _comment(f"{table.name}:{row.key}/{column.key}", entry, table)
            yield "  \\\\"


def _notes(part: _Part) -> list[str]:
    entries = [row.entries[place] for row in part.rows for place in part.places]
    used = {mark for entry in entries for mark in entry.notes} | {row.note for row in part.rows}
    used |= {"*"} if any(entry.star or entry.text.endswith("*") for entry in entries) else set()
    notes = [f"\\item[{escape(mark)}] {escape(text)}" for mark, text in part.table.footnotes if mark in used]
    last = part.number == part.of
    return notes + ([f"\\item {escape(part.table.details)}"] if part.table.details and last else [])


def _is_aligned(table: Table, place: int) -> bool:
    return table.latex.siunitx and number_format(table, place) is not None


def _sides(part: _Part) -> str:
    return "l" * len(part.table.label_heads) + "".join(_alignment(part.table, place) for place in part.places)


def _alignment(table: Table, place: int) -> str:
    if _is_aligned(table, place):
        return f"S[{number_format(table, place)}]"
    if table.columns[place].form != "text":
        return "r"
    wraps = any(len(row.entries[place].text) > WRAPPED for row in table.rows)
    return "p{\\orchtext}" if wraps else "l"


def _heading(part: _Part) -> list[str]:
    """Return the headings in up to three lines, so that none widens its column, below those that columns share."""
    heads = [escape(head) for head in part.table.label_heads]
    for place, column in zip(part.places, part.columns, strict=True):
        aligned = _is_aligned(part.table, place)
        side = "c" if aligned else "l" if column.form == "text" else "r"
        stacked = _stack([escape(line) for line in heading(column)], side)
        heads.append(f"{{{stacked}}}" if aligned else stacked)
    return ["\\toprule", *_shared_header(part), " & ".join(heads) + " \\\\", "\\midrule"]


def _shared_header(part: _Part) -> list[str]:
    """Return a line of headings that columns share and the rules below them; none where no column shares one."""
    if not any(column.group for column in part.columns):
        return []
    cells, rules, place = ["" for _ in part.table.label_heads], [], len(part.table.label_heads) + 1
    for group, members in groupby(part.columns, key=lambda column: column.group):
        width = len(list(members))
        if group:
            cells.append(f"\\multicolumn{{{width}}}{{c}}{{{escape(group)}}}")
            rules.append(f"\\cmidrule(lr){{{place}-{place + width - 1}}}")
        else:
            cells += [""] * width
        place += width
    return [" & ".join(cells) + " \\\\", "".join(rules)]


def _stack(lines: Sequence[str], side: str) -> str:
    return lines[0] if len(lines) == 1 else f"\\shortstack[{side}]{{" + " \\\\ ".join(lines) + "}"


def latex_entry(entry: Entry, column: Column, row: Row, *, siunitx: bool = False) -> str:
    """Return the LaTeX of an entry, for a column of siunitx or an ordinary one."""
    shown = words(entry, column, row)
    if siunitx and is_number(entry):
        number = shown.number.replace("\u2212", "-") + (f" +- {shown.spread}" if shown.spread else "")
        return ("\\bfseries " if entry.bold else "") + number + behind_number(entry, column, row)
    spread = f" $\\pm$ {escape(shown.spread)}" if shown.spread else ""
    text = escape(shown.number) + spread
    text = f"{{\\raggedright {text}\\par}}" if len(shown.number) > WRAPPED else text
    text = f"\\textbf{{{text}}}" if entry.bold else text
    marks = ("*" if shown.star else "") + ",".join(entry.notes)
    text += (f"\\tnote{{{marks}}}" if marks else "") + (f" {escape(shown.seeds)}" if shown.seeds else "")
    return f"{{{text}}}" if siunitx else text


def _comment(address: str, entry: Entry, table: Table) -> str:
    comment = f" % {address} = {entry.state if entry.value is None else repr(entry.value)}"
    selection = f" selection={table.selection.rule}" if table.selection else ""
    if not entry.samples or entry.value is None:
        # A place without a number is named too: a number that somebody writes there would look like one of ours.
        return comment + selection
    trials = ",".join(dict.fromkeys(each.key[:KEY_DIGITS] for each in entry.samples))
    return f"{comment} n={entry.n} quantity={entry.quantity}{selection} trials={trials}"


_ESCAPES = {
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


def escape(text: str) -> str:
    """Text as LaTeX prints it."""
    return "".join(_ESCAPES.get(char) or _typesettable(char) for char in text)


def _typesettable(char: str) -> str:
    """Return a character, or its code where pdflatex's standard fonts lack it: they have ASCII and accented Latin."""
    base = unicodedata.normalize("NFD", char)
    accented = char.isalpha() and ord(char) < 0x17F and base[0].isascii() and len(base) == 2
    return char if accented or (char.isascii() and char.isprintable()) else f"{{[}}U+{ord(char):04X}{{]}}"
