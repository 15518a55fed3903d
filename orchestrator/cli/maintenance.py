"""Commands that look after the database and the machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from orchestrator.cli.app import DatabaseOption, DataRoot, app, database_before, database_location, path, tell
from orchestrator.exit_codes import DONE, SOME_FAILED

if TYPE_CHECKING:
    from orchestrator.database import Database, DatabaseError


@app.command(
    short_help="Bring a database of an earlier version up to date.",
    epilog="Example: `orchestrate migrate --db results.db`",
)
def migrate(db: DatabaseOption = "results.db") -> None:
    """Bring a database of an earlier version up to date, after making a backup copy. `run` does the same.

    The tables are compared with what they should be, and of a file every page is checked.
    """
    from orchestrator.console import terminal
    from orchestrator.run import driven

    with driven(db, "(migration)", terminal(), create=False) as (database, _):
        if problems := database.damage():
            raise _damaged(database, problems)
        checked = "; its tables, rows and pages were checked" if database.path else "; its tables were checked"
        typer.echo(f"{database.where} is up to date{checked}")


@app.command(
    short_help="Copy the database into a file, also while a grid runs.",
    epilog="Example: `orchestrate backup /nas/results-2026-11-25.db`",
)
def backup(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", parser=path, help="The new file; one that exists is not overwritten.")
    ],
    db: DatabaseOption = "results.db",
) -> None:
    """Copy the whole database, as it is at one moment, into a new SQLite file, also while a grid runs.

    Of a PostgreSQL database the copy is a file as well: `status`, `report` and `export` read it with --db FILE. The
    copy's pages are checked. Checkpoints and logs are not in it.
    """
    from orchestrator.database import open_database
    from orchestrator.text import counted, size

    with open_database(db, readonly=True) as database:
        tell("warning", database.warnings)
        copied = database.back_up(file)
    held = ", ".join(counted(count, name) for name, count in copied.counts.items())
    typer.echo(f"{database.where} was copied to {copied.path}: {size(copied.size)}, {held}; the copy was checked")


@app.command(
    short_help="Put several databases together in a new file.",
    epilog="Example: `orchestrate merge all.db laptop.db server.db`, then `orchestrate report --db all.db`",
)
def merge(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", parser=path, help="The new file; one that exists is not overwritten.")
    ],
    databases: Annotated[
        list[str],
        typer.Argument(metavar="DB...", parser=database_location, help="The databases, each a path or a URL."),
    ],
) -> None:
    """Put the grids, trials and results of several databases together in a new SQLite file, for one report on all.

    A trial that several have is one there: the first that is done, or the one with most epochs where none is. A grid
    that several have gets the trials of all, and keeps the first one's file. The databases stay as they are.
    """
    from orchestrator.database import open_database
    from orchestrator.text import counted

    first, *further = databases
    with open_database(first, readonly=True) as database:
        database.back_up(file)
    try:
        with open_database(file) as target:
            for other in further:
                with open_database(other, readonly=True) as database:
                    added = target.add(database)
                shared = f"; {counted(added.shared, 'trial')} in both" if added.shared else ""
                what = f"{counted(added.grids, 'grid')}, {counted(added.trials, 'trial')}"
                typer.echo(f"added from {database.where}: {what}, {counted(added.attempts, 'attempt')}{shared}")
                if added.attempts_left:
                    left = f"{counted(added.attempts_left, 'attempt')} with {counted(added.epochs_left, 'epoch')}"
                    typer.echo(f"not added from {database.where}: {left}, of trials that were there already")
                for name in added.other_text:
                    two = f"the grid {name} of {database.where} comes from another file than that of {first}"
                    typer.echo(f"warning: {two}: it has the trials of both, and the text of the first", err=True)
                for name in added.other_looks:
                    two = f"looks of the grid {name} in {database.where} do not go on from those already there"
                    typer.echo(f"warning: {two} (another rule, other rows or other results): left out", err=True)
    except BaseException:
        # Half of what was asked for looks like the whole of it.
        file.unlink(missing_ok=True)
        raise
    typer.echo(f"{file} has them all")


@app.command(
    short_help="Remove a grid from the database, after a backup.",
    epilog="Example: `orchestrate forget quickstart --trials`",
)
def forget(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The grid's name, as `status` shows it.")],
    trials: Annotated[
        bool, typer.Option("--trials", help="Remove as well its trials that no other grid has, with their results.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    db: DatabaseOption = "results.db",
) -> None:
    """Remove a grid from the database: its name, its file's text and its list of trials, so that no table has it.

    Its trials and their results stay, for other grids and for a later run of the same file, unless `--trials` is given;
    a trial that another grid has stays anyway. With the trials go their checkpoints, as far as they are here;
    logs stay. The database is copied first. A grid that is running is refused.
    """
    from orchestrator.console import terminal
    from orchestrator.database import DatabaseError
    from orchestrator.forgetting import backup_name, checkpoints_of, outline
    from orchestrator.run import driven

    with driven(db, name, terminal(), create=False) as (database, _):
        database.release_stale()
        extent = database.extent(name)
        checkpoints, notes = checkpoints_of(database, extent) if trials else ([], [])
        for line in (*outline(name, extent, checkpoints, trials=trials), *notes):
            typer.echo(line)
        if not yes:
            if not sys.stdin.isatty():
                raise DatabaseError("nothing was removed: nobody can be asked here; give --yes")
            if not typer.confirm("Remove this?"):
                typer.echo("nothing was removed")
                raise typer.Exit(DONE)
        copied = database.back_up(backup_name(database, name))
        # Meanwhile another driver may have taken a trial: its checkpoint stays.
        gone = database.forget(name, trials=trials)
        tell("warning", (line for leftovers in checkpoints for line in leftovers.remove(gone)))
        typer.echo(f"{name} is removed from {database.where}; the database of before is {copied.path}")


def _damaged(database: Database, problems: list[str]) -> DatabaseError:
    from orchestrator.database import DatabaseError

    return DatabaseError(
        f"{database.where} is damaged: {'; '.join(problems)}. Restore it from a backup copy, or save what can be read "
        "with `sqlite3 FILE .recover`"
    )


@app.command(
    short_help="Check this machine: versions, devices, storage and data sets.",
    epilog="Example: `orchestrate doctor --resume`",
)
def doctor(
    data_root: DataRoot = "data",
    resume: Annotated[
        bool, typer.Option("--resume", help="Show that a killed and resumed training gives the same bits.")
    ] = False,
    device: Annotated[
        Literal["cpu", "cuda"], typer.Option(help="Where --resume trains; on a GPU by deterministic algorithms.")
    ] = "cpu",
    db: Annotated[
        str | None,
        typer.Option(
            "--db",
            metavar="FILE|URL",
            parser=database_location,
            callback=database_before,
            help="Check this results database instead: every page of a file.",
        ),
    ] = None,
) -> None:
    """Check this machine: versions, devices, storage and data sets; with `--resume`, that resuming changes nothing;
    with `--db`, that a database is whole."""
    if db is not None:
        from orchestrator.database import DatabaseError, open_database

        if "://" not in db and not Path(db).exists():
            raise DatabaseError(f"there is no {db}, so nothing was checked; give --db a results database that is there")
        with open_database(db, readonly=True) as database:
            tell("warning", database.warnings)
            if problems := [*database.damage(), *database.broken_rows()]:
                raise _damaged(database, problems)
            checked = "pages, references, tables and the values of every row" if database.path else "tables"
            typer.echo(f"{database.where} is whole: its {checked} were checked")
        raise typer.Exit(DONE)
    from orchestrator.console import check_machine, check_resume

    raise typer.Exit(DONE if (check_resume(device=device) if resume else check_machine(data_root)) else SOME_FAILED)
