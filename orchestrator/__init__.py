"""Turn an ablation grid into trials on Ray, and keep what they show in a results database."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.database import open_database
    from orchestrator.grid import load_grid
    from orchestrator.run import run_grid

__all__ = ["load_grid", "open_database", "run_grid"]

# Imported on first use: the command line must not wait for what it does not need.
_HOMES = {
    "load_grid": "grid",
    "open_database": "database",
    "run_grid": "run",
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
