"""The command that compares two rows, cells or trials."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from orchestrator.cli.app import AsJson, DatabaseOption, GridNames, app, opened
from orchestrator.cli.results import SelectionRule, TableFiles, declared


@app.command(
    short_help="Compare two rows or trials, and say whether they differ.",
    epilog="Example: `orchestrate compare table1:resnet18/pskd table1:resnet18/byot`",
)
def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="A row, a cell or a trial.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    metric: Annotated[str, typer.Option(metavar="NAME", help="A column of tables, such as ece.")] = "top1",
    db: DatabaseOption = "results.db",
    grid: GridNames = None,
    selection: SelectionRule = None,
    table: TableFiles = None,
    as_json: AsJson = False,
) -> None:
    """Compare two rows, cells or trials.

    Printed are the difference A - B, its interval, the test, p, n, the images that only one of them has right, and all
    else that differs between them: fields, code, data, devices.

    A and B are rows of a table (table1:resnet18/pskd), trials by name or by the beginning of their key, or the name of
    a trial without its seed, which stands for all seeds. A row, or a number of it (table1:resnet18/pskd/top1), has to
    be of one configuration: means over networks and differences cannot be compared. Epochs are selected by the table's
    rule, which both sides must share. From three seeds on the test is a t test paired over seeds;
    below, it is exact and paired over the test images.
    """
    from reports import compare as compare_named

    with opened(db, numbers=True) as database:
        tables = declared("table", table, database)
        comparison = compare_named(
            database, first, second, metric=metric, grids=grid, selection=selection, tables=tables
        )
        typer.echo(json.dumps(comparison, default=str) if as_json else comparison["text"])
