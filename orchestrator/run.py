"""Run a grid: claims, data, the trials, and what other drivers have of the same grid.

Nothing here prints: an `Observer` hears what there is to say.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.grid_records import compared, plan_of, save_grid
from orchestrator.planning import as_measured, grid_notes, one_seed_each, ranks
from orchestrator.planning.parts import ready_parts
from orchestrator.scheduler import (
    Batch,
    Observer,
    make_ready,
    refuse_here,
    run_options,
    start_anew,
    without_checkpoint,
)
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
    a Ray cluster (None: the one in RAY_ADDRESS, else a private Ray on this machine, as with `local`). `order` is
    `depth` or `breadth`, by default the grid's: the order of the file, or the first seed of every cell first, then the
    second. With `wait`, the others' trials are waited for, and taken over when their driver gives them back or dies.
    `retrain` trains those anew that were trained by other code, or on other data, than there is now. `options` are
    further fields of `orchestrator.scheduler.RunOptions`. Nothing is printed; `observer` hears what happens. A failed
    trial is counted in the outcome and raises nothing.

    Raises as `orchestrator.scheduler.trials.run_trials`; Busy; GridError, StorageError, DataError and TrackerError
    before Ray starts.
    """
    from orchestrator.scheduler import check_trackers

    observer = observer or Observer()
    check_trackers(options.get("trackers", ()))
    grid = _loaded(grid)
    order = order or grid.order
    if order not in ("depth", "breadth"):
        raise ValueError(f"order={order!r} is neither 'depth' nor 'breadth'")
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
    with driven(db, grid.name, observer, create=True) as (database, driver), ExitStack() as ray:
        ready = _prepared(grid, database, settings, observer, retry_failed=retry_failed, retrain=retrain)
        run = _Run(grid, ready, database, driver, order, wait, observer)
        while (turn := run.turn()).claimed or (turn.left and wait):
            if not turn.claimed:
                ray.close()
                run.pause(turn)
                continue
            from orchestrator.scheduler import keep_ray, run_trials

            # Until another driver has to be waited for: the next stage's trials start at once.
            ray.enter_context(keep_ray())
            with run.watched(turn) as listener:
                run_trials(database, turn.claimed, settings, listener)
        return run.outcome(turn)


def _loaded(grid: Grid | str | Path) -> Grid:
    """Return a grid, read from its file where that is given, with its parts registered."""
    from orchestrator.grid import load_grid

    if isinstance(grid, (str, Path)):
        grid = load_grid(grid)
    ready_parts(grid)
    return grid


def _prepared(
    file: Grid, database: Database, settings: RunOptions, observer: Observer, *, retry_failed: bool, retrain: bool
) -> Grid:
    """Settle what comes before the first trial, and announce the plan; returns the grid that the results call for."""
    database.release_stale()
    if retry_failed:
        # Before anything is decided by their failure.
        database.retry([trial.key for trial in decide(file, database).grid.trials])
    grid = _staged(database, file, None, observer)
    for plugin in grid.plugins:
        for note in plugin.notes:
            observer.warning(f"warning: {note}")
    plan = compared(plan_of(grid, database), database, settings.data_root, grid.metrics)
    if retrain and (outdated := [entry.trial for entry in plan.entries if entry.changes]):
        start_anew(outdated, database, settings, observer)
        plan = compared(plan_of(grid, database), database, settings.data_root, grid.metrics)
    observer.planned(plan)
    if plan.pending:
        for fact in grid_notes(grid):
            observer.warning(f"note: {fact}")
    if line := without_checkpoint(database, plan, settings):
        observer.warning(f"warning: {line}")
    refuse_here([entry.trial for entry in plan.pending], settings)
    if unfinished := [entry.trial for entry in plan.entries if entry.status not in ("done", "failed")]:
        make_ready(unfinished, settings, observer)
    return grid


@dataclass(frozen=True)
class _Turn:
    """One turn of a run: the plan, the pending trials that it has yet to try, and those of them that it has claimed.

    `by_driver` counts the trials that other living drivers have, by the driver's token.
    """

    plan: Plan
    wanted: list[Trial]
    claimed: list[Trial]
    by_driver: Counter[int]

    @property
    def left(self) -> int:
        return len(self.wanted) + self.by_driver.total()


class _Run:
    """A run of a grid, from turn to turn: the grid as results make it grow, and the trials that were tried."""

    def __init__(
        self, file: Grid, grid: Grid, database: Database, driver: Driver, order: str, wait: bool, observer: Observer
    ) -> None:
        self.file, self.grid, self.order, self.wait = file, grid, order, wait
        self.database, self.driver, self.observer = database, driver, observer
        self.ranks = ranks(grid, order)
        self.tried: set[str] = set()
        # Tokens of the other drivers that the observer was last told of.
        self.announced: set[int] = set()
        self.shared = False
        self.ownerless_since: float | None = None

    def turn(self) -> _Turn:
        """Add the trials that results call for, and claim those that no driver has."""
        self._grow()
        # Count the other drivers' trials before planning, so that a trial they finish in between appears as done.
        by_driver = _trials_by_driver(self.database, self.grid, self.driver)
        plan = plan_of(self.grid, self.database)
        wanted = [entry.trial for entry in plan.pending if entry.trial.key not in self.tried]
        wanted.sort(key=lambda trial: self.ranks[trial.key])
        claimed = self.database.claim([trial.key for trial in wanted], self.driver) if wanted else set()
        if set(by_driver) != self.announced:
            self.announced, self.shared = set(by_driver), True
            self.observer.note(_elsewhere(self.database, by_driver, self.wait))
        return _Turn(plan, wanted, [trial for trial in wanted if trial.key in claimed], by_driver)

    def _grow(self) -> None:
        grown = _staged(self.database, self.file, self.grid, self.observer)
        if grown != self.grid:
            more, self.grid, self.ranks = grown.trials != self.grid.trials, grown, ranks(grown, self.order)
            if more:
                self.observer.planned(plan_of(grown, self.database))

    @contextmanager
    def watched(self, turn: _Turn) -> Iterator[Observer]:
        """Yield who hears of the claimed trials while they run; afterwards, what is left of the claims is free."""
        from orchestrator.database import DatabaseError

        self.tried |= {trial.key for trial in turn.claimed}
        try:
            configs = {trial.name: trial.config.model_dump(mode="json") for trial in turn.claimed}
            batch = Batch(self.grid.name, configs, as_measured(self.database.measured()), turn.plan)
            with _listening(self.database, self.observer, batch) as listener:
                yield listener
        except BaseException:
            self.database.hurry()
            try:
                self.database.release(self.driver)
            except DatabaseError as error:
                self.observer.warning(f"warning: its trials are not given back yet, the next run does that: {error}")
            raise
        self.database.release(self.driver)

    def pause(self, turn: _Turn) -> None:
        """Wait before the next turn; take over what a driver that stays disconnected has left."""
        if not turn.wanted:
            self.ownerless_since = None
        elif self.ownerless_since is None:
            self.ownerless_since = time.monotonic()
        elif time.monotonic() - self.ownerless_since > GRACE_SECONDS:
            self.database.release_stale()
        time.sleep(POLL_SECONDS)

    def outcome(self, turn: _Turn) -> Outcome:
        """Return what the last turn leaves, and announce its plan where other drivers trained some of it."""
        if self.shared:
            self.observer.planned(turn.plan)
        failed = turn.plan.count("failed") - counted_as_draws(self.grid, turn.plan)
        return Outcome(failed, turn.left, sum(entry.trial.key in self.tried for entry in turn.plan.pending))


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


def _trials_by_driver(database: Database, grid: Grid, driver: Driver) -> Counter[int]:
    """Count the trials of a grid that each other living driver has, by the driver's token."""
    states = database.states([trial.key for trial in grid.trials]).values()
    return Counter(row.driver for row in states if row.driver not in (None, driver.token))


def _elsewhere(database: Database, by_driver: Counter[int], wait: bool) -> str:
    """Return a line naming the other drivers of the grid, their trials, and whether this run waits for them."""
    if not by_driver:
        return "the other run has ended or has none of this grid's trials any more"
    listed = "; ".join(sorted(f"{count:,} by {database.holder(token)}" for token, count in by_driver.items()))
    meaning = "this run waits for it (--no-wait does not)" if wait else "this run leaves that to it"
    verb = "belongs" if by_driver.total() == 1 else "belong"
    return f"{by_driver.total():,} of this grid's trials {verb} to another run: {listed}; {meaning}"


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
    from orchestrator.text import counted

    observer = observer or Observer()
    grid = _loaded(grid)
    settings = run_options(
        grid.name, db, data_root, address, given=grid.settings, plugins=grid.plugins, metrics=grid.metrics
    )
    with driven(db, grid.name, observer, create=True) as (database, _):
        database.release_stale()
        grid = _staged(database, grid, None, observer)
        trials = one_seed_each(grid)
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
