"""Commands that read the database: progress of the grids, reports and exports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from orchestrator.cli.app import AsJson, DatabaseOption, GridNames, app, database_option, opened, path
from orchestrator.exit_codes import DONE, SOME_FAILED

if TYPE_CHECKING:
    from orchestrator.database import Database

SelectionRule = Annotated[
    str | None,
    typer.Option(
        metavar="RULE",
        help="The epoch that counts: best_test (as the paper), best_val, last, or mean_last_K.",
        show_default="what the grid file says",
    ),
]


@app.command(short_help="Show how far each grid is.", epilog="Example: `orchestrate status --grid table1`")
def status(db: DatabaseOption = "results.db", grid: GridNames = None, as_json: AsJson = False) -> None:
    """Show how far each grid is: counts by state, the running trials, and the failures."""
    from orchestrator.console import add_changes, print_status, status_of

    with opened(db) as database:
        options = database_option(db, database)
        grids = status_of(database, grid, options)
        if as_json:
            add_changes(database, grids)
            typer.echo(json.dumps(grids))
        else:
            print_status(grids, options)


@app.command(
    short_help="Watch the tables fill up.",
    epilog="Example: `orchestrate watch --grid quickstart` in a second terminal while a grid runs",
)
def watch(
    db: DatabaseOption = "results.db",
    grid: GridNames = None,
    every: Annotated[float, typer.Option(min=0.2, metavar="SECONDS", help="Seconds between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Show it once and leave.")] = False,
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve the page of `report`, live, to this machine's browsers instead.")
    ] = False,
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            metavar="PORT",
            help="The port of --serve; 0 takes a free one.",
            show_default="8270, or a free one where that is taken",
        ),
    ] = None,
) -> None:
    """Watch the tables fill up: methods by networks, with running cells, failures and the time left.

    It reads the database alone, so it works from another terminal or machine. `--serve` prints the address of a page
    with the same, the ends of logs, and the tables and curves of `report`; it listens on the loopback interface only,
    and to open the page takes the token in that address.
    """
    if serve:
        from orchestrator.cli.live import serve_page

        if once:
            raise typer.BadParameter("--serve and --once are two ways to watch; give one of them")
        serve_page(db, grid, every=every, port=port)
        return
    if port is not None:
        raise typer.BadParameter("--port is the port of the page that --serve serves; add --serve")
    from orchestrator.console import watch_grids

    watch_grids(db, grid, every=every, once=once)


TableFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--table",
        metavar="FILE",
        parser=path,
        help="A declared table (YAML), over all the grids that are read; may be repeated.",
        show_default="those of the grid files",
    ),
]


FigureFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--figure",
        metavar="FILE",
        parser=path,
        help="A declared figure (YAML), over all the grids that are read; may be repeated.",
        show_default="those of the grid files",
    ),
]


@app.command(
    short_help="Write the tables and figures.",
    epilog="Example: `orchestrate report --format tex --out tables --vs-paper`",
)
def report(
    db: DatabaseOption = "results.db",
    out: Annotated[Path, typer.Option(metavar="DIR", parser=path, help="Folder to write to.")] = Path("report"),
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="md, tex, html, csv, json or parquet; may be repeated.",
            show_default="all but parquet",
        ),
    ] = None,
    grid: GridNames = None,
    selection: SelectionRule = None,
    vs_paper: Annotated[bool, typer.Option("--vs-paper", help="Compare every number with the published one.")] = False,
    table: TableFiles = None,
    figure: FigureFiles = None,
) -> None:
    """Write the tables and figures from the database: Markdown, LaTeX, one HTML page, CSV, JSON, PDF, SVG, PNG.

    Files of earlier reports stay in the folder; those that are not of this report are listed at the end.
    """
    from orchestrator.text import counted
    from reports import earlier_files, write_report

    options: dict[str, Any] = {
        "formats": formats or None,
        "grids": grid,
        "selection": selection,
        "vs_paper": vs_paper,
    }
    with opened(db, numbers=True) as database:
        options |= {"tables": declared("table", table, database), "figures": declared("figure", figure, database)}
        written = write_report(database, out, **options)
        typer.echo(f"wrote {counted(len(written), 'file')} to {out}/")
        for file in written:
            typer.echo(f"  {file}")
        if earlier := earlier_files(out, written):
            typer.echo("not of this report, but of earlier ones into the same folder (--out names another):")
            for file in earlier:
                typer.echo(f"  {file}")


@app.command(
    short_help="Group the failures by cause, with the command that tries again.",
    epilog="Example: `orchestrate triage --grid table1`",
)
def triage(db: DatabaseOption = "results.db", grid: GridNames = None, as_json: AsJson = False) -> None:
    """Group the failures by cause, with one excerpt each and the command that tries them again."""
    from orchestrator.console import print_triage, triage_of

    with opened(db) as database:
        failures = triage_of(database, grid, database_option(db, database))
        if as_json:
            typer.echo(json.dumps(failures))
        else:
            print_triage(failures)


@app.command(
    short_help="Say where a printed number comes from.",
    epilog="Example: `orchestrate explain table1:resnet18/pskd/top1`",
)
def explain(
    cell: Annotated[str, typer.Argument(metavar="TABLE:CELL", help="A number, as the LaTeX comments name it.")],
    db: DatabaseOption = "results.db",
    grid: GridNames = None,
    selection: SelectionRule = None,
    table: TableFiles = None,
    figure: FigureFiles = None,
) -> None:
    """Say where a number of a table or a figure comes from: grids, selection rule, trials, seeds, epoch, commit,
    device and log.

    Give the --grid and --selection that `report` was given: the same place may hold another number without them.
    """
    from reports import explain as explain_cell

    with opened(db, numbers=True) as database:
        tables, figures = declared("table", table, database), declared("figure", figure, database)
        origin = explain_cell(database, cell, grids=grid, selection=selection, tables=tables, figures=figures)
        typer.echo(origin)


@app.command(
    short_help="Check every number of a LaTeX file against the database.",
    epilog="Example: `orchestrate verify paper.tex`",
)
def verify(
    paper: Annotated[
        Path, typer.Argument(metavar="FILE", parser=path, help="A LaTeX file that holds or includes our tables.")
    ],
    db: DatabaseOption = "results.db",
    table: TableFiles = None,
) -> None:
    """Recompute every number of ours in a LaTeX file and in the files that it reads, and fail on one that is stale,
    edited, contradictory or in a row of another name, and on a command that reads a file and cannot be followed.

    Checked: every cell with the comment that `report` wrote behind it, also an empty one; the labels of their rows; and
    that every file of LaTeX is there. Not checked: numbers without our comment (rows and columns may go, and others be
    added), pictures, headings, footnotes and other text. A caption that differs from the database's is noted.
    """
    from orchestrator.text import counted
    from reports import verify as verify_paper

    with opened(db, numbers=True) as database:
        tables = declared("table", table, database)
        outcome = verify_paper(database, paper, tables=tables)
        for line in (*outcome.problems, *outcome.notes):
            typer.echo(str(line), err=True)
        what = f"{counted(outcome.numbers, 'number')} in {counted(outcome.files, 'file')}"
        typer.echo(
            f"{paper}: {counted(len(outcome.problems), 'problem')} in {what}"
            if outcome.problems
            else f"{paper}: {what}: all current, in rows of their names. Not checked: captions, headings, other "
            "text, pictures, and numbers without our comment"
        )
        raise typer.Exit(SOME_FAILED if outcome.problems else DONE)


@app.command(
    short_help="Write the database as tidy files.", epilog="Example: `orchestrate export --format parquet --out data`"
)
def export(
    db: DatabaseOption = "results.db",
    out: Annotated[Path, typer.Option(metavar="DIR", parser=path, help="Folder to write to.")] = Path("export"),
    format: Annotated[str, typer.Option(metavar="FORMAT", help="csv or parquet.")] = "csv",
    grid: GridNames = None,
) -> None:
    """Write the database as tidy files: grids, trials, attempts, parts, epochs, losses and evaluations.

    The column `epoch` counts from 1. With `--grid` the files have that grid and its trials alone.
    """
    from reports import export as export_data

    with opened(db, numbers=True) as database:
        for file in export_data(database, out, format, grid or None):
            typer.echo(str(file))


def declared(kind: Literal["table", "figure"], files: list[Path] | None, database: Database) -> list[dict[str, Any]]:
    """Return the tables or figures in files of their own; raises GridError with all the problems of all of them."""
    if not files:
        return []
    from orchestrator.grid.declarations import load_declared

    return load_declared(kind, files, [part.name for part in database.parts() if part.kind == "metric"])
