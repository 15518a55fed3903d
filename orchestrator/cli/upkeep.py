"""The commands that look after the database and the machine."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from orchestrator.cli.app import DatabaseOption, DataRoot, app, errors
from orchestrator.exit_codes import DONE, SOME_FAILED


@app.command(
    short_help="Bring a database of an earlier version up to date.",
    epilog="Example: `orchestrate migrate --db results.db`",
)
def migrate(db: DatabaseOption = "results.db") -> None:
    """Bring a database of an earlier version up to date, after making a backup copy. `run` does the same."""
    with errors():
        from orchestrator.launch import driven

        with driven(db, "(migration)", create=False) as (database, _):
            typer.echo(f"{database.where} is up to date")


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
) -> None:
    """Check this machine: versions, devices, storage and data sets; with `--resume`, that resuming changes nothing."""
    with errors():
        from orchestrator.doctor import check_machine, check_resume

        raise typer.Exit(DONE if (check_resume(device=device) if resume else check_machine(data_root)) else SOME_FAILED)
