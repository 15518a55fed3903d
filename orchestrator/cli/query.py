"""The command that asks the database in SQL."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from orchestrator.cli.app import AsJson, DatabaseOption, app, tell


@app.command(
    short_help="Ask the database in SQL, reading only.",
    epilog="""Example: `orchestrate query "SELECT key, state FROM trials"`""",
)
def query(
    sql: Annotated[
        str | None,
        typer.Argument(metavar="SQL", help="One statement; `-` reads standard input.", show_default=False),
    ] = None,
    db: DatabaseOption = "results.db",
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the tables and their columns in plain words instead.")
    ] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, with a line of names first.")] = False,
    as_json: AsJson = False,
    timeout: Annotated[
        float | None,
        typer.Option(min=0.001, metavar="SECONDS", help="Stop a query that takes longer.", show_default="no limit"),
    ] = None,
) -> None:
    """Ask the database in SQL and print the rows: a table, or with --csv or --json all of them for programs.

    It only reads, so it is safe while a grid runs, and Ctrl-C stops it. A table in a terminal shows at most 1,000 rows
    and 60 characters of a value, and says so; bytes are printed in hexadecimal.
    """
    from orchestrator.console import print_rows, print_schema
    from orchestrator.database import Answer, DatabaseError, answer, open_database, schema_rows

    form = "csv" if as_csv else "json" if as_json else "table"
    if as_csv and as_json:
        raise DatabaseError("--csv and --json: give one of them")
    if schema:
        if sql is not None:
            raise DatabaseError("--schema prints the tables and runs no query; leave one of them out")
        if form == "table":
            print_schema(schema_rows())
        else:
            print_rows(Answer(("table", "column", "type", "meaning"), iter(schema_rows())), form)
        return
    if sql is None:
        raise DatabaseError("there is no query; give one in quotes, `-` to read standard input, or --schema")
    text = sys.stdin.read() if sql == "-" else sql
    with open_database(db, readonly=True) as database:
        tell("warning", database.warnings)
        with answer(database, text, seconds=timeout) as given:
            print_rows(given, form)
