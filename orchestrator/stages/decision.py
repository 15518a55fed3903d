"""Define what a rule decides: the trials that a grid has by now, and what may follow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.database import Database
    from orchestrator.grid import Grid


@dataclass(frozen=True)
class Decision:
    """A grid with all the trials that are decided by now.

    `news` are lines about what is decided and not yet kept in the database. `outlook` are lines about what later stages
    may add, `may_come` the number of their trials at most. `record` writes what the rule keeps; running it a second
    time changes nothing.
    """

    grid: Grid
    news: tuple[str, ...] = ()
    outlook: tuple[str, ...] = ()
    may_come: int = 0
    record: Callable[[Database], None] | None = None
