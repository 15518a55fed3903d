"""Run a trial where Tune has placed it: the function that Ray's workers execute."""

from __future__ import annotations

import json
from typing import Any

from orchestrator.worker import Job, run_job
from orchestrator.worker.messages import Done, EpochDone, Failed, Message, to_values
from trainer.results import EpochResult

# Metrics that every worker exports as ray_trial_<name>{trial="..."}.
GAUGES = {
    "epoch": "epochs trained",
    "top1_error_percent": "top-1 error of the first network on the test split",
    "seconds_per_epoch": "training, data and evaluation of the last epoch",
    "images_per_second": "training images per second in the last epoch",
}


def trainable(config: dict[str, Any]) -> None:
    """Run the job of a Tune trial, and report its messages to Tune and its measures to Ray's metrics.

    Raises RuntimeError after a failure was reported, so that its process is not used for another trial.
    """
    from ray import tune
    from ray.util.metrics import Gauge

    job = Job(**json.loads(config["job"]))
    gauges = {name: Gauge(f"trial_{name}", description, tag_keys=("trial",)) for name, description in GAUGES.items()}

    def report(message: Message) -> None:
        if isinstance(message, EpochDone):
            for name, value in _measures(message.result).items():
                gauges[name].set(value, tags={"trial": job.name})
        tune.report(to_values(message))

    if job.processes > 1 and not job.canary:
        from orchestrator.worker.ranks import run_ranks

        failure = run_ranks(job, report)
    else:
        failure = run_job(job, report)
    if failure is None:
        report(Done())
        return
    report(Failed(failure))
    # Not the original exception: to read it the driver would have to import its module, and would fail with more than
    # this trial where it cannot.
    raise RuntimeError(failure.message)


def _measures(result: EpochResult) -> dict[str, float]:
    """Return the values of an epoch for Ray's metrics, by the names of `GAUGES`."""
    assert result.main is not None
    return {
        "epoch": result.epoch + 1,
        "top1_error_percent": result.main.metrics.top1_error,
        "seconds_per_epoch": result.seconds,
        "images_per_second": result.images / (result.train_seconds + result.data_seconds),
    }
