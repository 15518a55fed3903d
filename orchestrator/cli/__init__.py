"""Command line. Every command imports the modules that it needs when it runs, so that help and status are instant."""

from __future__ import annotations

import os
import sys

import typer

# The order of imports is the order of commands in the help.
from orchestrator.cli import run, check, seeds, results, compare, score, query, reference, maintenance  # isort: skip
from orchestrator.cli.app import OutputError, Stdout, app, stop_printing
from orchestrator.exit_codes import DONE

__all__ = ["app", "check", "compare", "main", "maintenance", "query", "reference", "results", "run", "score", "seeds"]


def main() -> None:
    """Run the command line; every error that a person can mend ends as one message and an exit code."""
    # sys.stdout is None where a shell has closed it (`>&-`).
    sys.stdout = Stdout(sys.stdout or open(os.devnull, "w"))  # noqa: SIM115
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        stop_printing()
        raise SystemExit(DONE) from None
    except OutputError as error:
        stop_printing()
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(error.exit_code) from None
