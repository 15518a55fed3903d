"""Run a trial in a worker process: train, watch the device, write a log, and report to the driver."""

from __future__ import annotations

import gc
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress

import psutil

from orchestrator.failures import Failure, failure_of
from orchestrator.provenance import ROOT, code_digest, package_versions, parts_of
from orchestrator.records import AttemptFacts
from orchestrator.storage import local_checkpoint, local_data, node_folder
from orchestrator.worker.gpu_names import gpu_name, gpu_uuid
from orchestrator.worker.job import Job, Rank
from orchestrator.worker.messages import (
    DataIdentity,
    DataProgress,
    EngineChanged,
    EpochDone,
    Message,
    Started,
    TeacherEpoch,
)
from orchestrator.worker.trial_log import logged_to, new_log
from trainer.plugin_files import Plugin
from trainer.plugins import activate
from trainer.results import EpochResult

log = logging.getLogger("trainer")

Report = Callable[[Message], None]


def run_job(job: Job, report: Report, rank: Rank | None = None) -> Failure | None:
    """Run one trial in this process, alone or as one of several, and report; returns the failure if there was one.

    Reports `Started` and an `EpochDone` per epoch, or rehearses; of its end it says nothing.
    """
    failure = None
    try:
        if rank is None:
            log_path = new_log(job.log_folder, job.name, job.key)
            rank = Rank(0, "cuda:0" if job.gpus > 0 else "cpu", (), log_path, lambda device: nullcontext())
        with logged_to(rank.log_path):
            try:
                activate(Plugin(**plugin).shipped(ROOT / "plugins") for plugin in job.plugins)
                if job.engine == "compiled":
                    _keep_compiled(job)
                (_rehearse if job.canary else _train)(job, report, rank)
            except Exception as error:
                log.error("%s\n%s", job.name, failure_of(error, gpu_name(rank.device)).text)
                raise
    except Exception as error:
        failure = failure_of(error, gpu_name(rank.device) if rank else "")
    _clean_up(failed=failure is not None)
    return failure


def _train(job: Job, report: Report, rank: Rank) -> None:
    from orchestrator.timing import DeviceSampler
    from trainer.config import TrainConfig
    from trainer.data import fingerprint
    from trainer.train import train

    started = _start(job, rank)
    report(started)
    config = TrainConfig(**job.config)
    data_root = local_data(config, job.data_root, _progress(report))
    if rank.number == 0:
        report(DataIdentity(fingerprint(config, data_root)))

    with (
        rank.process_group(rank.device),
        # Of several processes the first one alone reads and writes it.
        local_checkpoint(job.checkpoint if rank.number == 0 else None) as (checkpoint, put_back),
        DeviceSampler(
            rank.device,
            uuid=gpu_uuid(rank.device),
            cpus=job.cpus * (1 + len(rank.other_pids)),
            own_pids=lambda: _with_children(rank.other_pids),
        ) as sampler,
    ):
        began = time.monotonic()

        def on_epoch(result: EpochResult) -> None:
            nonlocal began
            timing = sampler.mark()
            ended = time.monotonic()
            if result.epoch < job.warm_up:
                began = ended
                return
            errors = {e.classifier: round(e.metrics.top1_error, 2) for e in result.evaluations if e.split == "test"}
            # The same mark as in the trainer's own command.
            mark = "  (from the checkpoint)" if result.restored else ""
            place = f"{result.epoch + 1}/{config.epochs}"
            log.info("epoch %s: %.2f s, top-1 error %s%s", place, result.seconds, errors, mark)
            # Upload first: an epoch that was reported is never trained again.
            put_back()
            report(EpochDone(result, timing, began, ended))
            # The time between two epochs (checkpoint, report) is not part of an epoch.
            sampler.mark()
            began = time.monotonic()

        def on_teacher_epoch(result: EpochResult) -> None:
            nonlocal began
            log.info("teacher: epoch %d/%d", result.epoch + 1, config.epochs)
            put_back()
            # The driver takes a silent trial for a hung one.
            report(TeacherEpoch())
            sampler.mark()
            began = time.monotonic()

        def on_engine(engine: str) -> None:
            # Rarely differs from the engine reported at the start: recording a step failed.
            if engine != started.facts.environment["engine"]:
                report(EngineChanged(engine))

        train(
            config,
            on_epoch,
            device=rank.device,
            data_root=data_root,
            checkpoint=checkpoint,
            checkpoint_seconds=job.checkpoint_seconds,
            stop_after=None if job.timed is None else job.warm_up + job.timed,
            report_teacher=on_teacher_epoch,
            report_engine=on_engine,
            engine=job.engine,
            deterministic=job.deterministic,
            own_metrics=job.metrics,
            outcomes=job.outcomes if job.timed is None else "none",
        )
        put_back()


def _rehearse(job: Job, report: Report, rank: Rank) -> None:
    from trainer.canary import rehearse
    from trainer.config import TrainConfig

    started = _start(job, rank)
    environment = started.facts.environment
    # Of several processes, what one of them has to do.
    share = -(-job.config["batch_size"] // job.processes)
    config = TrainConfig(**{**job.config, "batch_size": share})
    try:
        with local_checkpoint(job.checkpoint) as (checkpoint, _):
            measured = rehearse(
                config,
                device=rank.device,
                data_root=local_data(config, job.data_root, _progress(report)),
                folder=checkpoint.parent if checkpoint else rank.log_path.parent,
                # That of the trials, of which each may run in several processes.
                engine=environment["engine"],
                deterministic=job.deterministic,
                report_engine=lambda engine: environment.update(engine=engine),
                own_metrics=job.metrics,
            )
        environment["canary"] = measured.to_dict()
        log.info("canary: %s", measured)
    finally:
        # Only now, because an attempt keeps the facts of its start.
        report(started)


def _engine(job: Job, device: str) -> str:
    """Return the engine that the trainer chooses for a trial."""
    import torch

    from trainer.config import TrainConfig
    from trainer.datasets import dataset_spec
    from trainer.step import choose_engine

    config = TrainConfig(**job.config)
    in_memory = not dataset_spec(config.dataset).streamed
    return choose_engine(job.engine, config, torch.device(device), in_memory=in_memory, processes=job.processes)


def _keep_compiled(job: Job) -> None:
    """Have compiled networks kept for the trials after this one; call it before the compiler is imported.

    The compiler's own folder is a temporary one, which ends with a Slurm job or a container, and every process would
    start a compiler on each of 32 processors.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(node_folder() / "inductor"))
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = str(max(1, int(job.cpus)))


def _start(job: Job, rank: Rank) -> Started:
    """Return the message with the place where the trial runs."""
    import torch

    from orchestrator.timing import device_facts
    from trainer.config import TrainConfig

    device = rank.device
    torch.set_num_threads(max(1, int(job.cpus)))
    facts = device_facts(device, uuid=gpu_uuid(device))
    config = TrainConfig(**job.config)
    environment = {
        "versions": package_versions(),
        "device": facts,
        "code_digest": code_digest(),
        "code_changed": code_digest() != job.code_digest,
        "engine": _engine(job, device),
        # A later run finds by it that a canary stands for its trials.
        "engine_asked": job.engine,
        "deterministic": job.deterministic,
    }
    if environment["code_changed"]:
        log.warning("the trainer's code has changed since the launch: this trial runs code %s", code_digest()[:12])
    log.info("%s: key %s on %s %s", job.name, job.key, socket.gethostname(), device)
    return Started(
        AttemptFacts(
            host=socket.gethostname(),
            device=f"{device} ({facts['name']})" if facts.get("name") else device,
            device_uuid=facts.get("uuid"),
            pid=os.getpid(),
            log=str(rank.log_path),
            environment=environment,
        ),
        # Without a UUID the GPUs of a host would all be cuda:0, and trials on different ones would seem to share one.
        device_id=facts.get("uuid") or gpu_name(device) or device,
        pids=(os.getpid(),),
        began=time.monotonic(),
        parts=parts_of(config, job.metrics),
    )


def _progress(report: Report) -> Callable[[str], None]:
    """Return the progress function of downloads; its reports keep the driver from taking the trial for a hung one."""

    def say(line: str) -> None:
        log.info("%s", line)
        report(DataProgress())

    return say


def _with_children(pids: Iterable[int]) -> set[int]:
    """Return the processes and their children, which read their data."""
    family = set(pids)
    for pid in pids:
        with suppress(psutil.Error):
            family |= {child.pid for child in psutil.Process(pid).children(recursive=True)}
    return family


def _clean_up(*, failed: bool) -> None:
    """Leave nothing behind for the next trial in this process.

    A process whose trial `failed` ends, so that its device is left alone: after most errors CUDA answers every call
    with the same error, which would take the place of the reason.
    """
    gc.collect()
    if "torch._dynamo" in sys.modules and not failed:
        # Compiled networks are counted per process, and after eight of a kind the compiler gives up in silence.
        with suppress(Exception):
            sys.modules["torch._dynamo"].reset()
    torch = sys.modules.get("torch")
    # Asked in this order: whether CUDA is available asks the driver.
    if failed or torch is None or not torch.cuda.is_initialized() or not torch.cuda.is_available():
        return
    try:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    except Exception as error:
        # The trial is complete; the next one in this process meets the error itself.
        log.warning("the GPU's memory could not be given back: %s", error)
