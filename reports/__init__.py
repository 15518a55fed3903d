"""Tables, figures and checks from the results database alone; nothing here loads the trainer."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from reports.errors import ReportError

if TYPE_CHECKING:
    from reports.checks.tracing import explain
    from reports.checks.verification import verify
    from reports.exporting import export
    from reports.notebook import open_results
    from reports.report import earlier_files, write_report, write_template

__all__ = [
    "ReportError",
    "compare",
    "earlier_files",
    "explain",
    "export",
    "open_results",
    "verify",
    "write_report",
    "write_template",
]

_HOMES = {
    "compare": "checks.comparing",
    "write_report": "report",
    "earlier_files": "report",
    "export": "exporting",
    "open_results": "notebook",
    "explain": "checks.tracing",
    "verify": "checks.verification",
    "write_template": "report",
}


# Imported on first use: pandas and matplotlib take a second that `orchestrate --help` need not wait for.
def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
