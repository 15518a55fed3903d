"""A trial of several processes on a real Ray: its results, its failures, and what its death leaves."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from orchestrator.failures import Failure, failure_of
from orchestrator.grid import Resources
from orchestrator.records import AttemptFacts
from orchestrator.scheduler import SchedulerError
from orchestrator.scheduler.cluster import Cluster
from orchestrator.timing import Timing
from orchestrator.worker import Job, ranks, run_job
from orchestrator.worker.messages import (
    DataIdentity,
    DataProgress,
    Done,
    EngineChanged,
    EpochDone,
    Failed,
    Started,
    TeacherEpoch,
)
from tests.orchestrator.databases.samples import result
from tests.orchestrator.runs import Workplace, ended, wait_for, workplace
from trainer.canary import Rehearsal
from trainer.config import TrainConfig
from trainer.distributed import RankLost

MORE = ", NCCL version 2.21.5\nncclRemoteError: A call failed possibly due to a network error."
TWO = {"gpu": 0, "cpu": 1, "processes": 2}

# Fails in the second of two processes alone; the first one loses it.
HALF = '''
"""A training method that fails in one of several processes."""

from dataclasses import dataclass
from typing import ClassVar

from trainer.method import Method


@dataclass
class Half(Method):
    name: ClassVar[str] = "half"
    title: ClassVar[str] = "Half"
    at: int = 1

    def start_epoch(self, epoch, epochs):
        from trainer.distributed import rank

        if epoch == self.at and rank() == 1:
            raise ValueError("the second half failed")
'''


def attempts(place: Workplace) -> list[tuple[Any, ...]]:
    return place.ask("SELECT outcome, error_class, error_text FROM attempts WHERE purpose = 'train' ORDER BY id")


@pytest.fixture(scope="module")
def place() -> Iterator[Workplace]:
    with workplace() as made:
        (made.code / "trainer/methods/half.py").write_text(HALF)
        yield made


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_trial_of_two_processes_and_one_whose_second_process_fails(place: Workplace) -> None:
    grid = place.grid("pair", {"methods": [{"pskd": {}}, {"half": {}}]}, epochs=2, resources=TWO)
    code, output = place.run("run", grid, "--no-dashboard")
    assert code == 1, output
    query = """
        SELECT t.config, a.outcome, a.error_class, a.error_text, a.environment, a.log FROM attempts a
        JOIN trials t ON t.id = a.trial_id WHERE a.purpose = 'train' ORDER BY a.id"""
    by_method = {next(iter(json.loads(config)["methods"])): values for config, *values in place.ask(query)}
    assert len(by_method) == len(attempts(place)) == 2, "neither is tried again"

    outcome, _, _, environment, log = by_method["pskd"]
    assert outcome == "done"
    processes = json.loads(environment)["processes"]
    assert len({process["pid"] for process in processes}) == 2
    assert [process["device"].split()[0] for process in processes] == ["cpu", "cpu"]
    assert "epoch 1" in Path(log).read_text()
    assert "epoch 1" in Path(log).with_suffix(".process1.log").read_text()
    assert place.epochs() == 2 + 1
    assert place.ask("SELECT DISTINCT images FROM epochs") == [(200,)]

    outcome, error_class, text, _, _ = by_method["half"]
    assert (outcome, error_class) == ("failed", "code")
    assert text.splitlines()[0] == "ValueError: the second half failed"
    assert "in start_epoch" in text


def running(place: Workplace, number: int) -> list[int]:
    """The pids of the processes of an attempt, once it has an epoch; none before."""
    query = "SELECT environment FROM attempts WHERE outcome IS NULL AND number = ?"
    rows = place.ask(f"{query} AND id IN (SELECT attempt_id FROM epochs)", number)
    return [process["pid"] for process in json.loads(rows[0][0])["processes"]] if rows else []


def owners(place: Workplace) -> list[int]:
    """The pids of the processes that watch a trial's processes."""
    return [process.pid for process in place.workers() if process.cmdline()[0].startswith("ray::Trial")]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_process_ends_the_attempt_and_the_next_goes_on(place: Workplace) -> None:
    place.clear()
    # More epochs than are over before the third attempt is killed.
    grid = place.grid("killed", {"seed": [0]}, epochs=16, resources=TWO)
    run = place.start("run", grid, "--no-dashboard", "--no-canary")
    with ended(run):
        for number in (0, 1, 2):
            assert wait_for(lambda attempt=number + 1: running(place, attempt) or run.over()), run.text()
            pids = running(place, number + 1)
            assert len(pids) == 2, run.text()
            # The first process, the second, and the trial's own, which watches them.
            (victim,) = pids[number : number + 1] or owners(place)
            os.kill(victim, signal.SIGKILL)
            assert wait_for(lambda pids=pids: not any(map(psutil.pid_exists, pids))), "all end with the one"
        assert run.code() == 0, run.text()
    rows = attempts(place)
    for who in ("process 0 of the trial's 2", "process 1 of the trial's 2", "the trial's process"):
        reason = f"{who} ended: it was killed or crashed"
        (lost,) = [attempt for attempt in rows if (attempt[2] or "").startswith(reason)]
        assert lost[:2] == ("failed", "infrastructure")
    assert [attempt[0] for attempt in rows] == ["failed"] * 3 + ["done"]
    assert place.doubtful() == []


def cluster(*nodes: dict[str, float]) -> Cluster:
    return Cluster(list(nodes), None)


def test_processes_may_be_spread_over_nodes_but_each_must_have_its_place() -> None:
    shape = Resources(gpu=1, cpu=8, processes=4)
    trial: Any = type("Trial", (), {"name": "imagenet/pskd", "resources": shape})
    two_nodes = cluster({"CPU": 64, "GPU": 2}, {"CPU": 16, "GPU": 8})
    two_nodes.refuse_infeasible([trial])
    with pytest.raises(SchedulerError, match="4 processes with 8 CPUs and 1 GPU each"):
        cluster({"CPU": 64, "GPU": 3}, {"CPU": 7, "GPU": 8}).refuse_infeasible([trial])


def test_measured_alone_the_processes_fill_the_machine() -> None:
    shape = Resources(gpu=0, cpu=1, processes=3)
    assert cluster({"CPU": 16.0}).whole_device(shape) == Resources(gpu=0, cpu=5, processes=3)
    assert cluster({"CPU": 16.0, "GPU": 4.0}).whole_device(Resources(1, 2, 4)) == Resources(1, 2, 4)


def test_every_process_sees_the_gpus_of_its_host_and_uses_its_own() -> None:
    places = [ranks.Place(host, "10.0.0.1", 1, gpus) for host, gpus in (("a", ("3",)), ("a", ("1",)), ("b", ("0",)))]
    assert [ranks._device(place, places) for place in places] == [("cuda:1", "1,3"), ("cuda:0", "1,3"), ("cuda:0", "0")]
    assert ranks._device(ranks.Place("a", "10.0.0.1", 1, ()), places) == ("cpu", "")


def test_a_canary_rehearses_what_one_process_has_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rehearsed: list[TrainConfig] = []

    def rehearse(config: TrainConfig, **_: Any) -> Rehearsal:
        rehearsed.append(config)
        return Rehearsal(1.0, 1.0, None, None, 1, 1)

    monkeypatch.setattr("trainer.canary.rehearse", rehearse)
    config = TrainConfig(dataset="digits", batch_size=250).model_dump(mode="json")
    job = Job("key", "grid/name", config, 1, 0, str(tmp_path), None, 0, str(tmp_path), "", canary=True, processes=4)
    messages: list[Any] = []
    assert run_job(job, messages.append) is None
    assert [config.batch_size for config in rehearsed] == [63]
    assert messages[-1].facts.environment["canary"]["parameters"] == 1


@pytest.mark.parametrize(
    ("error", "follows"),
    [
        (RankLost("another process of this training has ended"), True),
        (
            RuntimeError(f"NCCL error in: NCCLUtils.hpp:268, remote process exited or there was a network error{MORE}"),
            True,
        ),
        (RuntimeError("[pair.cc:534] Connection closed by peer [10.0.0.2]:4"), True),
        (RuntimeError("NCCL error in: NCCLUtils.hpp:268, unhandled system error, NCCL version 2.21.5"), False),
        (ValueError("the second half failed"), False),
    ],
)
def test_only_what_says_that_another_was_lost_is_no_reason(error: Exception, follows: bool) -> None:
    assert failure_of(error).lost_rank == follows


class Streams:
    """Ranks whose messages are written down beforehand, in the place of Ray's streams of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *messages: list[Any]) -> None:
        self.messages = [iter(of_rank) for of_rank in messages]
        monkeypatch.setattr(ranks, "ray", self)
        monkeypatch.setattr(ranks, "new_log", lambda *_: Path("log"))

    def failure(self) -> Failure | None:
        actors = [
            SimpleNamespace(place=Remote(i), open_meeting=Remote(i), run=Remote(i)) for i in range(len(self.messages))
        ]
        job = SimpleNamespace(log_folder="", name="", key="")
        return ranks._watched(job, actors, lambda message: None)

    def get(self, value: Any) -> Any:
        return value

    def wait(self, streams: list[Any], timeout: float | None) -> tuple[list[Any], list[Any]]:
        return streams[:1], streams[1:]


class Remote:
    def __init__(self, number: int) -> None:
        self.number = number

    def options(self, **_: Any) -> Remote:
        return self


def test_a_stream_that_ends_without_a_word_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def ends(*messages: list[Any]) -> Failure | None:
        streams = Streams(monkeypatch, *messages)
        monkeypatch.setattr(Remote, "remote", lambda self, *_: streams.messages[self.number], raising=False)
        return streams.failure()

    assert ends([Done()], [Done()]) is None
    lost = ends([Done()], [])
    assert lost and lost.error_class == "infrastructure"
    assert lost.message == "process 1 of the trial's 2 ended without a word, its training unfinished"
    failure = ends([Failed(failure_of(RankLost("gone")))], [Failed(failure_of(ValueError("no")))])
    assert failure and failure.message == "ValueError: no"


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), RuntimeError("CUDA error: unknown error")])
def test_whatever_ends_a_rank_is_told(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def run_job(*_: Any) -> None:
        raise error

    monkeypatch.setattr(ranks, "run_job", run_job)
    rank = ranks._Process(SimpleNamespace(name="t"), 0)
    (message,) = rank.run([ranks.Place("a", "127.0.0.1", 1, ())], ("127.0.0.1", 1), Path("log"))
    assert message.failure.message.startswith(type(error).__name__)


def test_facts_of_an_attempt_wait_for_its_start() -> None:
    messages: list[Any] = []
    merged = ranks._Merged(2, messages.append)
    started = Started(AttemptFacts("h", "cpu", None, 1, "l", {"code_changed": False}), "cpu", (1,), 0.0)
    identity = DataIdentity("a" * 64)
    merged.hear(0, started)
    merged.hear(0, DataProgress())
    merged.hear(0, identity)
    assert messages == [DataProgress()]
    merged.hear(1, started)
    merged.hear(0, EngineChanged("launched"))
    assert [type(message) for message in messages] == [DataProgress, Started, DataIdentity, EngineChanged]


def test_an_epoch_is_reported_when_all_have_told_it_and_its_time_is_as_bad_as_the_worst() -> None:
    messages: list[Any] = []
    merged = ranks._Merged(2, messages.append)

    def epoch(number: int, quality: str) -> EpochDone:
        return EpochDone(result(number), Timing(quality, {}), 0.0, 1.0)

    merged.hear(1, epoch(0, "exclusive"))
    merged.hear(1, TeacherEpoch())
    merged.hear(1, epoch(1, "foreign load"))
    assert messages == []
    merged.hear(0, epoch(0, "throttled"))
    merged.hear(0, TeacherEpoch())
    merged.hear(0, epoch(1, "exclusive"))
    assert [type(message) for message in messages] == [EpochDone, TeacherEpoch, EpochDone]
    assert [messages[0].timing.quality, messages[2].timing.quality] == ["throttled", "foreign load"]
