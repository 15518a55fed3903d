"""List the rules that decide trials while a grid runs, and apply them.

A rule is a function of a grid, as its file gives it, and of the database. It returns every trial that the grid has by
now, those of earlier stages among them, so that a run, a plan and a run on another machine come to the same trials.
A rule reads; what it wants to keep is written by its `record`, which a run calls before it goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from orchestrator.stages.decision import Decision
from orchestrator.stages.sequential import add_seeds
from orchestrator.stages.tuning import tune

if TYPE_CHECKING:
    from orchestrator.database import Database
    from orchestrator.grid import Grid

Rule = Callable[["Grid", "Database | None"], Decision]

# Every rule gets the grid that the one before it returned, and does nothing where the grid does not ask for it.
RULES: tuple[Rule, ...] = (tune, add_seeds)


def decide(grid: Grid, database: Database | None) -> Decision:
    """Return what the rules of a grid's file say by now; without a database, what its first stage has.

    Raises the rules' own errors, such as one for a rule that was changed after its first stage.
    """
    decisions = []
    for rule in RULES:
        decisions.append(rule(grid, database))
        grid = decisions[-1].grid
    writes = [each.record for each in decisions if each.record is not None]

    def record(target: Database) -> None:
        for write in writes:
            write(target)

    return Decision(
        grid,
        tuple(line for each in decisions for line in each.news),
        tuple(line for each in decisions for line in each.outlook),
        sum(each.may_come for each in decisions),
        record if writes else None,
    )
