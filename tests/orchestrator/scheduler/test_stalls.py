"""When silence counts: a trial that starts has a bound of its own."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.records import AttemptFacts
from orchestrator.scheduler import callbacks
from orchestrator.timing import Timing
from orchestrator.worker.messages import DataProgress, EpochDone, Message, Started, TeacherEpoch, to_values
from tests.orchestrator.databases.samples import result

STARTED = Started(AttemptFacts("h", "cpu", None, 1, "l"), "cpu", (1,), 0.0)
EPOCH = EpochDone(result(0), Timing("exclusive", {}), 0.0, 1.0)


class Recorder:
    """Hears what the callback tells."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def failing(self, key: str, failure: Any) -> None:
        self.reasons.append(failure.text)

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **more: None


@pytest.mark.parametrize(
    ("messages", "silence", "reason"),
    [
        ([], 100, None),
        ([STARTED, DataProgress()], 800, None),
        ([STARTED], 901, "for 900 s while it started, so it was killed"),
        ([STARTED, EPOCH], 9, None),
        ([STARTED, EPOCH], 11, "for 10 s, so it was killed"),
        ([STARTED, TeacherEpoch()], 11, "for 10 s, so it was killed"),
    ],
)
def test_starting_is_no_silence(messages: list[Message], silence: float, reason: str | None, monkeypatch) -> None:
    killed: list[Any] = []
    monkeypatch.setattr("ray.kill", killed.append)
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: clock.now)
    recorder = Recorder()
    options = SimpleNamespace(stall_seconds=10.0)
    callback = callbacks.recording_callback(recorder, None, options, alone=False)
    trial = SimpleNamespace(
        config={"job": json.dumps({"key": "k"})}, status="RUNNING", temporary_state=SimpleNamespace(ray_actor="actor")
    )
    callback.on_trial_start(0, [trial], trial)
    for message in messages:
        callback.on_trial_result(0, [trial], trial, to_values(message))
    clock.now += silence
    callback.kill_stalled([trial])
    assert killed == (["actor"] if reason else [])
    assert all(reason in text for text in recorder.reasons) and bool(recorder.reasons) == bool(reason)
