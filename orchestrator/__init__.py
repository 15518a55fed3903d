"""Turn an ablation grid into trials on Ray, and keep what they show in a results database."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.database import open_database
    from orchestrator.errors import OrchestrateError
    from orchestrator.grid import load_grid
    from orchestrator.run import run_grid, time_grid
    from orchestrator.scheduler import Observer
    from reports import open_results

__all__ = ["Observer", "OrchestrateError", "load_grid", "open_database", "open_results", "run_grid", "time_grid"]

# Imported on first use: the command line must not wait for what it does not need. No room of this package knows the
# reports (`setup.cfg`); this is the front door of both.
_HOMES = {
    "Observer": "orchestrator.scheduler",
    "OrchestrateError": "orchestrator.errors",
    "load_grid": "orchestrator.grid",
    "open_database": "orchestrator.database",
    "open_results": "reports",
    "run_grid": "orchestrator.run",
    "time_grid": "orchestrator.run",
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_HOMES[name]), name)
