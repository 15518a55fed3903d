"""Run a grid: claims, data, the trials, and what other drivers have of the same grid.

Nothing here prints: an `Observer` hears what there is to say.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.grid_records import compared, plan_of, save_grid
from orchestrator.scheduler import Batch, Observer, make_ready, refuse_here, without_checkpoint
from orchestrator.stages import counted_as_draws, decide

if TYPE_CHECKING:
    from orchestrator.database import Database, Driver
    from orchestrator.grid import Grid, Trial
    from orchestrator.planning import Plan
    from orchestrator.scheduler import RunOptions

# How often, in seconds, to poll other drivers.
POLL_SECONDS = 5.0
# Time, in seconds, that a disconnected driver has to reconnect before its trials are released.
GRACE_SECONDS = 60.0


@dataclass(frozen=True)
class Outcome:
    """Counts of the trials that failed, that another driver has, and that a fault of the machine left."""

    failed: int
    elsewhere: int
    left: int = 0


@contextmanager
def driven(db: str | Path, grid: str, observer: Observer, *, create: bool) -> Iterator[tuple[Database, Driver]]:
    """Open the database, migrate it to the present version and hold its lock; the observer hears what is doubtful."""
    from orchestrator.database import driver_lock, open_database

    with open_database(db, create=create, migrate=True) as database, driver_lock(database, grid=grid) as driver:
        database.tell = observer.warning
        if database.migrated:
            observer.note(database.migrated)
        for line in database.warnings:
            observer.warning(f"warning: {line}")
        yield database, driver


def run_options(
    grid: str,
    db: str | Path,
    data_root: str | Path = "data",
    address: str | None = None,
    checkpoints: str | Path | None = None,
    given: Mapping[str, Any] | None = None,
    **more: Any,
) -> RunOptions:
    """Say where and how to run; checkpoints and logs lie beside the database file unless a place is given.

    `given` are the settings of the grid (`--set`), which another run of its file needs as well.
    """
    from orchestrator.provenance import code_provenance
    from orchestrator.scheduler import RunOptions, cluster_address
    from orchestrator.storage import absolute

    address = cluster_address(address)
    # Beside the database file, so that one who finds, moves or removes the file has both.
    on_server = "://" in str(db)
    beside = _beside(db)
    # Options that another run needs to find the same data from any folder; see `orchestrator.console.triage.rerun`.
    places: dict[str, Any] = {"--data-root": absolute(data_root), "--address": address}
    if given:
        places["--set"] = [f"{name}={json.dumps(value)}" for name, value in given.items()]
    folder = checkpoints or checkpoints_beside(db)
    if checkpoints or on_server:
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


def _beside(db: str | Path) -> Path:
    return Path("results.db") if "://" in str(db) else Path(db)


def checkpoints_beside(db: str | Path) -> Path:
    """Return the folder of the checkpoints where none was given."""
    return _beside(db).with_name(f"{_beside(db).stem}-checkpoints")


def run_grid(
    grid: Grid | str | Path,
    db: str | Path = "results.db",
    data_root: str | Path = "data",
    *,
    observer: Observer | None = None,
    address: str | None = None,
    checkpoints: str | Path | None = None,
    retry_failed: bool = False,
    order: str | None = None,
    retrain: bool = False,
    wait: bool = True,
    **options: Any,
) -> Outcome:
    """Train every trial of a grid, or of a grid's file, that is not done yet and that no other driver has.

    `db` is an SQLite file or a PostgreSQL URL, `data_root` and `checkpoints` are folders or URLs, `address` is that of
    a Ray cluster (None: a private Ray on this machine). `order` is `depth` or `breadth`, by default the grid's: the
    order of the file, or the first seed of every cell first, then the second. With `wait`, the others' trials are
    waited for, and taken over when their driver gives them back or dies. `retrain` trains those anew that were trained
    by other code, or on other data, than there is now. `options` are further fields of
    `orchestrator.scheduler.RunOptions`. Nothing is printed; `observer` hears what happens. A failed trial is counted in
    the outcome and raises nothing.

    Raises as `orchestrator.scheduler.trials.run_trials`; Busy; GridError, StorageError, DataError and TrackerError
    before Ray starts.
    """
    from orchestrator.grid import load_grid
    from orchestrator.planning import grid_notes
    from orchestrator.planning.parts import ready_parts
    from orchestrator.scheduler import check_trackers

    observer = observer or Observer()
    check_trackers(options.get("trackers", ()))
    if isinstance(grid, (str, Path)):
        grid = load_grid(grid)
    ready_parts(grid)
    settings = run_options(
        grid.name,
        db,
        data_root,
        address,
        checkpoints,
        grid.settings,
        plugins=grid.plugins,
        metrics=grid.metrics,
        outcomes=grid.outcomes,
        **options,
    )
    file, order = grid, order or grid.order
    rank = _ranks(grid, order)
    with driven(db, grid.name, observer, create=True) as (database, driver), ExitStack() as ray:
        database.release_stale()
        if retry_failed:
            # Before anything is decided by their failure.
            database.retry([trial.key for trial in decide(file, database).grid.trials])
        grid = _staged(database, file, None, observer)
        rank = _ranks(grid, order)
        for plugin in grid.plugins:
            for note in plugin.notes:
                observer.warning(f"warning: {note}")
        plan = compared(plan_of(grid, database), database, data_root, grid.metrics)
        if retrain and (outdated := [entry.trial for entry in plan.entries if entry.changes]):
            _retrain(database, outdated, settings, observer)
            plan = compared(plan_of(grid, database), database, data_root, grid.metrics)
        observer.planned(plan)
        if plan.pending:
            for fact in grid_notes(grid):
                observer.warning(f"note: {fact}")
        if line := without_checkpoint(database, plan, settings):
            observer.warning(f"warning: {line}")
        refuse_here([entry.trial for entry in plan.pending], settings)
        if unfinished := [entry.trial for entry in plan.entries if entry.status not in ("done", "failed")]:
            make_ready(unfinished, settings, observer)
        tried: set[str] = set()
        announced: set[int] = set()
        shared = False
        ownerless_since: float | None = None
        while True:
            if (grown := _staged(database, file, grid, observer)) != grid:
                more, grid, rank = grown.trials != grid.trials, grown, _ranks(grown, order)
                if more:
                    observer.planned(plan_of(grid, database))
            # Count the other drivers' trials before planning, so that a trial they finish in between appears as done.
            by_driver = _others(database, grid, driver)
            plan = plan_of(grid, database)
            wanted = [entry.trial for entry in plan.pending if entry.trial.key not in tried]
            wanted.sort(key=lambda trial: rank[trial.key])
            claimed = database.claim([trial.key for trial in wanted], driver) if wanted else set()
            if set(by_driver) != announced:
                announced, shared = set(by_driver), True
                observer.note(_elsewhere(database, by_driver, wait))
            if claimed:
                trials = [trial for trial in wanted if trial.key in claimed]
                from orchestrator.scheduler import keep_ray, run_trials

                # Until another driver has to be waited for: the next stage's trials start at once.
                ray.enter_context(keep_ray())
                with _watched(database, driver, grid.name, trials, plan, observer) as listener:
                    run_trials(database, trials, settings, listener)
                tried |= claimed
                continue
            left = len(wanted) + by_driver.total()
            if not left or not wait:
                break
            if not wanted:
                ownerless_since = None
            elif ownerless_since is None:
                ownerless_since = time.monotonic()
            elif time.monotonic() - ownerless_since > GRACE_SECONDS:
                database.release_stale()
            ray.close()
            time.sleep(POLL_SECONDS)
        if shared:
            observer.planned(plan)
        failed = plan.count("failed") - counted_as_draws(grid, plan)
        return Outcome(failed, left, sum(entry.trial.key in tried for entry in plan.pending))


def _staged(database: Database, file: Grid, present: Grid | None, observer: Observer) -> Grid:
    """Return a grid's file with the trials that its results call for by now; what its rules decide is announced.

    The grid is stored where it is another one than at `present`, and what its rules want to keep after it.
    """
    decision = decide(file, database)
    if decision.grid != present:
        save_grid(database, decision.grid, observer)
    if decision.record is not None:
        decision.record(database)
    for line in decision.news:
        observer.note(line)
    return decision.grid


def _retrain(database: Database, trials: Sequence[Trial], options: RunOptions, observer: Observer) -> None:
    """Have trials trained from their first epoch; their attempts and epochs stay in the database, superseded."""
    from orchestrator.storage import is_url, remove_checkpoint
    from orchestrator.text import counted

    states = database.states([trial.key for trial in trials])
    # Another driver's trial keeps the checkpoint that it goes on from.
    trials = [trial for trial in trials if states[trial.key].driver is None]
    # Before the database says that they are pending: a trial must not go on from what other code has trained.
    for trial in trials:
        remove_checkpoint(options.checkpoint(trial.key))
    count = database.retrain([trial.key for trial in trials])
    if options.address is not None and not is_url(options.checkpoints):
        observer.warning(
            f"warning: checkpoints of these trials are removed from {options.checkpoints} as this machine sees it; "
            "where the nodes have folders of their own, remove them there"
        )
    observer.note(
        f"{counted(count, 'trial')} to train anew, from the first epoch; what was trained before stays in the "
        "database, superseded"
    )


@contextmanager
def _watched(
    database: Database, driver: Driver, grid: str, trials: Sequence[Trial], plan: Plan, observer: Observer
) -> Iterator[Observer]:
    """Yield who hears of the trials while they run; afterwards, what is left of this driver's claims is free."""
    from orchestrator.database import DatabaseError

    try:
        from orchestrator.planning import as_measured

        configs = {trial.name: trial.config.model_dump(mode="json") for trial in trials}
        with _listening(database, observer, Batch(grid, configs, as_measured(database.measured()), plan)) as listener:
            yield listener
    except BaseException:
        database.hurry()
        try:
            database.release(driver)
        except DatabaseError as error:
            observer.warning(f"warning: its trials are not given back yet, the next run does that: {error}")
        raise
    database.release(driver)


@contextmanager
def _listening(database: Database, observer: Observer, batch: Batch) -> Iterator[Observer]:
    """Yield the observer of a batch of trials, which hears as well when the database is away and when it is back."""
    before = database.tell
    with observer.batch(batch) as own:
        listener = own or observer
        database.tell = listener.note
        try:
            yield listener
        finally:
            database.tell = before


def _others(database: Database, grid: Grid, driver: Driver) -> Counter[int]:
    """Count the trials of a grid that each other living driver has, by the driver's token."""
    states = database.states([trial.key for trial in grid.trials]).values()
    return Counter(row.driver for row in states if row.driver not in (None, driver.token))


def _elsewhere(database: Database, others: Counter[int], wait: bool) -> str:
    """Return a line naming the other drivers of the grid, their trials, and whether this run waits for them."""
    if not others:
        return "the other run has ended or has none of this grid's trials any more"
    listed = "; ".join(sorted(f"{count:,} by {database.holder(token)}" for token, count in others.items()))
    meaning = "this run waits for it (--no-wait does not)" if wait else "this run leaves that to it"
    verb = "belongs" if others.total() == 1 else "belong"
    return f"{others.total():,} of this grid's trials {verb} to another run: {listed}; {meaning}"


def time_grid(
    grid: Grid | str | Path,
    db: str | Path = "results.db",
    data_root: str | Path = "data",
    *,
    observer: Observer | None = None,
    address: str | None = None,
    warm_up: int = 1,
    epochs: int = 3,
) -> Outcome:
    """Measure epoch times, one trial of each configuration, alone on its device and in random order.

    `epochs` are measured after `warm_up` others. The other arguments, and the errors, are those of `run_grid`.
    """
    from orchestrator.grid import load_grid
    from orchestrator.planning.parts import ready_parts
    from orchestrator.text import counted

    observer = observer or Observer()
    if isinstance(grid, (str, Path)):
        grid = load_grid(grid)
    ready_parts(grid)
    settings = run_options(
        grid.name, db, data_root, address, given=grid.settings, plugins=grid.plugins, metrics=grid.metrics
    )
    with driven(db, grid.name, observer, create=True) as (database, _):
        database.release_stale()
        grid = _staged(database, grid, None, observer)
        trials = _one_seed_each(grid)
        refuse_here(trials, settings)
        make_ready(trials, settings, observer)
        observer.note(
            f"timing {counted(len(trials), 'configuration')}, {warm_up} + {epochs} epochs each, one at a time"
        )
        from orchestrator.scheduler import time_trials

        configs = {
            trial.name: trial.config.model_dump(mode="json") | {"epochs": min(warm_up + epochs, trial.config.epochs)}
            for trial in trials
        }
        with _listening(database, observer, Batch(grid.name, configs)) as listener:
            summary = time_trials(database, trials, settings, listener, warm_up=warm_up, timed=epochs)
    return Outcome(len(summary.failed), 0)


def _ranks(grid: Grid, order: str) -> dict[str, tuple[int, int]]:
    """Return by key when a trial's turn is: by the file's order, or by the place of its seed in its cell first."""
    if order not in ("depth", "breadth"):
        raise ValueError(f"order={order!r} is neither 'depth' nor 'breadth'")
    ranks, seeds = {}, Counter[str]()
    for place, trial in enumerate(grid.trials):
        cell = trial.config.cell_key() if order == "breadth" else ""
        ranks[trial.key] = (seeds[cell], place)
        seeds[cell] += order == "breadth"
    return ranks


def _one_seed_each(grid: Grid) -> list[Trial]:
    """Return one trial of each configuration, of any seed, in random order: a drifting clock then favours none."""
    first: dict[str, Trial] = {}
    for trial in grid.trials:
        if trial.role == "draw":
            continue
        first.setdefault(trial.config.cell_key(), trial)
    return random.sample(list(first.values()), len(first))
