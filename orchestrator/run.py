"""Running a grid from the command line: claims, data, the trials, and what other drivers have of the same grid."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.scheduler import SILENT, Audience, make_ready, without_checkpoint

if TYPE_CHECKING:
    from orchestrator.database import Database, Driver
    from orchestrator.grid import Grid, Trial
    from orchestrator.planning import Plan
    from orchestrator.scheduler import Observer, RunOptions

# Between two looks at what other drivers do.
LOOK_SECONDS = 5.0
# A driver whose connection broke takes this long, at most, to be back with its claims.
GRACE_SECONDS = 60.0


@dataclass(frozen=True)
class Outcome:
    """Counts of the trials that failed, that another driver has, and that a fault of the machine left."""

    failed: int
    elsewhere: int
    left: int = 0


@contextmanager
def driven(db: str, grid: str, *, create: bool, audience: Audience = SILENT) -> Iterator[tuple[Database, Driver]]:
    """The database, of the present version, and its lock; says what was migrated, and what is doubtful about it."""
    from orchestrator.database import driver_lock, open_database

    with open_database(db, create=create, migrate=True) as database, driver_lock(database, grid=grid) as driver:
        database.tell = audience.warn
        if database.migrated:
            audience.say(database.migrated)
        for line in database.warnings:
            audience.warn(f"warning: {line}")
        yield database, driver


def run_options(
    grid: str, db: str, data_root: str, address: str | None, checkpoints: str | None = None, **more: Any
) -> RunOptions:
    """Where and how to run; checkpoints and logs lie beside the database file unless a place is given."""
    from orchestrator.provenance import code_provenance
    from orchestrator.scheduler import RunOptions, cluster_address
    from orchestrator.storage import absolute

    address = cluster_address(address)
    # Beside the database file, so that the two are found, moved and removed together.
    beside = Path("results.db") if "://" in db else Path(db)
    # What another run must be told to find the same, from whatever folder; see `orchestrator.console.triage.rerun`.
    places = {"--data-root": absolute(data_root), "--address": address}
    folder = checkpoints or beside.with_name(f"{beside.stem}-checkpoints")
    if checkpoints or "://" in db:
        places["--checkpoints"] = absolute(folder)
    return RunOptions(
        grid=grid,
        data_root=data_root,
        checkpoints=folder,
        logs=beside.with_name(f"{beside.stem}-logs"),
        environment=code_provenance() | {"places": places},
        address=address,
        **more,
    )


def plan_of(grid: Grid, database: Database | None) -> Plan:
    """What running a grid would do."""
    from orchestrator.planning import make_plan

    return make_plan(grid, database.states([trial.key for trial in grid.trials]) if database is not None else {})


def run_grid(
    grid: Grid | str | Path,
    db: str = "results.db",
    options: RunOptions | None = None,
    *,
    retry_failed: bool = False,
    wait: bool = True,
    audience: Audience = SILENT,
) -> Outcome:
    """Train every trial of a grid, or of a grid's file, that is not done yet and that no other driver has.

    With `wait`, the others' trials are waited for, and taken over when their driver gives them back or dies. Without
    `options`, data lies in `data`, and Ray is a private one on this machine. Nothing is printed; `audience` hears what
    happens.

    Raises as `orchestrator.scheduler.trials.run_trials`; Busy; StorageError and DataError before Ray starts.
    """
    if isinstance(grid, (str, Path)):
        from orchestrator.grid import load_grid

        grid = load_grid(grid)
    options = options or run_options(grid.name, db, "data", None)
    with driven(db, grid.name, create=True, audience=audience) as (database, driver):
        database.release_stale()
        save_grid(database, grid, audience)
        if retry_failed:
            database.retry([trial.key for trial in grid.trials])
        plan = plan_of(grid, database)
        audience.plan(plan)
        if line := without_checkpoint(database, plan, options):
            audience.warn(f"warning: {line}")
        if unfinished := [entry.trial for entry in plan.entries if entry.status not in ("done", "failed")]:
            make_ready(unfinished, options, audience)
        tried: set[str] = set()
        told: set[int] = set()
        shared = False
        ownerless_since: float | None = None
        while True:
            # In this order: when nobody else has any, the plan shows what the others made of theirs.
            others = _others(database, grid, driver)
            plan = plan_of(grid, database)
            wanted = [entry.trial for entry in plan.pending if entry.trial.key not in tried]
            claimed = database.claim([trial.key for trial in wanted], driver) if wanted else set()
            if set(others) != told:
                told, shared = set(others), True
                audience.say(_elsewhere(database, others, wait))
            if claimed:
                trials = [trial for trial in wanted if trial.key in claimed]
                with _watched(database, driver, grid.name, trials, plan, audience) as observer:
                    from orchestrator.scheduler import run_trials

                    run_trials(database, trials, options, observer)
                tried |= claimed
                continue
            left = len(wanted) + others.total()
            if not left or not wait:
                break
            if not wanted:
                ownerless_since = None
            elif ownerless_since is None:
                ownerless_since = time.monotonic()
            elif time.monotonic() - ownerless_since > GRACE_SECONDS:
                database.release_stale()
            time.sleep(LOOK_SECONDS)
        if shared:
            audience.plan(plan)
        return Outcome(plan.count("failed"), left, sum(entry.trial.key in tried for entry in plan.pending))


@contextmanager
def _watched(
    database: Database, driver: Driver, grid: str, trials: Sequence[Trial], plan: Plan, audience: Audience
) -> Iterator[Observer]:
    """Yield the observer of the trials while they run; afterwards, what is left of this driver's claims is free."""
    from orchestrator.database import DatabaseError

    try:
        from orchestrator.planning import as_measured

        configs = {trial.name: trial.config.model_dump(mode="json") for trial in trials}
        known = as_measured(database.measured())
        with audience.watch(grid, configs, known, plan) as observer, _told_to(database, observer):
            yield observer
    except BaseException:
        database.hurry()
        try:
            database.release(driver)
        except DatabaseError as error:
            audience.warn(f"warning: its trials are not given back yet, the next run does that: {error}")
        raise
    database.release(driver)


@contextmanager
def _told_to(database: Database, observer: Observer) -> Iterator[None]:
    """Let the audience of a run hear what the database says."""
    before, database.tell = database.tell, observer.note
    try:
        yield
    finally:
        database.tell = before


def _others(database: Database, grid: Grid, driver: Driver) -> Counter[int]:
    """How many trials of a grid each living driver has, other than this one, by its token."""
    states = database.states([trial.key for trial in grid.trials]).values()
    return Counter(row.driver for row in states if row.driver not in (None, driver.token))


def _elsewhere(database: Database, others: Counter[int], wait: bool) -> str:
    """Who else trains how much of the grid, and what that means for this run."""
    if not others:
        return "the other run has ended or has none of this grid's trials any more"
    listed = "; ".join(sorted(f"{count:,} by {database.holder(token)}" for token, count in others.items()))
    meaning = "this run waits for it (--no-wait does not)" if wait else "this run leaves that to it"
    verb = "belongs" if others.total() == 1 else "belong"
    return f"{others.total():,} of this grid's trials {verb} to another run: {listed}; {meaning}"


def time_grid(
    grid: Grid, db: str, options: RunOptions, *, warm_up: int, epochs: int, audience: Audience = SILENT
) -> Outcome:
    """Measure epoch times, one trial of each configuration, alone on its device and in random order.

    Raises as `run_grid`.
    """
    from orchestrator.text import counted

    with driven(db, grid.name, create=True, audience=audience) as (database, _):
        database.release_stale()
        save_grid(database, grid, audience)
        trials = _one_seed_each(grid)
        make_ready(trials, options, audience)
        audience.say(f"timing {counted(len(trials), 'configuration')}, {warm_up} + {epochs} epochs each, one at a time")
        from orchestrator.scheduler import time_trials

        configs = {
            trial.name: trial.config.model_dump(mode="json") | {"epochs": min(warm_up + epochs, trial.config.epochs)}
            for trial in trials
        }
        with audience.watch(grid.name, configs, (), None) as observer, _told_to(database, observer):
            summary = time_trials(database, trials, options, observer, warm_up=warm_up, timed=epochs)
    return Outcome(len(summary.failed), 0)


def leaving(database: Database | None, grid: Grid) -> str | None:
    """What the database has of a grid that its file no longer lists, for the tables leave it out; None for nothing."""
    from orchestrator.text import counted

    if database is None:
        return None
    listed = {trial.key for trial in grid.trials}
    names = {key: name for key, name in database.grid_keys(grid.name) if key not in listed}
    begun = [names[key] for key, state in database.states(names).items() if state.epochs]
    if not begun:
        return None
    shown = ", ".join(begun[:3]) + (f" and {len(begun) - 3} more" if len(begun) > 3 else "")
    return (
        f"not in {grid.source} any more: {counted(len(begun), 'trial')} of grid {grid.name} with results ({shown}). "
        + ("It leaves the tables, and is" if len(begun) == 1 else "They leave the tables, and are")
        + " there again when the file has every value of before"
    )


def save_grid(database: Database, grid: Grid, audience: Audience = SILENT) -> None:
    """Store a grid and its trials; warns of those with results that are no longer of it."""
    from orchestrator.storage import absolute

    if line := leaving(database, grid):
        audience.warn(f"note: {line}")
    trials = [(trial.key, trial.config.model_dump(mode="json"), trial.name) for trial in grid.trials]
    database.save_grid(grid.name, absolute(grid.source), grid.text, grid.report, trials)


def _one_seed_each(grid: Grid) -> list[Trial]:
    """One trial of each configuration, whatever its seed, in random order: a drifting clock then favours none."""
    first: dict[str, Trial] = {}
    for trial in grid.trials:
        first.setdefault(trial.config.model_copy(update={"seed": 0}).key(), trial)
    return random.sample(list(first.values()), len(first))
