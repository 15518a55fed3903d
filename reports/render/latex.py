"""Tables as LaTeX, with a comment behind every place of a table that `verify` can check."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from itertools import groupby

from reports.columns import Column
from reports.table import Entry, Row, Table
from reports.text import words

# Lines of a table that fit on a page beside a caption and footnotes.
_LINES = 36
# Characters of a text that is not wrapped.
_TEXT = 34
KEY_DIGITS = 12


def latex(table: Table, grids: Sequence[str] | None = None) -> str:
    """Render a `table` environment per page (booktabs, threeparttable), one entry per line.

    A line ends in a comment that names its place, the number in full precision and the trials behind it, or why there
    is none; the first lines say which `grids` were read (None for all). `verify` reads both.
    """
    chunks = _pages(table)
    numbers = sum(entry.value is not None for row in table.rows for entry in row.entries)
    selection = table.selection.rule if table.selection else "none"
    head = [
        "% Needs \\usepackage{booktabs,threeparttable,graphicx}.",
        f"% orchestrate {table.name}: {numbers} numbers, selection {selection}, grids {json.dumps(grids)}",
    ]
    parts = [_part(table, rows, index, len(chunks)) for index, rows in enumerate(chunks)]
    return "\n".join([*head, *parts]) + "\n"


def _pages(table: Table) -> list[list[Row]]:
    """Yield the rows, page by page."""
    pages: list[list[Row]] = [[]]
    lines = 0
    for row in table.rows:
        longest = max((len(entry.text) for entry in row.entries), default=0)
        height = max(1, -(-longest // _TEXT))
        if lines + height > _LINES:
            pages.append([])
            lines = 0
        pages[-1].append(row)
        lines += height
    return pages


def _part(table: Table, rows: Sequence[Row], index: int, parts: int) -> str:
    columns = table.columns
    part = f" (part {index + 1} of {parts})" if parts > 1 else ""
    about = f" {escape(table.caption)}" if index == 0 else ""
    sides = "l" * len(table.label_heads) + "".join(_alignment(table, column) for column in columns)
    # TeX measures the table, since only it knows the column's width, and scales it down if it is wider. The caption
    # stands outside, so that it keeps its size.
    lines = [
        "\\begin{table}[tbp]",
        "\\centering\\setlength{\\belowcaptionskip}{4pt}",
        f"\\caption{{{escape(table.title + part)}.{about}}}",
        f"\\label{{tab:{table.name}{f'-{index + 1}' if parts > 1 else ''}}}",
        "\\footnotesize\\setlength{\\tabcolsep}{4pt}",
        "\\sbox0{\\begin{threeparttable}",
        f"\\begin{{tabular}}{{{sides}}}",
        "\\toprule",
        _header(table),
        "\\midrule",
    ]
    for place, (group, members) in enumerate(groupby(rows, key=lambda row: row.group)):
        if group:
            lines += ["\\midrule"] * (place > 0)
            span = len(table.label_heads) + len(columns)
            lines.append(f"\\multicolumn{{{span}}}{{l}}{{\\textit{{{escape(group)}}}}} \\\\")
        for row in members:
            labels = [escape(label) for label in table.labels(row)]
            labels[len(row.labels) - 1] += f"\\tnote{{{row.note}}}" if row.note else ""
            lines.append(" & ".join(labels))
            for column, entry in zip(columns, row.entries, strict=True):
                text = f"  & {latex_entry(entry, column, row)}"
                lines.append(text + _comment(f"{table.name}:{row.key}/{column.key}", entry, table))
            lines.append("  \\\\")
    lines += ["\\bottomrule", "\\end{tabular}"]
    used = {mark for row in rows for entry in row.entries for mark in entry.notes} | {row.note for row in rows}
    used |= {"*"} if any(entry.star or entry.text.endswith("*") for row in rows for entry in row.entries) else set()
    notes = [f"\\item[{escape(mark)}] {escape(text)}" for mark, text in table.footnotes if mark in used]
    notes += [f"\\item {escape(table.details)}"] if table.details and index == parts - 1 else []
    if notes:
        lines += ["\\begin{tablenotes}\\footnotesize", *notes, "\\end{tablenotes}"]
    return "\n".join([*lines, "\\end{threeparttable}}%", *_fitted(table), "\\end{table}"])


def _fitted(table: Table) -> list[str]:
    """Set the measured table, scaled down to the line if it is wider, and say in LaTeX's log if that makes it tiny."""
    advice = "is scaled to less than 70 percent; table* in place of table gives it both columns"
    return [
        f"\\ifdim\\wd0>1.43\\linewidth\\GenericWarning{{}}{{LaTeX Warning: {_plain(table.name)} {advice}}}\\fi",
        "\\ifdim\\wd0>\\linewidth\\resizebox{\\linewidth}{!}{\\usebox0}\\else\\usebox0\\fi",
    ]


def _plain(name: str) -> str:
    return "".join(char if char.isascii() and (char.isalnum() or char in "-. ") else "-" for char in name)


def _alignment(table: Table, column: Column) -> str:
    if column.form != "text":
        return "r"
    place = table.columns.index(column)
    wraps = any(len(row.entries[place].text) > _TEXT for row in table.rows)
    return "p{0.38\\linewidth}" if wraps else "l"


def _header(table: Table) -> str:
    """Return the headings in up to three lines, so that none widens its column, below those that columns share."""
    heads = [escape(head) for head in table.label_heads]
    for column in table.columns:
        lines = [*map(escape, _halves(column.title)), *([f"({escape(column.unit)})"] if column.unit else [])]
        side = "l" if column.form == "text" else "r"
        heads.append(_stack(lines, side))
    return "\n".join([*_shared_header(table), " & ".join(heads) + " \\\\"])


def _shared_header(table: Table) -> list[str]:
    """Return a line of headings that columns share and the rules below them; none where no column shares one."""
    if not any(column.group for column in table.columns):
        return []
    cells, rules, place = ["" for _ in table.label_heads], [], len(table.label_heads) + 1
    for group, members in groupby(table.columns, key=lambda column: column.group):
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


def _halves(title: str) -> list[str]:
    """Return a heading in two lines of about one length, one if it is short."""
    words_ = title.split()
    if len(title) <= 8 or len(words_) == 1:
        return [title]
    cuts = [(" ".join(words_[:cut]), " ".join(words_[cut:])) for cut in range(1, len(words_))]
    return list(min(cuts, key=lambda halves: max(map(len, halves))))


def latex_entry(entry: Entry, column: Column, row: Row) -> str:
    """Return the LaTeX of an entry."""
    said = words(entry, column, row)
    spread = f" $\\pm$ {escape(said.spread)}" if said.spread else ""
    text = escape(said.number) + spread
    text = f"{{\\raggedright {text}\\par}}" if len(said.number) > _TEXT else text
    text = f"\\textbf{{{text}}}" if entry.bold else text
    marks = ("*" if said.star else "") + ",".join(entry.notes)
    return text + (f"\\tnote{{{marks}}}" if marks else "") + (f" {escape(said.seeds)}" if said.seeds else "")


def _comment(address: str, entry: Entry, table: Table) -> str:
    known = f" % {address} = {entry.state if entry.value is None else repr(entry.value)}"
    selection = f" selection={table.selection.rule}" if table.selection else ""
    if not entry.samples or entry.value is None:
        # A place without a number is named too: a number that somebody writes there would look like one of ours.
        return known + selection
    trials = ",".join(dict.fromkeys(each.key[:KEY_DIGITS] for each in entry.samples))
    return f"{known} n={entry.n} quantity={entry.quantity}{selection} trials={trials}"


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
