"""The command that checks parts of one's own before a grid relies on them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.app import app, location, tell
from orchestrator.exit_codes import BAD_INPUT, DONE, SOME_FAILED
from orchestrator.text import counted

if TYPE_CHECKING:
    from trainer.registry import Part


@app.command(
    short_help="Check methods, networks, data sets and metrics of one's own.",
    epilog="Example: `orchestrate check my_parts.py`",
)
def check(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...", parser=location, help="Files or modules, as `plugins:` of a grid lists them."
        ),
    ],
    data_root: Annotated[
        str,
        typer.Option(
            metavar="DIR", parser=location, envvar="ORCHESTRATE_DATA", help="The folder that holds the data sets."
        ),
    ] = "data",
) -> None:
    """Check methods, networks, data sets and metrics of one's own, in about a minute.

    Methods and networks train for two short epochs on digits: that finds terms without gradient, state that does not
    resume, parts that depend on others or ignore what they are given. A line for each check says what to do. The exit
    code is 1 when something is wrong, and 2 when a file cannot be loaded or has no parts.
    """
    from trainer.plugins import load_plugins

    plugins = load_plugins(files, beside=Path())
    tell("note", (note for plugin in plugins for note in plugin.notes))
    parts = _parts_in({path for plugin in plugins for path in plugin.paths})
    if not parts:
        raise typer.Exit(BAD_INPUT)
    from trainer.checks import check_part

    wrong = 0
    for part in parts:
        for checked in check_part(part, Path(data_root)):
            wrong += checked.problem is not None
            mark, reason = ("ok   ", "") if checked.problem is None else ("WRONG", f": {checked.problem}")
            typer.echo(f"{mark}  {part.kind} {part.name}: {checked.promise}{reason}")
    result = f"{counted(wrong, 'problem')} found" if wrong else "nothing wrong"
    typer.echo(f"{counted(len(parts), 'part')} checked: {result}")
    raise typer.Exit(SOME_FAILED if wrong else DONE)


def _parts_in(paths: set[Path]) -> list[Part[Any]]:
    from trainer.parts import REGISTRIES

    return [part for registry in REGISTRIES for part in registry.values() if part.file.resolve() in paths]
