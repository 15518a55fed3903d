"""When silence counts: a trial that starts has a bound of its own."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.scheduler import callbacks


class Recorder:
    """Hears what the callback tells."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def failing(self, key: str, failure: Any) -> None:
        self.reasons.append(failure.text)

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **more: None


@pytest.mark.parametrize(
    ("said", "silence", "reason"),
    [
        ([], 100, None),
        (["started", "data"], 800, None),
        (["started"], 901, "for 900 s while it started, so it was killed"),
        (["started", "epoch"], 9, None),
        (["started", "epoch"], 11, "for 10 s, so it was killed"),
        (["started", "teacher"], 11, "for 10 s, so it was killed"),
    ],
)
def test_starting_is_no_silence(said: list[str], silence: float, reason: str | None, monkeypatch) -> None:
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
    for kind in said:
        callback.on_trial_result(0, [trial], trial, {"kind": kind})
    clock.now += silence
    callback.kill_stalled([trial])
    assert killed == (["actor"] if reason else [])
    assert all(reason in text for text in recorder.reasons) and bool(recorder.reasons) == bool(reason)
