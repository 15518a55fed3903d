"""Screens: grids, plans and runs on the terminal."""

from typing import TYPE_CHECKING

from trainer.lazy import on_first_use

if TYPE_CHECKING:
    from orchestrator.console.doctor import check_machine, check_resume
    from orchestrator.console.plan_view import print_plan
    from orchestrator.console.query import print_rows, print_schema
    from orchestrator.console.run_view import run_display, terminal
    from orchestrator.console.seeds_view import print_seeds
    from orchestrator.console.status import add_changes, print_status, status_of
    from orchestrator.console.triage import print_triage, triage_of
    from orchestrator.console.watch import watch_grids

__all__ = [
    "add_changes",
    "check_machine",
    "check_resume",
    "print_plan",
    "print_rows",
    "print_schema",
    "print_seeds",
    "print_status",
    "print_triage",
    "run_display",
    "status_of",
    "terminal",
    "triage_of",
    "watch_grids",
]

# Imported on first use, so that the command line starts at once.
if not TYPE_CHECKING:
    __getattr__ = on_first_use(
        __name__,
        {
            ".doctor": ("check_machine", "check_resume"),
            ".plan_view": ("print_plan",),
            ".query": ("print_rows", "print_schema"),
            ".run_view": ("run_display", "terminal"),
            ".seeds_view": ("print_seeds",),
            ".status": ("add_changes", "print_status", "status_of"),
            ".triage": ("print_triage", "triage_of"),
            ".watch": ("watch_grids",),
        },
    )
