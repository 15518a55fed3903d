"""One trial in a worker process: it trains, watches its device, writes a log and tells the driver in plain messages."""

from __future__ import annotations

import gc
import logging
import os
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from orchestrator.failures import Failure, failure_of
from orchestrator.provenance import code_digest, package_versions
from orchestrator.staging import local_checkpoint, local_data
from trainer.results import EpochResult

log = logging.getLogger("trainer")


@dataclass(frozen=True)
class Job:
    """What a worker needs to run one trial; plain values, because it travels between machines.

    A timing pass has no checkpoint, stops after `warm_up` + `timed` epochs and reports the last `timed` of them. A
    canary is a rehearsal: `checkpoint` is the file in whose folder it writes its own.
    """

    key: str
    name: str
    config: dict[str, Any]
    cpus: float
    gpus: float
    data_root: str
    checkpoint: str | None
    checkpoint_seconds: float
    log_folder: str
    code_sha256: str
    warm_up: int = 0
    timed: int | None = None
    canary: bool = False


def run_job(job: Job, report: Callable[[dict[str, Any]], None]) -> None:
    """Run one trial and report `started`, an `epoch` message each, then `done` or `failed`.

    Raises RuntimeError after a failure was reported, so that its process is not used for another trial.
    """
    failure = _attempt(job, report)
    if failure is None:
        report({"kind": "done"})
        return
    report({"kind": "failed", **failure.to_dict()})
    # Not what was raised first: the driver would have to import the exception's module to read it, and more than this
    # trial would end where it cannot.
    raise RuntimeError(failure.message)


def _attempt(job: Job, report: Callable[[dict[str, Any]], None]) -> Failure | None:
    try:
        log_path = _log_path(job)
        with _logged_to(log_path):
            try:
                (_rehearse if job.canary else _train)(job, report, log_path)
            except Exception as error:
                log.error("%s\n%s", job.name, failure_of(error).text)
                raise
    except Exception as error:
        return failure_of(error)
    finally:
        _clean_up()
    return None


def _train(job: Job, report: Callable[[dict[str, Any]], None], log_path: Path) -> None:
    from orchestrator.timing import DeviceSampler
    from trainer.config import TrainConfig
    from trainer.train import train

    device, started = _start(job, log_path)
    report(started)
    config = TrainConfig(**job.config)
    data_root = local_data(config, job.data_root, _progress(report))

    with local_checkpoint(job.checkpoint) as (checkpoint, put_back), DeviceSampler(device) as sampler:
        began = time.time()

        def on_epoch(result: EpochResult) -> None:
            nonlocal began
            timing = sampler.mark()
            ended = time.time()
            if result.epoch < job.warm_up:
                began = ended
                return
            errors = {e.classifier: round(e.metrics.top1_error, 2) for e in result.evaluations if e.split == "test"}
            seconds = result.train_seconds + result.eval_seconds + result.data_seconds
            log.info("epoch %d: %.2f s, top-1 error %s", result.epoch, seconds, errors)
            # First, because what was reported is never trained again.
            put_back()
            report(
                {
                    "kind": "epoch",
                    "result": result.to_dict(),
                    "timing": asdict(timing),
                    "began": began,
                    "ended": ended,
                }
            )
            # What happens between two epochs (checkpoint, report) is not part of an epoch's time.
            sampler.mark()
            began = time.time()

        def on_teacher_epoch(result: EpochResult) -> None:
            nonlocal began
            log.info("teacher: epoch %d", result.epoch)
            put_back()
            # The driver takes a silent trial for a hung one.
            report({"kind": "teacher"})
            sampler.mark()
            began = time.time()

        train(
            config,
            on_epoch,
            device=device,
            data_root=data_root,
            checkpoint=checkpoint,
            checkpoint_seconds=job.checkpoint_seconds,
            stop_after=None if job.timed is None else job.warm_up + job.timed,
            report_teacher=on_teacher_epoch,
        )
        put_back()


def _rehearse(job: Job, report: Callable[[dict[str, Any]], None], log_path: Path) -> None:
    from trainer.config import TrainConfig
    from trainer.rehearsal import rehearse

    device, started = _start(job, log_path)
    config = TrainConfig(**job.config)
    try:
        with local_checkpoint(job.checkpoint) as (checkpoint, _):
            found = rehearse(
                config,
                device=device,
                data_root=local_data(config, job.data_root, _progress(report)),
                folder=checkpoint.parent if checkpoint else log_path.parent,
            )
        started["environment"]["canary"] = found.to_dict()
        log.info("canary: %s", found)
    finally:
        # Only now, because an attempt keeps what is said of it when it starts.
        report(started)


def _start(job: Job, log_path: Path) -> tuple[str, dict[str, Any]]:
    """The device to use, and the message that tells where the trial runs."""
    import torch

    from orchestrator.timing import device_facts

    device = "cuda:0" if job.gpus > 0 else "cpu"
    torch.set_num_threads(max(1, int(job.cpus)))
    facts = device_facts(device)
    digest = code_digest()
    environment = {"versions": package_versions(), "device": facts, "code_changed": digest != job.code_sha256}
    if environment["code_changed"]:
        log.warning("the trainer's code has changed since the launch: this trial runs code %s", digest[:12])
    log.info("%s: key %s on %s %s", job.name, job.key, socket.gethostname(), device)
    return device, {
        "kind": "started",
        "host": socket.gethostname(),
        "device": f"{device} ({facts['name']})" if facts.get("name") else device,
        "device_uuid": facts.get("uuid"),
        "pid": os.getpid(),
        "log": str(log_path),
        "began": time.time(),
        "environment": environment,
    }


def _progress(report: Callable[[dict[str, Any]], None]) -> Callable[[str], None]:
    """What the fetching of data is told to: the log, and the driver, which takes a silent trial for a hung one."""

    def say(line: str) -> None:
        log.info("%s", line)
        report({"kind": "data"})

    return say


def _log_path(job: Job) -> Path:
    """A new file per attempt; the number is that of the files already there."""
    folder = Path(job.log_folder) / job.name.replace("/", "_")
    folder.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        path = folder / f"{job.key[:8]}-{number}.log"
        try:
            path.touch(exist_ok=False)
            return path
        except FileExistsError:
            number += 1


class _logged_to:
    """Send the trainer's log and Python warnings to a file and to standard output, which Ray keeps as well."""

    def __init__(self, path: Path) -> None:
        self.handlers = [logging.FileHandler(path), logging.StreamHandler(sys.stdout)]

    def __enter__(self) -> None:
        logging.captureWarnings(True)
        self.loggers = [log, logging.getLogger("py.warnings")]
        for logger in self.loggers:
            logger.propagate = False
            logger.setLevel(logging.INFO)
            for handler in self.handlers:
                handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
                logger.addHandler(handler)

    def __exit__(self, *error: object) -> None:
        for handler in self.handlers:
            for logger in self.loggers:
                logger.removeHandler(handler)
        self.handlers[0].close()


def _clean_up() -> None:
    """Leave nothing behind for the next trial in this process."""
    gc.collect()
    _leave_packages_alone()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


@cache
def _leave_packages_alone() -> None:
    """Keep later collections from looking through what is alive after a process's first trial: it is the packages'.

    Those are a million objects, which took longer to look through than a small trial takes to train.
    """
    gc.freeze()
