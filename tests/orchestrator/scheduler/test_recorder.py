"""The driver records what it hears of trials, against a database that only takes notes."""

import contextlib
import errno
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.database import DatabaseError
from orchestrator.failures import Failure, failure_of, infrastructure_failure
from orchestrator.grid import Resources, Trial
from orchestrator.records import AttemptFacts
from orchestrator.scheduler import CircuitOpen, Observer, RunOptions, journal
from orchestrator.scheduler import trials as scheduler
from orchestrator.scheduler.cluster import Cluster, RayEnded
from orchestrator.scheduler.recorder import Recorder, Summary
from orchestrator.timing import Timing
from orchestrator.worker.messages import EpochDone, Started
from trainer.config import TrainConfig
from trainer.results import EpochResult


class Notes:
    """A database that writes down what it is told."""

    def __init__(self):
        self.attempts, self.epochs, self.ended, self.changes = [], [], [], []
        self.hurried = threading.Event()

    def hurry(self):
        self.hurried.set()

    def start_attempt(self, key, facts, *, purpose, at):
        self.attempts.append((key, facts, purpose, at))
        return len(self.attempts)

    def change_environment(self, attempt, changes):
        self.changes.append((attempt, changes))

    def record_epoch(self, attempt, result, quality, at):
        self.epochs.append((attempt, result.epoch, quality))

    def finish_attempt(self, attempt, outcome, *, failure, trial_state, at):
        self.ended.append((attempt, outcome, trial_state, failure and failure.error_class))


QUIET = {"seconds": 1.0, "samples": 2, "foreign_pids": [], "throttled": [], "unknown": None}
TRIALS = {
    key: SimpleNamespace(key=key, name=f"net/{key}", role="row", config=SimpleNamespace(epochs=1)) for key in "abcdef"
}


@pytest.fixture
def notes():
    return Notes()


@pytest.fixture
def recorder(notes):
    return Recorder(
        notes, TRIALS, environment={"commit": "c"}, observer=Observer(), summary=Summary(), same_failure_limit=3
    )


def started(device="cpu", began=0.0, pid=1, device_id=None):
    return Started(AttemptFacts("h", device, None, pid, "l", {"x": 1}), device_id or device, (pid,), began)


def epoch(number, began, ended, quality="exclusive"):
    result = EpochResult(number, 0.1, 1.0, 0.5, 0.0, 10, {"cross_entropy": 1.0})
    return EpochDone(result, Timing(quality, QUIET), began, ended)


def test_a_trial_alone_is_exclusive_and_done(recorder, notes):
    recorder.started("a", started())
    recorder.epoch("a", epoch(0, 0, 10))
    recorder.done("a")
    assert notes.attempts[0][1].environment == {"commit": "c", "x": 1}
    assert notes.epochs == [(1, 0, "exclusive")]
    assert notes.ended == [(1, "done", "done", None)]
    assert recorder.summary.done == ["net/a"]


def test_an_engine_that_takes_the_place_of_another_is_kept(recorder, notes):
    recorder.started("a", started())
    recorder.engine("a", "launched")
    assert notes.changes == [(1, {"engine": "launched"})]


def test_an_epoch_beside_another_trial_on_the_device_is_packed(recorder, notes):
    recorder.started("a", started(began=0))
    recorder.epoch("a", epoch(0, 0, 10))
    recorder.started("b", started(began=12, pid=2))
    recorder.epoch("a", epoch(1, 10, 20))
    recorder.epoch("b", epoch(0, 12, 20))
    recorder.done("b")
    recorder.running["a"].began = 0
    ended = recorder.ended[-1].ended
    recorder.epoch("a", epoch(2, ended + 1, ended + 9))
    assert [quality for attempt, _, quality in notes.epochs if attempt == 1] == ["exclusive", "packed", "exclusive"]


def test_another_device_is_no_neighbour(recorder, notes):
    recorder.started("a", started("cuda:0", began=0))
    recorder.started("b", started("cuda:1", began=0, pid=2))
    recorder.epoch("a", epoch(0, 0, 10))
    assert notes.epochs[0][2] == "exclusive"


def test_gpus_without_uuids_are_still_different_ones(recorder, notes):
    recorder.started("a", started("cuda:0", began=0, device_id="GPU 0 on h"))
    recorder.started("b", started("cuda:0", began=0, pid=2, device_id="GPU 1 on h"))
    recorder.epoch("a", epoch(0, 0, 10))
    assert notes.epochs[0][2] == "exclusive"


@pytest.mark.parametrize("epochs", [0, 2])
def test_a_trial_that_lacks_epochs_is_never_done(recorder, notes, epochs):
    recorder.trials = {"a": SimpleNamespace(key="a", name="net/a", role="row", config=SimpleNamespace(epochs=3))}
    if epochs:
        recorder.started("a", started())
    for number in range(epochs):
        recorder.epoch("a", epoch(number, number, number + 1))
    recorder.done("a")
    assert notes.ended == [(1, "failed", "failed", "infrastructure")]
    assert recorder.summary.done == []
    assert recorder.summary.failed["net/a"].message == (
        f"the trial's process ended after {epochs} of 3 epochs without saying why"
    )


def test_a_failure_is_recorded_with_its_class(recorder, notes):
    recorder.started("a", started())
    recorder.failing("a", Failure("diverged", "Diverged: term\ntrace", "f" * 16))
    recorder.failed("a", "", alone=False)
    assert notes.ended == [(1, "failed", "failed", "diverged")]
    assert recorder.summary.failed["net/a"].message == "Diverged: term"


def test_out_of_memory_is_tried_once_more_alone(recorder, notes):
    recorder.started("a", started())
    recorder.failing("a", Failure("out_of_memory", "OutOfMemoryError", "f" * 16))
    recorder.failed("a", "", alone=False)
    assert [trial.key for trial in recorder.out_of_memory] == ["a"]
    recorder.started("a", started())
    recorder.failing("a", Failure("out_of_memory", "OutOfMemoryError", "f" * 16))
    recorder.failed("a", "", alone=True)
    assert [state for _, _, state, _ in notes.ended] == ["pending", "failed"]


def test_a_process_that_vanished_is_infrastructure(recorder, notes):
    recorder.started("a", started())
    recorder.retrying("a", "line\nActorDiedError: the worker was killed\n")
    recorder.failed("b", "", alone=False)
    assert notes.ended == [
        (1, "failed", "pending", "infrastructure"),
        (2, "failed", "failed", "infrastructure"),
    ]
    assert notes.attempts[1][1].host is None


def test_a_stalled_trial_keeps_the_reason_it_was_killed_for(recorder):
    recorder.started("a", started())
    recorder.failing("a", infrastructure_failure("nothing was heard of the trial for 5 s, so it was killed"))
    recorder.failed("a", "ActorDiedError", alone=False)
    assert "nothing was heard" in recorder.summary.failed["net/a"].message


def test_a_trial_that_cannot_even_begin_keeps_its_reason(recorder, notes):
    recorder.failing("a", Failure("code", "PermissionError: no folder for logs", "f" * 16))
    recorder.failed("a", "RuntimeError: something", alone=False)
    assert recorder.summary.failed["net/a"].message == "PermissionError: no folder for logs"
    assert notes.ended == [(1, "failed", "failed", "code")]


def test_a_reason_is_not_that_of_a_later_attempt(recorder, notes):
    recorder.started("a", started())
    recorder.failing("a", infrastructure_failure("nothing was heard of the trial for 5 s, so it was killed"))
    recorder.retrying("a", "")
    recorder.started("a", started(pid=2))
    recorder.failed("a", "ValueError: another", alone=False)
    assert "ValueError: another" in recorder.summary.failed["net/a"].message


def test_the_same_cause_again_and_again_opens_the_circuit(recorder):
    for key in "ab":
        recorder.started(key, started())
        recorder.failing(key, Failure("code", "ValueError: x", "1" * 16))
        recorder.failed(key, "", alone=False)
    recorder.started("c", started())
    recorder.failing("c", Failure("code", "ValueError: x", "1" * 16))
    with pytest.raises(CircuitOpen, match="3 trials in a row"):
        recorder.failed("c", "", alone=False)


def test_draws_of_a_search_may_diverge_one_after_the_other(recorder):
    draws = {key: SimpleNamespace(**{**vars(TRIALS[key]), "role": "draw"}) for key in "abcde"}
    recorder.trials = {**TRIALS, **draws}
    for key in "abcde":
        recorder.started(key, started())
        recorder.failing(key, Failure("diverged", "the loss is not finite", "1" * 16))
        recorder.failed(key, "", alone=False)
    assert len(recorder.summary.failed) == 5
    # A fault of the code is the same for every trial.
    with pytest.raises(CircuitOpen):
        for key in "abc":
            recorder.started(key, started())
            recorder.failing(key, Failure("code", "ValueError: x", "2" * 16))
            recorder.failed(key, "", alone=False)


def test_a_success_in_between_closes_the_circuit(recorder):
    for key in "abcdef":
        recorder.started(key, started())
        if key in "ce":
            recorder.epoch(key, epoch(0, 0, 1))
            recorder.done(key)
        else:
            recorder.failing(key, Failure("code", "ValueError: x", "1" * 16))
            recorder.failed(key, "", alone=False)
    assert len(recorder.summary.failed) == 4


def test_what_a_database_that_is_away_cannot_take_is_written_in_order_later(recorder, notes, monkeypatch):
    monkeypatch.setattr(journal, "PROMPT_SECONDS", 0.05)
    back, start_attempt = threading.Event(), notes.start_attempt

    def away(*given, **more):
        back.wait()
        return start_attempt(*given, **more)

    monkeypatch.setattr(notes, "start_attempt", away)
    before = datetime.now(UTC).replace(tzinfo=None)
    recorder.started("a", started())
    recorder.started("b", started("cuda:0"))
    recorder.epoch("a", epoch(0, 0, 10))
    recorder.done("a")
    recorder.failed("c", "it was lost", alone=True)
    recorder.tick()
    after = datetime.now(UTC).replace(tzinfo=None)
    # The audience heard it, and other trials go on; nothing is written yet.
    assert recorder.summary.done == ["net/a"] and not notes.attempts
    back.set()
    assert recorder.journal.settled(10)
    assert [key for key, *_ in notes.attempts] == ["a", "b", "c"]
    assert notes.epochs == [(1, 0, "exclusive")]
    assert notes.ended == [(1, "done", "done", None), (3, "failed", "failed", "infrastructure")]
    # The times are those of what happened, not of the writing.
    assert all(before <= at <= after for *_, at in notes.attempts)


def test_a_write_that_fails_later_stops_those_after_it(recorder, notes, monkeypatch):
    monkeypatch.setattr(journal, "PROMPT_SECONDS", 0.05)
    back = threading.Event()

    def refuse(key, facts, **more):
        back.wait()
        raise DatabaseError("taken")

    monkeypatch.setattr(notes, "start_attempt", refuse)
    recorder.started("a", started())
    recorder.epoch("a", epoch(0, 0, 10))
    back.set()
    for ask in (lambda: recorder.journal.settled(10), recorder.tick, lambda: recorder.started("b", started())):
        with pytest.raises(DatabaseError, match="taken"):
            ask()
    assert notes.epochs == []


def busy(recorder):
    """Report a trial and a half."""
    recorder.started("a", started())
    recorder.epoch("a", epoch(0, 0, 10))
    recorder.done("a")
    recorder.started("b", started("cuda:0"))
    recorder.epoch("b", epoch(0, 0, 10))


@pytest.mark.parametrize("end", [KeyboardInterrupt, CircuitOpen, RuntimeError])
def test_what_ends_a_run_early_leaves_nothing_unwritten(recorder, notes, monkeypatch, end):
    monkeypatch.setattr(journal, "PROMPT_SECONDS", 0.05)
    back, start_attempt = threading.Event(), notes.start_attempt

    def away(*given, **more):
        back.wait()
        return start_attempt(*given, **more)

    monkeypatch.setattr(notes, "start_attempt", away)
    lines = []
    recorder.observer = Observer(note=lines.append, tick=back.set)
    with pytest.raises(end, match="why"), recorder:
        busy(recorder)
        assert not notes.attempts
        raise end("why")
    assert [key for key, *_ in notes.attempts] == ["a", "b"]
    assert notes.epochs == [(1, 0, "exclusive"), (2, 0, "exclusive")]
    assert notes.ended == [(1, "done", "done", None)]
    # Nothing is left that could write when the driver's lock is another's.
    assert not lines and not writers()


def writers():
    return [thread for thread in threading.enumerate() if thread.name == "journal" and thread.is_alive()]


def test_reports_that_a_database_does_not_take_are_counted(recorder, notes, monkeypatch):
    monkeypatch.setattr(journal, "PROMPT_SECONDS", 0.05)
    record_epoch = notes.record_epoch

    def gone(attempt, result, quality, at):
        if not notes.hurried.wait(0 if notes.epochs else 10):
            return record_epoch(attempt, result, quality, at)
        raise DatabaseError("gone for good")

    monkeypatch.setattr(notes, "record_epoch", gone)
    lines = []
    recorder.observer = Observer(note=lines.append)
    with pytest.raises(CircuitOpen, match="why"), recorder:
        busy(recorder)
        raise CircuitOpen("why")
    assert lines == [
        "not in the database, though the workers had reported it: 1 start, 2 epochs, 1 end of attempts; "
        "the same command takes epochs from the checkpoints, and trains those again that are in none"
    ]
    assert not writers()


def test_after_a_last_signal_nothing_more_is_written(recorder, notes, monkeypatch):
    """Press Ctrl-C a third time while the database is away: the run ends at once."""
    monkeypatch.setattr(journal, "PROMPT_SECONDS", 0.05)
    back, start_attempt, lines = threading.Event(), notes.start_attempt, []

    def away(*given, **more):
        back.wait()
        return start_attempt(*given, **more)

    def third():
        raise KeyboardInterrupt

    monkeypatch.setattr(notes, "start_attempt", away)
    recorder.observer = Observer(note=lines.append, tick=third)
    with pytest.raises(KeyboardInterrupt), recorder:
        busy(recorder)
        raise CircuitOpen("why")
    assert "2 starts, 2 epochs, 1 end of attempts" in lines[0]
    back.set()
    for thread in writers():
        thread.join(10)
    assert notes.epochs == []


@pytest.mark.parametrize("run", ["trials", "canaries", "timing"])
def test_every_kind_of_run_closes_its_journal(notes, monkeypatch, run):
    """The scheduler itself, with a Ray that reports two trials and dies while the database is away."""
    monkeypatch.setattr(journal, "PROMPT_SECONDS", 0.05)
    start_attempt = notes.start_attempt

    def away(*given, **more):
        notes.hurried.wait(20)
        return start_attempt(*given, **more)

    def dies(recorder, cluster, shape, members, options, **how):
        busy(recorder)
        raise RayEnded("it was killed")

    @contextlib.contextmanager
    def cluster(options):
        yield Cluster([{"CPU": 2.0}], None)

    monkeypatch.setattr(notes, "start_attempt", away)
    monkeypatch.setattr(scheduler, "_run_shape", dies)
    monkeypatch.setattr(scheduler, "ray_cluster", cluster)
    notes.measured = lambda *_: []
    # Long enough for a canary, and of two shapes.
    configs = {key: TrainConfig(dataset="digits", epochs=300, width=width) for key, width in (("a", 4), ("b", 8))}
    trials = [Trial(key, f"net/{key}", config, Resources(gpu=0)) for key, config in configs.items()]
    options = RunOptions("g", "data", "c", Path("l"), {"code_digest": ""}, canaries=run == "canaries")
    with pytest.raises(RayEnded):
        if run == "timing":
            scheduler.time_trials(notes, trials, options, Observer(), warm_up=1, timed=1)
        else:
            scheduler.run_trials(notes, trials, options, Observer())
    assert [key for key, *_ in notes.attempts] == ["a", "b"] and not writers()


def test_a_neighbour_ends_by_its_own_clock(recorder, notes):
    """A worker's clock is an hour ahead of the driver's; the trial beside it ended between two epochs."""
    ahead = time.time() + 3600
    recorder.started("a", started(began=ahead))
    recorder.started("b", started(began=ahead, pid=2))
    recorder.done("b")
    recorder.epoch("a", epoch(0, ahead - 1, ahead + 9))
    recorder.epoch("a", epoch(1, ahead + 9, ahead + 19))
    assert [quality for _, _, quality in notes.epochs] == ["packed", "exclusive"]


def test_what_the_worker_calls_the_machines_fault_leaves_the_trial_to_the_next_run(recorder, notes):
    disk = failure_of(OSError(errno.EROFS, "Read-only file system", "/checkpoints"))
    for key in "ab":
        recorder.started(key, started())
        recorder.failing(key, disk, by_worker=True)
        recorder.failed(key, "", alone=False)
    recorder.started("c", started())
    recorder.failing("c", disk, by_worker=True)
    with pytest.raises(CircuitOpen) as caught:
        recorder.failed("c", "", alone=False)
    assert caught.value.exit_code == 75
    # A process that vanished may have been ended by what the trial does.
    recorder.started("d", started())
    recorder.failed("d", "", alone=False)
    assert [state for _, _, state, _ in notes.ended] == ["pending", "pending", "pending", "failed"]
    assert set(recorder.summary.failed) == {"net/a", "net/b", "net/c", "net/d"}
