"""The results database: the driver's writes, and the queries of the commands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from orchestrator.database import attempts, claims, forgetting, grids, looks, origins, parts, progress, scoring
from orchestrator.database.backends.postgresql import holder_of
from orchestrator.database.connections import Connections
from orchestrator.database.errors import DatabaseError, Holder, described
from orchestrator.database.models import Trial
from orchestrator.database.scores import scores_on_test, validation_scores
from orchestrator.records import (
    AttemptFacts,
    AttemptRow,
    Extent,
    FailureRow,
    GridRow,
    LookRow,
    MeasuredRow,
    Origin,
    PartRow,
    ProgressRow,
    Score,
    TrialState,
)

if TYPE_CHECKING:
    from orchestrator.database.backup import Copied
    from orchestrator.database.merge import Merged
    from orchestrator.database.scoring import Kept, Recorded
    from orchestrator.failures import Failure
    from orchestrator.records import Driver
    from trainer.results import EpochResult


class Database(Connections):
    """An open results database, made by `open_database`; a context manager. For its attributes see `Connections`.

    Every method that writes is one transaction: it happens wholly or not at all. All raise DatabaseError.
    """

    @cached_property
    def _settled(self) -> progress.Settled:
        """Return the cache of `progress`."""
        return {}

    # Grids and their trials

    def save_grid(
        self,
        name: str,
        source: str,
        text: str,
        report: Mapping[str, Any],
        trials: Sequence[tuple[str, Mapping[str, Any], str]],
    ) -> None:
        """Store a grid and its trials, given as (key, configuration, name) in order.

        New trials become pending; known ones keep their state. A grid of that name is replaced.
        """
        grids.check(self.where, name, trials)
        self.write(lambda connection: grids.save(connection, name, source, text, report, trials))

    def extent(self, grid: str) -> Extent:
        """Return what a grid has, and what of it no other grid has; raises DatabaseError for an unknown grid."""
        return self.read(lambda connection: forgetting.extent(connection, self.where, grid))

    def forget(self, grid: str, *, trials: bool = False) -> set[str]:
        """Remove a grid; with `trials`, also the trials that no other grid has, with everything recorded of them.

        Returns the keys of the trials that were removed.
        """
        return self.write(lambda connection: forgetting.forget(connection, grid, trials), durable=True)

    def grids(self) -> list[GridRow]:
        """Return all grids by name."""
        return self.read(grids.all_grids)

    def grid_keys(self, name: str) -> list[tuple[str, str]]:
        """Return the trials of a grid as (key, name) in order; none for an unknown grid."""
        return self.read(lambda connection: grids.keys(connection, name))

    def states(self, keys: Sequence[str]) -> dict[str, TrialState]:
        """Return the progress of each trial; keys that the database does not have are left out.

        Trials of a dead driver count as pending.
        """
        return self.read(lambda connection: progress.states(connection, keys, self.living(connection)))

    def scores(self, keys: Sequence[str], metric: str, selection: str) -> dict[str, Score]:
        """Return what became of draws of a tuning, by key; see `orchestrator.database.scores.validation_scores`."""
        values = self.read(lambda connection: validation_scores(connection, keys, metric, selection))
        return {key: _score(state, values.get(key)) for key, state in self.states(keys).items()}

    def test_scores(self, keys: Sequence[str], metric: str, selection: str) -> dict[str, tuple[float, int]]:
        """Return a metric of done trials as tables have it, with the number of test images, by key.

        See `orchestrator.database.scores.scores_on_test`.
        """
        return self.read(lambda connection: scores_on_test(connection, keys, metric, selection))

    def looks(self, grid: str | None = None) -> list[LookRow]:
        """Return the looks of sequential seeds of a grid, or of all grids, pair by pair in their order."""
        return self.read(lambda connection: looks.looks(connection, grid))

    def record_looks(self, rows: Sequence[LookRow]) -> None:
        """Store looks of sequential seeds; one that is there already stays as it is."""
        given = list(rows)
        self.write(lambda connection: looks.record(connection, self.where, given), durable=True)

    def done_trials(self) -> dict[str, dict[str, Any]]:
        """Return the configurations of all trials that are done, by key."""
        done = select(Trial.key, Trial.config).where(Trial.state == "done").order_by(Trial.id)
        return self.read(lambda connection: {key: config for key, config in connection.execute(done)})

    # A driver's writes

    def claim(self, keys: Sequence[str], driver: Driver) -> set[str]:
        """Claim pending trials for this driver, so that no other runs them; returns the keys that it has now."""
        return self.write(lambda connection: claims.claim(connection, keys, driver.token))

    def retry(self, keys: Sequence[str]) -> int:
        """Make the failed ones among these trials pending again; returns how many."""
        return self.write(lambda connection: grids.retry(connection, keys))

    def retrain(self, keys: Sequence[str]) -> int:
        """Make those of these trials pending that no driver has, to be trained from the first epoch; returns how many.

        Their attempts and epochs stay; no epoch is accepted any more.
        """
        return self.write(lambda connection: origins.retrain(connection, keys))

    def release(self, driver: Driver) -> None:
        """Release this driver's claims: its running trials become pending, their attempts interrupted."""
        self.write(lambda connection: claims.release(connection, driver.token))

    def release_stale(self) -> int:
        """Release the claims of dead drivers, ending their attempts as lost; returns how many trials were running.

        Only the holder of the driver's lock may call it, for the lock tells the dead from the living.
        """
        if self.driver is None:
            raise DatabaseError(f"{self.where}: only the holder of the driver's lock can tell which drivers are dead")
        own = self.driver.token
        return self.write(lambda connection: claims.release_stale(connection, own))

    def holder(self, token: int) -> Holder:
        """Return the facts about the driver of a token, as far as they are known."""
        if self.path is not None:
            return Holder()
        return self.read(lambda connection: holder_of(connection, token))

    def start_attempt(
        self,
        key: str,
        facts: AttemptFacts,
        *,
        purpose: str = "train",
        at: datetime | None = None,
    ) -> int:
        """Begin an attempt and return its id; a training attempt makes its trial running.

        `at` is when it began (UTC), now by default. An older training attempt that is still open becomes lost. Raises
        DatabaseError for an unknown trial, and for training one that is done or failed; Busy for training one that
        another driver has.
        """
        driver = self.driver.token if self.driver else None
        row = attempts.attempt_row(facts, purpose, driver, at)
        return self.write(lambda connection: attempts.start(connection, self.where, key, row))

    def record_parts(self, given: Iterable[PartRow], attempt_id: int | None = None) -> None:
        """Store methods, networks, data sets and metrics and, with an attempt, that it uses them.

        A part of one kind, name, version and digest is stored once; a new title, source or fact replaces the old one.
        """
        rows = list(given)
        parts.check(self.where, rows)
        self.write(lambda connection: parts.record(connection, self.where, rows, attempt_id))

    def record_data(self, attempt_id: int, sha256: str) -> None:
        """Store the fingerprint of the content of an attempt's data sets."""
        self.write(lambda connection: origins.record_data(connection, self.where, attempt_id, sha256))

    def change_environment(self, attempt_id: int, changes: Mapping[str, Any]) -> None:
        """Change values of an attempt's environment that differ from those at its start."""
        self.write(lambda connection: attempts.change_environment(connection, self.where, attempt_id, changes))

    def record_epoch(
        self, attempt_id: int, result: EpochResult, timing_quality: str, at: datetime | None = None
    ) -> None:
        """Store an epoch of an attempt; the same epoch of the same attempt a second time changes nothing.

        A training attempt's epoch is accepted: what earlier attempts recorded of this and later epochs no longer
        counts. A restored one is stored, with timing quality `unknown`, only where no row of it is accepted.
        Raises DatabaseError when the attempt has ended, and for a metric that is NaN.
        """
        row, evaluations = attempts.epoch_rows(self.where, attempt_id, result, timing_quality, at)
        self.write(lambda connection: attempts.record(connection, self.where, row, evaluations, result))

    def finish_attempt(
        self,
        attempt_id: int,
        outcome: str,
        *,
        failure: Failure | None = None,
        trial_state: str | None = None,
        at: datetime | None = None,
    ) -> None:
        """End an attempt as done, failed or interrupted, and put a training attempt's trial into a state.

        The state (done, failed or pending) of a trial whose attempt did not train stays as it is. An attempt that
        has ended keeps its first outcome, and a done trial stays done. On return it is safe from a power cut.
        """
        end = attempts.attempt_end(outcome, failure, trial_state, at)
        where = self.where
        self.write(lambda connection: attempts.finish(connection, where, attempt_id, end, trial_state), durable=True)

    # Queries of the commands

    def parts(self) -> list[PartRow]:
        """Return the methods, networks, data sets and metrics that were recorded, the newest last."""
        return list(self.read(parts.parts_by_id).values())

    def attempts(self, key: str) -> list[AttemptRow]:
        """Return the attempts of a trial, the newest last; none for an unknown key."""
        return self.read(lambda connection: progress.attempts(connection, key))

    def origins(self, keys: Sequence[str]) -> dict[str, list[Origin]]:
        """Return per trial with accepted epochs the code and data that trained them, an entry per attempt."""
        return self.read(lambda connection: origins.origins_by_key(connection, keys))

    def failures(self, grid: str | None = None) -> list[FailureRow]:
        """Return the failed trials of one grid or all, by cause, the commonest first."""
        return self.read(lambda connection: progress.failures(connection, grid))

    def unmeasured(self, keys: Sequence[str], metrics: Iterable[str]) -> dict[str, int]:
        """Return by own metric how many of these trials are done without a value of it after their last epoch."""
        return self.read(lambda connection: {name: parts.unmeasured(connection, keys, name) for name in metrics})

    def progress(self, grid: str | None = None) -> list[ProgressRow]:
        """Return the trials of one grid in its order, or those of all grids by grid name.

        Trials of a dead driver count as pending.
        """
        return self.read(lambda connection: progress.progress(connection, grid, self._settled, self.living(connection)))

    def measured(self, purposes: Sequence[str] = ("train", "canary")) -> list[MeasuredRow]:
        """Return the measurements of trials and their canaries, of all grids."""
        return self.read(lambda connection: progress.measured(connection, purposes))

    # Copies and checks

    def add(self, other: Database) -> Merged:
        """Add the grids, trials and results of another database; see `merge.merge_into`."""
        from orchestrator.database.merge import merge_into

        with described(self.where), other.reading() as source, self.engine.begin() as connection:
            return merge_into(connection, source)

    def back_up(self, target: Path) -> Copied:
        """Copy the whole database into a new SQLite file, also while a run writes; see `backup.back_up_to`."""
        from orchestrator.database.backup import back_up_to

        with described(self.where):
            return back_up_to(self.engine, self.where, target, self.living)

    def damage(self) -> list[str]:
        """Return the damage of a file's pages and references, a few lines at most; it reads the whole file."""
        from orchestrator.database.backup import damage

        return self.read(damage)

    # Metrics that are computed after the training

    def kept(self, grids: Sequence[str] | None = None) -> list[tuple[str, list[Kept]]]:
        """Return by trial its name and the evaluations whose outcomes are kept; see `scoring.kept`."""
        return self.read(lambda connection: scoring.kept(connection, grids))

    def recorded(self, wanted: Sequence[Kept], metrics: Sequence[str]) -> Recorded:
        """Return which values of own metrics these evaluations have, and by which code."""
        return self.read(lambda connection: scoring.recorded(connection, wanted, metrics))

    def probabilities(self, one: Kept) -> tuple[Any, Any]:
        """Return kept probabilities [N, K], float16, and labels [N]; raises Unreadable as `scoring.read`."""
        with self.reading() as connection:
            return scoring.read(connection, one)

    def record_scores(self, attempt_id: int, part: PartRow, values: Sequence[tuple[Kept, float]]) -> int:
        """Store values of a metric at evaluations of an attempt; returns how many were not there yet."""
        parts.check(self.where, [part])
        return self.write(lambda connection: scoring.record(connection, self.where, attempt_id, part, values))


def _score(state: TrialState, value: float | None) -> Score:
    if state.state == "done":
        return Score("done", value, "" if value is not None else "no finite value on the validation images")
    if state.state == "failed":
        return Score("failed", None, ": ".join(part for part in (state.error_class, state.error) if part))
    return Score("open")
