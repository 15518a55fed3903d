"""The function that Ray's workers execute: what it reports of a trial's end."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest

from orchestrator.failures import Failure, failure_of
from orchestrator.scheduler import trainable
from orchestrator.timing import Timing
from orchestrator.worker import Job
from orchestrator.worker.messages import Done, EpochDone, Failed, Message, from_values
from tests.orchestrator.databases.samples import result

JOB = Job("key", "grid/name", {}, 1, 0, "data", None, None, "logs", "digest")
EPOCH = EpochDone(result(0, error=20.0), Timing("exclusive", {}), 0.0, 1.0)


class Gauges(dict[str, float]):
    """Stands in for Ray's gauges, which need a Ray."""

    def __call__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> Any:
        gauges = self

        class Gauge:
            def set(self, value: float, tags: dict[str, str]) -> None:
                gauges[name] = value

        return Gauge()


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[Message]:
    messages: list[Message] = []
    monkeypatch.setattr("ray.tune.report", lambda values: messages.append(from_values(json.loads(json.dumps(values)))))
    return messages


def run(monkeypatch: pytest.MonkeyPatch, failure: Failure | None) -> Gauges:
    def run_job(job: Job, report: Callable[[Message], None]) -> Failure | None:
        assert job.key == JOB.key
        report(EPOCH)
        return failure

    gauges = Gauges()
    monkeypatch.setattr("ray.util.metrics.Gauge", gauges)
    monkeypatch.setattr(trainable, "run_job", run_job)
    trainable.trainable({"job": json.dumps(asdict(JOB))})
    return gauges


def test_a_trial_that_ends_well_reports_its_epochs_and_its_end(
    monkeypatch: pytest.MonkeyPatch, reported: list[Message]
) -> None:
    gauges = run(monkeypatch, None)
    assert [type(message) for message in reported] == [EpochDone, Done]
    assert (gauges["trial_epoch"], gauges["trial_top1_error_percent"]) == (1, 20.0)


def test_a_trial_that_fails_reports_why_and_raises(monkeypatch: pytest.MonkeyPatch, reported: list[Message]) -> None:
    failure = failure_of(ValueError("no"))
    # Of a type that the driver can read without the trial's modules.
    with pytest.raises(RuntimeError, match=r"^ValueError: no$"):
        run(monkeypatch, failure)
    assert reported[-1] == Failed(failure)
