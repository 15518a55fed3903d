"""The Ray Tune callback that feeds the recorder."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from orchestrator.failures import infrastructure_failure
from orchestrator.scheduler.cluster import Cluster, RayEnded
from orchestrator.scheduler.options import RunOptions
from orchestrator.scheduler.recorder import Recorder, retry_at_once
from orchestrator.scheduler.signals import Interrupted, stop_signal
from orchestrator.worker.messages import (
    DataIdentity,
    Done,
    EngineChanged,
    EpochDone,
    Failed,
    Started,
    TeacherEpoch,
    from_values,
)

# Least stall timeout in seconds until a trial's first epoch is over: imports, data and compilation are slow.
START_SECONDS = 900.0


class Abandoned(BaseException):
    """Leaves Tune's `fit` at once.

    After an `Exception` Tune would tidy up, and wait for a Ray that may be gone: the signal that ends this process
    (SIGTERM to its group) may have ended Ray too. Leaving the Ray context ends the workers anyway.
    """


def recording_callback(recorder: Recorder, cluster: Cluster, options: RunOptions, *, alone: bool) -> Any:
    """Return the callback that hands Tune's events to the recorder. Its hooks run in the thread of `fit`."""
    from ray import kill, tune

    class Callback(tune.Callback):
        def __init__(self) -> None:
            self.problem: Exception | None = None
            self.heard: dict[str, float] = {}
            # Keys of trials before their first epoch: they import torch, read data and compile.
            self.starting: set[str] = set()
            self.look_again = 0.0

        def __reduce__(self) -> tuple[Any, ...]:
            # Tune pickles its callbacks with its own state, which is never read back.
            return (object, ())

        @contextlib.contextmanager
        def guarded(self) -> Iterator[None]:
            # Tune would turn an exception in a hook into a failed trial or a lost result; `on_step_end` raises it.
            try:
                yield
            except Exception as error:
                self.problem = self.problem or error

        def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            self.heard[_key(trial)] = time.monotonic()
            self.starting.add(_key(trial))

        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
        ) -> None:
            with self.guarded():
                key, message = _key(trial), from_values(result)
                self.heard[key] = time.monotonic()
                if isinstance(message, EpochDone | TeacherEpoch):
                    self.starting.discard(key)
                if isinstance(message, Started):
                    recorder.started(key, message)
                elif isinstance(message, EngineChanged):
                    recorder.engine(key, message.engine)
                elif isinstance(message, DataIdentity):
                    recorder.data(key, message.sha256)
                elif isinstance(message, EpochDone):
                    recorder.epoch(key, message)
                elif isinstance(message, Failed):
                    recorder.failing(key, message.failure, by_worker=True)
                    if not retry_at_once(message.failure):
                        # Its process ends now; Tune must not retry the trial.
                        trial.max_failures = 0

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            with self.guarded():
                if (trial.last_result or {}).get("kind") == Done.__name__:
                    recorder.done(_key(trial))

        def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            with self.guarded():
                recorder.retrying(_key(trial), _error_text(trial))

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            with self.guarded():
                recorder.failed(_key(trial), _error_text(trial), alone=alone)

        def on_step_end(self, iteration: int, trials: list[Any], **_: Any) -> None:
            with self.guarded():
                recorder.tick()
                # Not after every event: with ten thousand trials the check takes longer than everything else.
                if time.monotonic() >= self.look_again:
                    self.kill_stalled(trials)
                    self.look_again = time.monotonic() + min(1.0, options.stall_seconds / 10)
            if number := stop_signal():
                self.problem = Interrupted(number)
            elif ended := cluster.ended():
                self.problem = self.problem or RayEnded(ended)
            if self.problem is not None:
                raise Abandoned

        def kill_stalled(self, trials: list[Any]) -> None:
            now = time.monotonic()
            for trial in trials:
                key, actor = _key(trial), trial.temporary_state.ray_actor
                bound = options.stall_seconds
                if starting := key in self.starting:
                    bound = max(bound, START_SECONDS)
                if trial.status == "RUNNING" and actor and now - self.heard.get(key, now) > bound:
                    self.heard[key] = now
                    when = " while it started" if starting else ""
                    reason = f"nothing was heard of the trial for {bound:g} s{when}, so it was killed"
                    recorder.failing(key, infrastructure_failure(reason))
                    kill(actor)

    return Callback()


def _key(trial: Any) -> str:
    return _key_of(trial.config["job"])


@cache
def _key_of(job: str) -> str:
    return str(json.loads(job)["key"])


def _error_text(trial: Any) -> str:
    try:
        return Path(trial.error_file).read_text(errors="replace")
    except (OSError, TypeError):
        return ""
