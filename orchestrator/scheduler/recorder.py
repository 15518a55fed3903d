"""The driver's book-keeping of running trials: what workers say goes into the database and to the audience."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from orchestrator.exit_codes import SOME_FAILED, TRY_AGAIN
from orchestrator.failures import INFRASTRUCTURE, OUT_OF_MEMORY, Failure, infrastructure_failure, process_ended
from orchestrator.scheduler.journal import Journal
from orchestrator.scheduler.observer import Observer
from orchestrator.text import counted
from orchestrator.timing import Timing, label
from trainer.results import EpochResult

if TYPE_CHECKING:
    from orchestrator.database import Database
    from orchestrator.grid import Trial

# Ended attempts that may still have overlapped with an epoch that is reported later.
REMEMBERED = 64
# What workers report of an attempt, in the journal's words.
REPORTS = ("start", "engine", "epoch", "end")
# Between two looks whether the database's locks are still held: other drivers take what a lost one has left.
PROOF_SECONDS = 20.0


class CircuitOpen(Exception):
    """Trials kept failing with one cause, so the rest of the grid was not started."""

    exit_code = SOME_FAILED


@dataclass
class Summary:
    """What became of the trials, by name."""

    done: list[str] = field(default_factory=list)
    failed: dict[str, Failure] = field(default_factory=dict)


@dataclass
class Attempt:
    """A running attempt as the driver sees it; times are those of its worker's clock, in seconds.

    That is the monotonic clock of its host, which all processes there share and which nobody sets. `id` is None until
    it is written. `heard` is the driver's monotonic clock at the worker's time `last`.
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
        """The id of its row, for writes that come after the attempt's own."""
        assert self.id is not None
        return self.id

    def hear(self, time_there: float) -> None:
        """Note the worker's time in a message that has come now."""
        self.last, self.heard = time_there, time.monotonic()

    def end(self) -> None:
        """End now, by the worker's clock: another host's began at another time."""
        self.ended = self.last + time.monotonic() - self.heard


class Recorder:
    """Writes attempts and epochs of `trials` (by key) as they are heard of, and decides what a failure leads to.

    A context manager: whatever leaves it early, what was heard is written first where the database takes it without a
    long wait, and what is lost is counted and said.
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
        self.starved: list[Trial] = []
        self.reasons: dict[str, Failure] = {}
        # Trials whose worker gave the reason.
        self.told: set[str] = set()
        self.repeated = ("", 0)
        self.proved = time.monotonic()

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
        """Return what to say of reports that the database did not take; None where it has all."""
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
        """Time has passed; raises Busy when another driver has taken the trials after a lost connection."""
        self.observer.tick()
        self.journal.look()
        if time.monotonic() - self.proved > PROOF_SECONDS:
            self.journal.write("look at the lock", self.database.prove_lock)
            self.proved = time.monotonic()

    def started(self, key: str, message: Mapping[str, Any]) -> None:
        """A worker has begun with a trial."""
        self.reasons.pop(key, None)
        self.told.discard(key)
        where = {name: message[name] for name in ("host", "device", "device_uuid", "pid", "log")}
        environment = {**self.environment, **message["environment"]}
        device = message.get("device_id") or message["device_uuid"] or message["device"]
        # Those of all its processes on this host.
        pids = frozenset(message.get("pids", [message["pid"]]))
        attempt = self.running[key] = Attempt(message["host"], device, pids, message["began"])
        attempt.hear(message["began"])
        self._start(attempt, key, environment, where)
        self.observer.started(self.trials[key].name, message["host"], message["device"])

    def epoch(self, key: str, message: Mapping[str, Any]) -> None:
        """A worker has finished an epoch."""
        attempt = self.running[key]
        result = EpochResult.from_dict(message["result"])
        neighbours = self._neighbours(attempt, message["began"], message["ended"])
        on_device = [other for other in neighbours if other.device == attempt.device]
        co_located, on_host = ({pid for other in group for pid in other.pids} for group in (on_device, neighbours))
        quality = label(Timing(**message["timing"]), co_located, shared=bool(on_device), host_pids=on_host)
        attempt.epochs = max(attempt.epochs, result.epoch + 1)
        attempt.hear(message["ended"])
        at = _now()
        self.journal.write("epoch", lambda: self.database.record_epoch(attempt.row, result, quality, at=at))
        self.observer.epoch(self.trials[key].name, result, quality)

    def engine(self, key: str, engine: str) -> None:
        """A worker trains with another engine than it began with."""
        attempt = self.running[key]
        self.journal.write("engine", lambda: self.database.change_environment(attempt.row, {"engine": engine}))

    def failing(self, key: str, failure: Failure, *, by_worker: bool = False) -> None:
        """Keep the reason why the attempt is about to end, given by its worker or by this driver."""
        if by_worker:
            self.told.add(key)
        self.reasons[key] = failure

    def done(self, key: str) -> None:
        """The trial is complete, unless epochs of it are missing: then it has failed, whatever its process said."""
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
        """The attempt ended and the trial will be tried again."""
        failure = self._failure(key, error_text)
        self.told.discard(key)
        self._end(key, "failed", failure, "pending")
        self.observer.retried(self.trials[key].name, failure.message)

    def failed(self, key: str, error_text: str, *, alone: bool) -> None:
        """The attempt ended for good, unless it ran out of memory beside others: then it joins `starved`.

        Raises CircuitOpen when one cause has ended `same_failure_limit` trials with no success in between.
        """
        failure = self._failure(key, error_text)
        trial = self.trials[key]
        if failure.error_class == OUT_OF_MEMORY and not alone:
            self._end(key, "failed", failure, "pending")
            self.starved.append(trial)
            self.observer.retried(trial.name, f"{failure.message} (once more at the end, alone on the device)")
            return
        # What the worker itself calls the machine's fault (a read-only disk) says nothing against the trial: the next
        # run goes on with it. A process that was lost may have been killed by what the trial does.
        machines = failure.error_class == INFRASTRUCTURE and key in self.told
        self._end(key, "failed", failure, "pending" if machines else "failed")
        self.summary.failed[trial.name] = failure
        self.observer.failed(trial.name, failure)
        last, times = self.repeated
        self.repeated = (failure.fingerprint, times + 1 if last == failure.fingerprint else 1)
        if self.repeated[1] >= self.same_failure_limit:
            stop = CircuitOpen(
                f"{self.repeated[1]} trials in a row failed with the same cause, so the rest was not started: "
                f"{failure.message}"
            )
            if machines:
                stop.exit_code = TRY_AGAIN
            raise stop

    def refuse(self, key: str, failure: Failure) -> None:
        """A trial fails for a reason that its own process has not told: its canary's, or epochs that are missing."""
        self._end(key, "failed", failure, "failed")
        self.summary.failed[self.trials[key].name] = failure
        self.observer.failed(self.trials[key].name, failure)

    def _neighbours(self, own: Attempt, began: float, ended: float) -> list[Attempt]:
        """Our own trials that ran on the same host at any time between two instants."""
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
            # It ended before it could say where it ran.
            nowhere = dict.fromkeys(("host", "device", "device_uuid", "pid", "log"))
            environment = dict(self.environment)
            attempt = Attempt("", "", frozenset(), 0.0)
            self._start(attempt, key, environment, nowhere)
        else:
            attempt.end()
            self.ended = [*self.ended, attempt][-REMEMBERED:]
        why = (
            {"error_class": failure.error_class, "error_text": failure.text, "fingerprint": failure.fingerprint}
            if failure
            else {}
        )
        at = _now()

        def write() -> None:
            self.database.finish_attempt(attempt.row, outcome, trial_state=state, at=at, **why)

        self.journal.write("end", write)

    def _start(self, attempt: Attempt, key: str, environment: Mapping[str, Any], where: Mapping[str, Any]) -> None:
        at = _now()

        def write() -> None:
            attempt.id = self.database.start_attempt(key, purpose=self.purpose, environment=environment, at=at, **where)

        self.journal.write("start", write)


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def retry_at_once(failure: Failure) -> bool:
    """Whether a failure is the machine's and not the trial's."""
    return failure.error_class == INFRASTRUCTURE
