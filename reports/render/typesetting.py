"""Decide how a table fits on paper: its pages, its parts, its columns of numbers, and the TeX that measures it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby

from reports.columns import Column
from reports.table import Entry, Row, Table
from reports.text import words

# Lines of a table that fit on a page beside a caption and footnotes.
_LINES = 36
# Characters of a text that is not wrapped.
WRAPPED = 34
# Part of the width of a page that a column of wrapped texts takes; `MEASURE` says it as well.
TEXT = 0.33
# Points: a character and the space between columns in \scriptsize; the text of a page, and its height, that the narrow
# classes have.
_CHARACTER, _SPACE = 3.7, 5.0
_WIDTH, _HEIGHT = 345.0, 470.0

# TeX measures the table, since only it knows the widths of a paper's columns and pages. It takes the first way in which
# the table fits: as it is, in \scriptsize, over both columns, turned by 90 degrees. The caption keeps its size.
MEASURE = r"""\providecommand\orchprint[2]{\begingroup
  \ifx\orchbox\undefined\newsavebox\orchbox\fi
  \def\orchset##1##2{\ifdim\wd\orchbox>\orchwidth
    \def\orchsize{##1}\sbox\orchbox{##1\setlength{\tabcolsep}{##2}#2}\fi}%
  \def\orchfit##1##2{\def\orchfloat{##1}\let\orchwidth##2\setbox\orchbox=\hbox to\maxdimen{\hss}%
    \edef\orchtext{\the\dimexpr.33\orchwidth\relax}\ifdim\orchtext<110pt \def\orchtext{110pt}\fi
    \orchset\footnotesize{4pt}\orchset\scriptsize{2.5pt}\orchset\scriptsize{1.2pt}}%
  \orchfit{table}\columnwidth
  \ifdim\wd\orchbox>\orchwidth \ifdim\textwidth>\columnwidth \orchfit{table*}\textwidth\fi\fi
  \setlength{\belowcaptionskip}{4pt}%
  \ifdim\wd\orchbox>\orchwidth
    \ifdim\dimexpr\ht\orchbox+\dp\orchbox\relax<.9\orchwidth \ifdim\wd\orchbox<.97\textheight
      \let\orchfit\relax
    \fi\fi
    \ifx\orchfit\relax
      \begin{\orchfloat}[p]\centering
      \rotatebox{90}{\begin{minipage}{.97\textheight}\centering #1\par\usebox\orchbox\end{minipage}}%
      \end{\orchfloat}%
    \else
      \GenericWarning{}{LaTeX Warning: a table is too large for a page, and made smaller; give it latex: {wide: parts}}%
      \begin{\orchfloat}[tbp]\centering #1\resizebox{\orchwidth}{!}{\usebox\orchbox}\end{\orchfloat}%
    \fi
  \else
    \begin{\orchfloat}[tbp]\centering #1\usebox\orchbox\end{\orchfloat}%
  \fi\endgroup}"""
SIUNITX = (
    "\\sisetup{mode=text,reset-text-series=false,separate-uncertainty=true,table-align-uncertainty=true,"
    "table-align-text-after=false,retain-explicit-plus=true,retain-zero-uncertainty=true}"
)


def is_wide(table: Table) -> bool:
    """Return whether a table is wider than a page of text, by a guess at what TeX will make of it."""
    return _whole_width(table) > _WIDTH


def _whole_width(table: Table) -> float:
    return _labels_width(table) + sum(_width(table, place) for place in range(len(table.columns)))


def _is_turned(table: Table) -> bool:
    """Return whether a table may stand on a turned page as a whole."""
    return table.latex.wide == "turn" and not table.latex.long and _WIDTH < _whole_width(table) <= _HEIGHT


def column_parts(table: Table) -> list[tuple[int, ...]]:
    """Return the places of the columns in each part of a table: one, or several where no page is wide enough for it.

    Columns that share a heading stay together, unless they alone are too wide.
    """
    if _is_turned(table):
        return [tuple(range(len(table.columns)))]
    room = _WIDTH - _labels_width(table)
    parts: list[list[int]] = [[]]
    for _, group in groupby(range(len(table.columns)), key=lambda place: table.columns[place].group or place):
        places = list(group)
        fits = sum(_width(table, place) for place in places) <= room
        for together in [places] if fits else [[place] for place in places]:
            if parts[-1] and sum(_width(table, place) for place in (*parts[-1], *together)) > room:
                parts.append([])
            parts[-1] += together
    return [tuple(part) for part in parts]


def row_parts(table: Table) -> list[list[Row]]:
    """Return the rows of a table, page by page; all of them for one that TeX itself breaks over pages."""
    if table.latex.long:
        return [list(table.rows)]
    turned = _is_turned(table)
    most = _turned_lines(table) if turned else _LINES
    pages: list[list[Row]] = [[]]
    lines, group = 0, ""
    for row in table.rows:
        longest = max((len(entry.text) for entry in row.entries), default=0)
        height = max(1, -(-longest // WRAPPED)) + 2 * (turned and row.group != group)
        group = row.group
        if lines + height > most:
            pages.append([])
            lines = 0
        pages[-1].append(row)
        lines += height
    return pages


def _turned_lines(table: Table) -> int:
    """Return how many lines of a turned table fit beside its caption and notes on a page that is now the less high."""
    notes = [text for _, text in table.footnotes] + ([table.details] if table.details else [])
    above = 12.0 * (1 + len(table.title + table.caption) // 100) + 45
    below = 8.5 * sum(1 + len(text) // 110 for text in notes)
    return max(6, int((_WIDTH - above - below) / 8.5))


def _labels_width(table: Table) -> float:
    columns = zip(table.label_heads, *(table.labels(row) for row in table.rows), strict=True)
    return sum(_points(max(map(len, texts))) for texts in columns)


def _width(table: Table, place: int) -> float:
    column = table.columns[place]
    texts = [words(row.entries[place], column, row).plain for row in table.rows]
    if column.form == "text" and max(map(len, texts), default=0) > WRAPPED:
        return TEXT * _WIDTH
    marks = (",".join(row.entries[place].notes) for row in table.rows)
    longest = max((len(text + mark) for text, mark in zip(texts, marks, strict=True)), default=0)
    return _points(max(longest, *map(len, heading(column))))


def _points(characters: int) -> float:
    return characters * _CHARACTER + _SPACE


def heading(column: Column) -> list[str]:
    """Return the lines of a column's heading: its title in two of about one length, and its unit."""
    return [*_halves(column.title), *([f"({column.unit})"] if column.unit else [])]


def _halves(title: str) -> list[str]:
    parts = title.split()
    if len(title) <= 8 or len(parts) == 1:
        return [title]
    cuts = [(" ".join(parts[:cut]), " ".join(parts[cut:])) for cut in range(1, len(parts))]
    return list(min(cuts, key=lambda halves: max(map(len, halves))))


def is_number(entry: Entry) -> bool:
    """Return whether an entry is a number that siunitx aligns."""
    return entry.value is not None and math.isfinite(entry.value) and not entry.text


def number_format(table: Table, place: int) -> str | None:
    """Return siunitx's options for a column: the digits to make room for; None for one that it cannot align."""
    column = table.columns[place]
    entries = [(row, row.entries[place]) for row in table.rows]
    shown = [words(entry, column, row) for row, entry in entries if is_number(entry)]
    # Every seed in one cell, and minutes beside seconds, are no numbers.
    listed = any(entry.text and entry.value is not None for _, entry in entries)
    if not shown or listed or column.form in ("minutes", "text"):
        return None
    whole = max(len(one.number.partition(".")[0].strip("+-\u2212<")) for one in shown)
    sign = {"signed": "+", "p": "<"}.get(column.form, "-" if any("\u2212" in one.number for one in shown) else "")
    digits = f"{sign}{whole}" + (f".{column.digits}" if column.digits else "")
    if spreads := [one.spread for one in shown if one.spread]:
        digits += f"({max(len(spread.replace('.', '')) for spread in spreads)})"
    behind = max(_behind(entries, column), key=len, default="")
    # A sign of comparison is a letter in OT1's text fonts.
    return f"table-format={digits}{behind}" + (",mode=math" if column.form == "p" else "")


def _behind(entries: Sequence[tuple[Row, Entry]], column: Column) -> Iterator[str]:
    for row, entry in entries:
        if is_number(entry):
            yield behind_number(entry, column, row)


def behind_number(entry: Entry, column: Column, row: Row) -> str:
    """Return what stands behind a number that siunitx aligns: its marks and seeds, in braces; nothing for none."""
    shown = words(entry, column, row)
    marks = ("*" if shown.star else "") + ",".join(entry.notes)
    text = (f"\\tnote{{{marks}}}" if marks else "") + (f"~{shown.seeds}" if shown.seeds else "")
    return f"{{{text}}}" if text else ""
