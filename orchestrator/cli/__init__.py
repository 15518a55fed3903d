"""The command line. Every command imports what it needs when it runs, so that help and status are instant."""

from __future__ import annotations

import sys

# In the order of the help.
from orchestrator.cli import running, reading, upkeep  # isort: skip
from orchestrator.cli.app import DONE, app, stop_printing

__all__ = ["app", "main", "reading", "running", "upkeep"]


def main() -> None:
    """Run the command line; every error a person can mend ends as one message and an exit code."""
    try:
        app()
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            stop_printing()
            raise SystemExit(DONE) from None
