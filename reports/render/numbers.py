r"""Numbers for sentences: `numbers.tex` defines `\orch{ADDRESS}`, the number at that place of a table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from reports.columns import Column
from reports.render.latex import KEY_DIGITS, escape
from reports.table import Entry, Row, Table, entries_of
from reports.text import words

# `\protected` keeps it whole in captions and headings, which TeX writes to files and reads again.
_COMMAND = r"""\protected\def\orch#1{\ifcsname orch:#1\endcsname\csname orch:#1\endcsname\else
  \errmessage{no number #1: run `orchestrate report` again, or mend the address}\textbf{?}\fi}"""


def numbers(tables: Sequence[Table], grids: Sequence[str] | None = None) -> str:
    r"""Return a LaTeX file that defines every number of the tables by its address.

    `.n`, `.spread` and `.delta` behind the address are the seeds, what stands after the plus-minus sign, and the
    difference to what the table's column of differences refers to. `orchestrate verify` checks their uses.
    """
    lines = [f"% orchestrate numbers.tex, grids {json.dumps(grids)}. \\input it once, then write \\orch{{ADDRESS}}."]
    lines.append(_COMMAND)
    for table in tables:
        rule = table.selection.rule if table.selection else "none"
        for row, column, entry in entries_of(table):
            if entry.samples and entry.value is not None:
                trials = ",".join(dict.fromkeys(each.key[:KEY_DIGITS] for each in entry.samples))
                for address, text in _texts(table, row, column, entry):
                    defined = f"\\expandafter\\def\\csname orch:{address}\\endcsname{{{text}}}"
                    lines.append(f"{defined}% orch {address} selection={rule} trials={trials}")
    return "\n".join(lines) + "\n"


def texts(table: Table, row: Row, column: Column, entry: Entry) -> dict[str, str]:
    """Return what stands for an entry in a sentence, by address."""
    return dict(_texts(table, row, column, entry)) if entry.samples and entry.value is not None else {}


def _texts(table: Table, row: Row, column: Column, entry: Entry) -> Iterator[tuple[str, str]]:
    address = f"{table.name}:{row.key}/{column.key}"
    # A table prints seeds one by one where it is asked to; a sentence has their mean.
    shown = words(entry if not entry.text else Entry("done", entry.value, entry.spread), column, row)
    yield address, escape(shown.number)
    yield f"{address}.n", str(entry.n)
    if shown.spread:
        yield f"{address}.spread", escape(shown.spread)
    keys = [each.key for each in table.columns]
    if f"{column.key}-minus" in keys:
        place = keys.index(f"{column.key}-minus")
        difference = row.entries[place]
        if difference.value is not None and difference.samples:
            yield f"{address}.delta", escape(words(difference, table.columns[place], row).number)
