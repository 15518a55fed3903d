"""Apply the rule that decides trials while a grid runs.

A rule is a function of a grid, as its file gives it, and of the database. It returns every trial that the grid has by
now, those of earlier stages among them, so that a run, a plan and a run on another machine come to the same trials.
A rule reads; what it wants to keep is written by its `record`, which a run calls before it goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.stages.decision import Decision
from orchestrator.stages.sequential import add_seeds
from orchestrator.stages.tuning import tune

if TYPE_CHECKING:
    from orchestrator.database import Database
    from orchestrator.grid import Grid


def decide(grid: Grid, database: Database | None) -> Decision:
    """Return what the rule of a grid's file says by now; without a database, what its first stage has.

    A file has one rule at most. Raises the rule's own errors, such as one for a rule that was changed after its first
    stage.
    """
    return add_seeds(grid, database) if grid.tuning is None else tune(grid, database)
