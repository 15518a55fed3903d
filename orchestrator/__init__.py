"""Turn an ablation grid into trials on Ray, and keep what they show in a results database."""

from typing import TYPE_CHECKING

from trainer.lazy import on_first_use

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
if not TYPE_CHECKING:
    __getattr__ = on_first_use(
        __name__,
        {
            "orchestrator.database": ("open_database",),
            "orchestrator.errors": ("OrchestrateError",),
            "orchestrator.grid": ("load_grid",),
            "orchestrator.run": ("run_grid", "time_grid"),
            "orchestrator.scheduler": ("Observer",),
            "reports": ("open_results",),
        },
    )
