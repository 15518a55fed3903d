"""Compare a grid with what a database has of it, and store it there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.scheduler import Observer

if TYPE_CHECKING:
    from orchestrator.database import Database
    from orchestrator.grid import Grid
    from orchestrator.planning import Plan


def compared(plan: Plan, database: Database | None, data_root: str | Path, metrics: Sequence[str] = ()) -> Plan:
    """Return a plan that says which trials were trained by other code, or on other data, than there is here now.

    Data that is not here, or would take long to read, is not compared. `metrics` are the grid's own.
    """
    from orchestrator.identity import changes
    from orchestrator.planning import with_changes
    from orchestrator.provenance import Present

    begun = {entry.trial.key: entry.trial for entry in plan.entries if entry.epochs}
    if database is None or not begun:
        return plan
    recorded, present = database.origins(list(begun)), Present(data_root, metrics)
    changed, checked = {}, set()
    for key, origins in recorded.items():
        now = present.origin(begun[key].config)
        changed[key] = changes(origins, now)
        if now.data is not None and any(origin.data for origin in origins):
            checked.add(key)
    return with_changes(plan, changed, checked)


def plan_of(grid: Grid, database: Database | None) -> Plan:
    """Return the plan of running a grid."""
    from orchestrator.planning import make_plan

    return make_plan(grid, database.states([trial.key for trial in grid.trials]) if database is not None else {})


def leaving(database: Database | None, grid: Grid) -> str | None:
    """Return a line about trials that the grid's file no longer lists and the tables leave out; None for none."""
    from orchestrator.records import tuned_row_of
    from orchestrator.text import counted, shortlist

    if database is None:
        return None
    listed = {trial.key for trial in grid.trials}
    # Of a former winner the search says that it is none any more, and the file does not bring it back.
    names = {
        key: name
        for key, name in database.grid_keys(grid.name)
        if key not in listed and not (grid.tuning and tuned_row_of(name))
    }
    begun = [names[key] for key, state in database.states(list(names)).items() if state.epochs]
    if not begun:
        return None
    return (
        f"not in {grid.source} any more: {counted(len(begun), 'trial')} of grid {grid.name} with results "
        f"({shortlist(begun, 3)}). "
        + ("It leaves the tables, and is" if len(begun) == 1 else "They leave the tables, and are")
        + " there again when the file has every value of before"
    )


def unmeasured(database: Database | None, grid: Grid) -> list[str]:
    """Return a line for every metric of a grid that trials are done without: what is done is not measured again."""
    from orchestrator.text import counted

    if database is None or not grid.metrics:
        return []
    without = database.unmeasured([trial.key for trial in grid.trials], grid.metrics)
    return [
        f"{counted(count, 'trial')} of this grid {'is' if count == 1 else 'are'} done and did not measure {name}, "
        "which the grid did not ask for then: tables have a dash there, and `orchestrate score` fills it where "
        "probabilities are kept"
        for name, count in without.items()
        if count
    ]


def save_grid(database: Database, grid: Grid, observer: Observer) -> None:
    """Store a grid, its trials and their parts; warn of trials with results that are no longer of it."""
    from orchestrator.planning.parts import other_parts, part_rows
    from orchestrator.storage import absolute

    if line := leaving(database, grid):
        observer.warning(f"note: {line}")
    for line in other_parts(grid, database.parts()):
        observer.warning(f"warning: {line}")
    for line in unmeasured(database, grid):
        observer.warning(f"note: {line}")
    # Here and not with the first attempt: a table names what has no trial yet.
    database.record_parts(part_rows(grid))
    trials = [(trial.key, trial.config.model_dump(mode="json"), trial.name) for trial in grid.trials]
    database.save_grid(grid.name, absolute(grid.source), grid.text, grid.report, trials)
