"""The command that computes metrics on probabilities that are kept, without training."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.app import DatabaseOption, GridNames, app, location, tell
from orchestrator.exit_codes import DONE, SOME_FAILED


@app.command(
    short_help="Compute metrics afterwards, without training.",
    epilog="Example: `orchestrate score my_parts.py`, then `orchestrate report`",
)
def score(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE...",
            parser=location,
            help="Files or modules with metrics, as `plugins:` of a grid lists them.",
            show_default=False,
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            metavar="NAME",
            help="Only this metric of the files, or one that ships, such as e_aurc; may be repeated.",
            show_default="all metrics of the files",
        ),
    ] = None,
    db: DatabaseOption = "results.db",
    grid: GridNames = None,
) -> None:
    """Compute metrics on the probabilities that trials have kept (`outcomes: probabilities`), and store the values, so
    that tables have a column for them.

    Kept are the best epochs and the last one, on the test images, of the main classifier of each network. A value that
    is stored already stays. The exit code is 1 when a metric fails, and 3 while a run holds the database.
    """
    from orchestrator.console import terminal
    from orchestrator.console.triage import selected
    from orchestrator.run import driven
    from orchestrator.scoring import score as compute
    from orchestrator.scoring import wanted_metrics

    metrics, plugins = wanted_metrics(files or [], metric or [])
    tell("note", (note for plugin in plugins for note in plugin.notes))
    with driven(db, "(score)", terminal(), create=False) as (database, _):
        stored = [each.name for each in database.grids()]
        scored = compute(database, metrics, selected(stored, grid) if grid else None)
    for line in scored.lines():
        typer.echo(line)
    tell("error", scored.failures)
    raise typer.Exit(SOME_FAILED if scored.failures else DONE)
