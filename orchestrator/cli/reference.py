"""The command that begins a file of published values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.app import DatabaseOption, GridNames, app, opened, path
from orchestrator.cli.results import TableFiles, declared
from orchestrator.text import counted

if TYPE_CHECKING:
    from orchestrator.database import Database


@app.command(
    short_help="Write a template for published values.",
    epilog="Example: `orchestrate reference grids/rates.yaml --new rates`",
)
def reference(
    new: Annotated[
        str,
        typer.Option("--new", metavar="TABLE", help="The table, by its name.", show_default=False),
    ],
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[GRID]",
            parser=path,
            help="A grid file (YAML); the grids of the database without.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="FILE", parser=path, help="The CSV file to write; it must not be there.")
    ] = Path("published.csv"),
    db: DatabaseOption = "results.db",
    grid: GridNames = None,
    table: TableFiles = None,
) -> None:
    """Write a CSV file with a line for every cell of a table, to be filled with the numbers that papers print.

    Named in the table as `reference: FILE`, it is compared with ours by `orchestrate report --vs-paper`. The table is
    one of the grid file, which need not have been run, or of the database's grids; or it stands in a file (`--table`).
    """
    from reports import write_template

    with _of_grid(file) if file else opened(db, numbers=True) as database:
        count = write_template(database, new, out, grids=grid, tables=declared("table", table, database))
    typer.echo(f"wrote {out}, with {counted(count, 'cell')} of {new}. Fill in `printed`, then add to the table:")
    typer.echo(f"  reference: {out}")


@contextmanager
def _of_grid(file: Path) -> Iterator[Database]:
    """Yield a database that has the trials of a grid file and no results, for as long as a template takes."""
    from orchestrator.database import open_database
    from orchestrator.grid import load_grid

    grid = load_grid(file)
    trials: list[tuple[str, Any, str]] = [
        (trial.key, trial.config.model_dump(mode="json"), trial.name) for trial in grid.trials
    ]
    with TemporaryDirectory() as folder, open_database(Path(folder, "grid.db"), create=True) as database:
        database.save_grid(grid.name, str(file), grid.text, grid.report, trials)
        yield database
