"""Print the rows of a query: a table for a person, CSV or JSON for programs."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Sequence
from itertools import groupby, islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.text import counted

if TYPE_CHECKING:
    from orchestrator.database import Answer

# Of a table in a terminal: characters of a value, and rows.
WIDTH, ROWS = 60, 1000


def print_rows(answer: Answer, form: str) -> None:
    """Print an answer as a `table`, as `csv` (a line of names first) or as `json` (a list of objects).

    Raises DatabaseError where two columns have one name in JSON, and whatever reading the rows raises.
    """
    {"table": _print_table, "csv": _print_csv, "json": _print_json}[form](answer)


def _print_table(answer: Answer) -> None:
    console = Console(highlight=False)
    # A program or a file has room for every value and every row.
    width, most = (WIDTH, ROWS) if console.is_terminal else (None, None)
    if width is None:
        console = Console(highlight=False, width=1_000_000)
    rows = list(islice(answer.rows, most))
    more = next(answer.rows, None) is not None
    cut = 0
    table = Table(box=None, pad_edge=False)
    columns = zip(*rows, strict=True) if rows else [()] * len(answer.columns)
    for column, values in zip(answer.columns, columns, strict=True):
        numbers = all(isinstance(value, int | float | None) for value in values)
        table.add_column(Text(_visible(column)), justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        cells = []
        for value in row:
            text = _visible(_text(value))
            if width is not None and len(text) > width:
                cut, text = cut + 1, f"{text[: width - 1]}\N{HORIZONTAL ELLIPSIS}"
            cells.append(Text(text))
        table.add_row(*cells)
    if rows:
        console.print(table)
    console.print(f"the first {ROWS:,} rows of more" if more else counted(len(rows), "row"), style="dim")
    if cut:
        whole = f"note: {counted(cut, 'value')} cut at {WIDTH} characters; --csv and --json print all of it"
        typer.echo(whole, err=True)
    if more:
        typer.echo("note: --csv and --json print all rows; LIMIT in the query chooses fewer", err=True)


def _text(value: Any) -> str:
    if value is None:
        return "NULL"
    return value.hex() if isinstance(value, bytes) else str(value)


def _visible(text: str) -> str:
    """Return a text in one line, in which nothing can command the terminal."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _print_csv(answer: Answer) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(answer.columns)
    for row in answer.rows:
        writer.writerow("" if value is None else _text(value) for value in row)


def _print_json(answer: Answer) -> None:
    from orchestrator.database import DatabaseError

    twice = next((name for name in answer.columns if answer.columns.count(name) > 1), None)
    if twice is not None:
        raise DatabaseError(f"two columns are called {twice}, and an object has each name once; name them with AS")
    before = "["
    for row in answer.rows:
        values = {name: _json_value(value) for name, value in zip(answer.columns, row, strict=True)}
        sys.stdout.write(f"{before}\n{json.dumps(values, ensure_ascii=False, allow_nan=False)}")
        before = ","
    sys.stdout.write("[]\n" if before == "[" else "\n]\n")


def _json_value(value: Any) -> Any:
    if isinstance(value, bytes) or (isinstance(value, float) and not math.isfinite(value)):
        return _text(value)
    return value


def print_schema(rows: Sequence[tuple[str, str, str, str]]) -> None:
    """Print the tables with their columns, types and meanings, as `schema_rows` gives them."""
    console = Console(highlight=False)
    for name, members in groupby(rows, key=itemgetter(0)):
        (_, _, _, described), *columns = members
        console.print(Text.assemble((name, "bold"), ": ", described), soft_wrap=True)
        table = Table(box=None, show_header=False, padding=(0, 1, 0, 2))
        for _, column, kind, meaning in columns:
            table.add_row(column, kind, Text(meaning))
        console.print(table)
