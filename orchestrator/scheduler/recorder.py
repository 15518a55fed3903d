"""Handles worker messages: writes attempts and epochs to the database and notifies the observer."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from orchestrator.database import now
from orchestrator.errors import OrchestrateError
from orchestrator.exit_codes import SOME_FAILED, TRY_AGAIN
from orchestrator.failures import (
    DIVERGED,
    INFRASTRUCTURE,
    OUT_OF_MEMORY,
    Failure,
    infrastructure_failure,
    process_ended,
)
from orchestrator.provenance import parts_of
from orchestrator.records import AttemptFacts
from orchestrator.scheduler.journal import Journal
from orchestrator.scheduler.observer import Observer
from orchestrator.text import counted
from orchestrator.timing import label
from orchestrator.worker.messages import EpochDone, Started
from trainer.parts import METRICS

if TYPE_CHECKING:
    from orchestrator.database import Database
    from orchestrator.grid import Trial
    from orchestrator.records import PartRow

# How many ended attempts to keep: they may have overlapped with an epoch that is reported later.
REMEMBERED = 64
# Kinds of worker reports, as the journal counts them.
REPORTS = ("start", "fingerprint", "engine", "epoch", "end")
# How often, in seconds, to verify that this driver still holds its locks: other drivers take the trials of a lost one.
LOCK_CHECK_SECONDS = 20.0


class CircuitOpen(OrchestrateError):
    """Trials kept failing with one cause, so the rest of the grid was not started."""

    exit_code = SOME_FAILED


@dataclass
class Summary:
    """Names of the trials that are done, and the failures of the others by name."""

    done: list[str] = field(default_factory=list)
    failed: dict[str, Failure] = field(default_factory=dict)


@dataclass
class Attempt:
    """A running attempt as the driver sees it; times are seconds of the worker's clock.

    That is the monotonic clock of its host, which all processes there share and which nobody sets. `id` is None until
    the attempt is in the database. `heard` is the driver's monotonic clock at the worker's time `last`.
    """

    host: str
    device: str
    pids: frozenset[int]
    began: float
    id: int | None = None
    ended: float | None = None
    epochs: int = 0
    last: float = 0.0
    heard: float = 0.0

    @property
    def row(self) -> int:
        """Return the id of the attempt's row, for writes that follow the attempt's own."""
        assert self.id is not None
        return self.id

    def hear(self, time_there: float) -> None:
        """Set the clock from the worker's time in a message that has just arrived."""
        self.last, self.heard = time_there, time.monotonic()

    def end(self) -> None:
        """Set the end to now by the worker's clock: clocks of different hosts began at different times."""
        self.ended = self.last + time.monotonic() - self.heard


class Recorder:
    """Writes attempts and epochs of `trials` (by key) as reports arrive, and decides what follows from a failure.

    A context manager: on an early exit, pending reports are written if the database answers soon, and lost ones are
    counted and reported to the observer.
    """

    def __init__(
        self,
        database: Database,
        trials: Mapping[str, Trial],
        *,
        environment: Mapping[str, Any],
        observer: Observer,
        summary: Summary,
        purpose: str = "train",
        same_failure_limit: int = 5,
    ) -> None:
        self.database, self.trials, self.environment = database, trials, environment
        self.observer, self.summary, self.purpose = observer, summary, purpose
        self.same_failure_limit = same_failure_limit
        self.journal = Journal()
        self.running: dict[str, Attempt] = {}
        self.ended: list[Attempt] = []
        self.out_of_memory: list[Trial] = []
        self.reasons: dict[str, Failure] = {}
        # Keys of trials whose worker itself gave the reason of the failure.
        self.explained: set[str] = set()
        self.repeated = ("", 0)
        self.last_lock_check = time.monotonic()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.database.hurry()
        try:
            self.journal.close(self.observer.tick)
        finally:
            if line := self._lost():
                self.observer.note(line)

    def _lost(self) -> str | None:
        """Return a line about reports that the database did not take; None where it has all."""
        lost = self.journal.unwritten()
        parts = [counted(lost[kind], kind) for kind in REPORTS if lost[kind]]
        if not parts:
            return None
        remedy = (
            "the same command takes epochs from the checkpoints, and trains those again that are in none"
            if self.purpose == "train"
            else "the same command measures them again"
        )
        return f"not in the database, though the workers had reported it: {', '.join(parts)} of attempts; {remedy}"

    def tick(self) -> None:
        """Check the locks at times; raises Busy when another driver took the trials after a lost connection."""
        self.observer.tick()
        self.journal.look()
        if time.monotonic() - self.last_lock_check > LOCK_CHECK_SECONDS:
            self.journal.write("lock check", self.database.check_lock)
            self.last_lock_check = time.monotonic()

    def started(self, key: str, message: Started) -> None:
        """Record that a worker has begun with a trial."""
        self.reasons.pop(key, None)
        self.explained.discard(key)
        facts = replace(message.facts, environment={**self.environment, **message.facts.environment})
        attempt = Attempt(facts.host or "", message.device_id, frozenset(message.pids), message.began)
        self.running[key] = attempt
        attempt.hear(message.began)
        # A worker reads plug-ins from a copy; a person knows them by their place here.
        metrics = [part.name for part in message.parts if part.kind == "metric" and part.name in METRICS]
        own = parts_of(self.trials[key].config, metrics) if message.parts else ()
        here = {(part.kind, part.name): part.source for part in own}
        parts = [replace(part, source=here.get((part.kind, part.name), part.source)) for part in message.parts]
        self._start(attempt, key, facts, parts)
        self.observer.started(self.trials[key].name, facts.host or "", facts.device or "")

    def epoch(self, key: str, message: EpochDone) -> None:
        """Record an epoch that a worker has finished."""
        attempt, result = self.running[key], message.result
        neighbours = self._neighbours(attempt, message.began, message.ended)
        on_device = [other for other in neighbours if other.device == attempt.device]
        co_located, on_host = ({pid for other in group for pid in other.pids} for group in (on_device, neighbours))
        quality = label(message.timing, co_located, shared=bool(on_device), host_pids=on_host)
        attempt.epochs = max(attempt.epochs, result.epoch + 1)
        attempt.hear(message.ended)
        at = now()
        self.journal.write("epoch", lambda: self.database.record_epoch(attempt.row, result, quality, at=at))
        self.observer.epoch(self.trials[key].name, result, quality)

    def engine(self, key: str, engine: str) -> None:
        """Record that a worker has changed to another engine."""
        attempt = self.running[key]
        self.journal.write("engine", lambda: self.database.change_environment(attempt.row, {"engine": engine}))

    def data(self, key: str, sha256: str) -> None:
        """Record the fingerprint of the data that a worker trains on."""
        attempt = self.running[key]
        self.journal.write("fingerprint", lambda: self.database.record_data(attempt.row, sha256))

    def failing(self, key: str, failure: Failure, *, by_worker: bool = False) -> None:
        """Keep the reason why the attempt is about to end, given by its worker or by this driver."""
        if by_worker:
            self.explained.add(key)
        self.reasons[key] = failure

    def done(self, key: str) -> None:
        """Record a complete trial, or its failure when epochs of it are missing."""
        attempt, wanted = self.running.get(key), self.trials[key].config.epochs
        epochs = attempt.epochs if attempt else 0
        if self.purpose == "train" and epochs < wanted:
            missing = f"the trial's process ended after {epochs} of {wanted} epochs without saying why"
            self.refuse(key, infrastructure_failure(missing))
            return
        self._end(key, "done", None, "done")
        self.repeated = ("", 0)
        self.summary.done.append(self.trials[key].name)
        self.observer.finished(self.trials[key].name)

    def retrying(self, key: str, error_text: str) -> None:
        """Record that the attempt ended and the trial will be retried."""
        failure = self._failure(key, error_text)
        self.explained.discard(key)
        self._end(key, "failed", failure, "pending")
        self.observer.retried(self.trials[key].name, failure.message)

    def failed(self, key: str, error_text: str, *, alone: bool) -> None:
        """Record that the attempt ended for good; out of memory beside other trials, the trial joins `out_of_memory`.

        Raises CircuitOpen when one cause has ended `same_failure_limit` trials with no success in between.
        """
        failure = self._failure(key, error_text)
        trial = self.trials[key]
        if failure.error_class == OUT_OF_MEMORY and not alone:
            self._end(key, "failed", failure, "pending")
            self.out_of_memory.append(trial)
            self.observer.retried(trial.name, f"{failure.message} (once more at the end, alone on the device)")
            return
        # A fault that the worker itself ascribes to the machine (a read-only disk) says nothing against the trial: the
        # next run goes on with it. But a lost process may have been killed by what the trial does.
        machine_fault = failure.error_class == INFRASTRUCTURE and key in self.explained
        self._end(key, "failed", failure, "pending" if machine_fault else "failed")
        self.summary.failed[trial.name] = failure
        self.observer.failed(trial.name, failure)
        if trial.role == "draw" and failure.error_class == DIVERGED:
            # A learning rate that is too high is an outcome of a search, and says nothing of the other trials.
            return
        last, times = self.repeated
        self.repeated = (failure.fingerprint, times + 1 if last == failure.fingerprint else 1)
        if self.repeated[1] >= self.same_failure_limit:
            stop = CircuitOpen(
                f"{self.repeated[1]} trials in a row failed with the same cause, so the rest was not started: "
                f"{failure.message}"
            )
            if machine_fault:
                stop.exit_code = TRY_AGAIN
            raise stop

    def refuse(self, key: str, failure: Failure) -> None:
        """Fail a trial for a reason that its own process did not report: its canary failed, or epochs are missing."""
        self._end(key, "failed", failure, "failed")
        self.summary.failed[self.trials[key].name] = failure
        self.observer.failed(self.trials[key].name, failure)

    def _neighbours(self, own: Attempt, began: float, ended: float) -> list[Attempt]:
        """Return this driver's other attempts that ran on the same host at any time between two instants."""
        return [
            other
            for other in (*self.running.values(), *self.ended)
            if other is not own
            and other.host == own.host
            and other.began < ended
            and (other.ended is None or other.ended > began)
        ]

    def _failure(self, key: str, error_text: str) -> Failure:
        return self.reasons.pop(key, None) or process_ended(error_text)

    def _end(self, key: str, outcome: str, failure: Failure | None, state: str) -> None:
        attempt = self.running.pop(key, None)
        if attempt is None:
            # The attempt ended before its worker reported where it runs.
            attempt = Attempt("", "", frozenset(), 0.0)
            self._start(attempt, key, AttemptFacts(environment=dict(self.environment)))
        else:
            attempt.end()
            self.ended = [*self.ended, attempt][-REMEMBERED:]
        at = now()

        def write() -> None:
            self.database.finish_attempt(attempt.row, outcome, failure=failure, trial_state=state, at=at)

        self.journal.write("end", write)

    def _start(self, attempt: Attempt, key: str, facts: AttemptFacts, parts: Sequence[PartRow] = ()) -> None:
        at = now()

        def write() -> None:
            attempt.id = self.database.start_attempt(key, facts, purpose=self.purpose, at=at)
            if parts:
                self.database.record_parts(parts, attempt.id)

        self.journal.write("start", write)


def retry_at_once(failure: Failure) -> bool:
    """Return whether a failure is the machine's fault and not the trial's."""
    return failure.error_class == INFRASTRUCTURE
