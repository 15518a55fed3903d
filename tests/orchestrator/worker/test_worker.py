"""A worker trains one trial in its own process; with Ray, see `test_scheduler_failures`."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import time
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.provenance import code_digest
from orchestrator.worker import Job, run_job
from orchestrator.worker.gpu_names import gpu_name
from orchestrator.worker.messages import DataIdentity, EngineChanged, EpochDone, Message, Started
from tests.orchestrator.fake_gpu import GPU, MIG, FakeCuda, FakeNvml
from tests.orchestrator.runs import Workplace
from trainer.canary import Rehearsal
from trainer.config import TrainConfig


def small_job(folder: Path, epochs: int = 1, **more: Any) -> Job:
    config = TrainConfig(dataset="digits", epochs=epochs, width=4, stages=2, batch_size=256, subset=20)
    job = Job(
        key=config.key(),
        name="g/small",
        config=config.model_dump(mode="json"),
        cpus=1,
        gpus=0,
        data_root=str(folder),
        checkpoint=str(folder / "small.pt"),
        checkpoint_seconds=0.0,
        log_folder=str(folder / "logs"),
        code_digest=code_digest(),
    )
    return replace(job, **more)


class BrokenCuda:
    """CUDA after a sticky error: whoever asks it for anything is given the same error again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, initialized: bool = True) -> None:
        self.asked: list[str] = []
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: initialized)
        for name in ("is_available", "empty_cache", "reset_peak_memory_stats"):
            monkeypatch.setattr(torch.cuda, name, partial(self.fail, name))

    def fail(self, name: str) -> bool:
        # PyTorch 2.11 asks for itself as it forgets compiled code.
        if not sys._getframe(1).f_globals["__name__"].startswith("torch."):
            self.asked.append(name)
        if name == "is_available":
            return True
        raise RuntimeError("CUDA error: an illegal memory access was encountered")


def test_a_failure_keeps_its_reason_whatever_cuda_says_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cuda = BrokenCuda(monkeypatch)

    def breaks(message: Message) -> None:
        if isinstance(message, EpochDone):
            raise ValueError("the program's own mistake")

    failure = run_job(small_job(tmp_path), breaks)
    assert failure and failure.message == "ValueError: the program's own mistake"
    assert cuda.asked == []


def test_a_complete_trial_stays_complete_whatever_cuda_says_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cuda = BrokenCuda(monkeypatch)
    assert run_job(small_job(tmp_path), lambda message: None) is None
    assert cuda.asked == ["is_available", "empty_cache"]


def test_a_trial_on_the_cpu_does_not_wake_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cuda = BrokenCuda(monkeypatch, initialized=False)
    assert run_job(small_job(tmp_path), lambda message: None) is None
    assert cuda.asked == []


def test_a_clock_that_is_set_meanwhile_moves_no_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The wall clock goes back an hour at every look, as after daylight saving or a correction by NTP."""
    wall = (1e9 - 3600.0 * looks for looks in count())
    monkeypatch.setattr(time, "time", lambda: next(wall))
    messages: list[Any] = []
    before = time.monotonic()
    assert run_job(small_job(tmp_path, epochs=2), messages.append) is None
    after = time.monotonic()
    (started,) = [message for message in messages if isinstance(message, Started)]
    epochs = [message for message in messages if isinstance(message, EpochDone)]
    instants = [started.began, *(instant for message in epochs for instant in (message.began, message.ended))]
    assert [before, *instants, after] == sorted([before, *instants, after])
    assert all(message.timing.detail["seconds"] > 0 for message in epochs)


@pytest.mark.parametrize("canary", [False, True])
def test_the_engine_reaches_the_trainer_and_the_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, canary: bool):
    monkeypatch.setenv("ORCHESTRATE_CACHE", str(tmp_path / "cache"))
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TORCHINDUCTOR_COMPILE_THREADS"):
        # Set first, so that what the worker sets goes with the test.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    asked: list[dict[str, Any]] = []
    compilers: list[tuple[str | None, ...]] = []

    def call(*_: Any, **manner: Any) -> Any:
        asked.append({name: manner[name] for name in ("engine", "deterministic") if name in manner})
        compilers.append(tuple(map(os.environ.get, ("TORCHINDUCTOR_CACHE_DIR", "TORCHINDUCTOR_COMPILE_THREADS"))))
        return Rehearsal(1.0, 1.0, None, None, 1, 1)

    monkeypatch.setattr("trainer.train.train", call)
    monkeypatch.setattr("trainer.canary.rehearse", call)
    messages: list[Any] = []
    for manner in ({}, {"engine": "compiled", "deterministic": True, "cpus": 3}):
        assert run_job(small_job(tmp_path, canary=canary, **manner), messages.append) is None
    assert asked == [
        # A canary is asked for what its trials will use, which may have several processes.
        {"engine": "launched" if canary else "auto", "deterministic": False},
        {"engine": "compiled", "deterministic": True},
    ]
    assert compilers == [(None, None), (str(tmp_path / "cache/inductor"), "3")]
    environments = [message.facts.environment for message in messages if isinstance(message, Started)]
    recorded = [(environment["engine"], environment["deterministic"]) for environment in environments]
    # The engine that is used, not the one that was asked for.
    assert recorded == [("launched", False), ("compiled", True)]


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA records what is asked of it here")
@pytest.mark.parametrize("canary", [False, True])
def test_the_attempt_keeps_the_engine_that_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, canary: bool):
    """A CPU is taken for a device whose steps can be replayed; there, PyTorch itself refuses to record one."""
    monkeypatch.setattr("trainer.step._replayable", lambda *_, **__: True)
    # The rehearsal takes steps enough for a recording on a GPU alone.
    monkeypatch.setattr("trainer.canary.STEPS", 5)
    job = small_job(tmp_path, canary=canary)
    job = replace(job, config=job.config | {"batch_size": 32})
    messages: list[Any] = []
    assert run_job(job, messages.append) is None
    kinds = [Started] if canary else [Started, DataIdentity, EngineChanged, EpochDone]
    assert [type(message) for message in messages] == kinds
    environment = messages[0].facts.environment
    assert (environment["engine_asked"], environment["engine"]) == ("auto", "launched" if canary else "replayed")
    assert canary or messages[2].engine == "launched"
    (log,) = (tmp_path / "logs").rglob("*.log")
    assert "steps are launched, not replayed: recording one failed (" in log.read_text()


@pytest.mark.ray
@pytest.mark.slow
def test_the_database_keeps_the_engine_that_ran(workplace: Workplace):
    workplace.edit("trainer/step.py", 'return device.type == "cuda" and ', "return True or ")
    grid = workplace.grid("engine", {"seed": [0]}, epochs=1)
    code, output = workplace.run("run", grid, "--no-canary", "--no-dashboard")
    assert code == 0, output
    ((environment,),) = workplace.ask("SELECT environment FROM attempts")
    assert json.loads(environment)["engine"] == "launched"
    assert json.loads(environment)["engine_asked"] == "auto"


class FirstKernel(Exception):
    """The moment when a trial would start to compute on the GPU."""


@pytest.mark.parametrize("canary", [False, True])
def test_what_a_trial_on_a_gpu_does_before_its_first_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, canary: bool
):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("orchestrator.timing.sampler.load_nvml", FakeNvml)
    FakeCuda(monkeypatch.setattr)

    def build(config: TrainConfig, num_classes: int, device: torch.device) -> None:
        assert device == torch.device("cuda:0")
        assert torch.cuda.is_initialized()
        raise FirstKernel

    for module in ("trainer.train", "trainer.canary"):
        monkeypatch.setattr(f"{module}.build_networks", build)
    messages: list[Any] = []
    failure = run_job(small_job(tmp_path, gpus=1, checkpoint=None, canary=canary), messages.append)
    assert failure and failure.message.startswith("FirstKernel"), failure
    started, *_ = messages
    assert (started.facts.device, started.facts.device_uuid) == ("cuda:0 (NVIDIA H200)", GPU)
    assert started.facts.environment["device"]["driver"] == "580.65.06"


@pytest.mark.parametrize("mute", [False, True])
def test_gpus_are_told_apart_also_where_nobody_gives_their_uuid(monkeypatch: pytest.MonkeyPatch, mute: bool):
    FakeCuda(monkeypatch.setattr)
    if mute:
        monkeypatch.setattr(torch.cuda, "get_device_properties", BrokenCuda.fail)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    host = socket.gethostname()
    names = [gpu_name(device) for device in ("cuda:0", "cuda:1", "cpu")]
    assert names == ([f"GPU 3 on {host}", f"GPU 5 on {host}", ""] if mute else [f"{GPU} on {host}"] * 2 + [""])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", MIG)
    assert gpu_name("cuda:0") == f"{MIG} on {host}"


def test_the_log_of_a_resumed_trial_marks_the_epochs_of_its_checkpoint(tmp_path: Path, monkeypatch):
    job = small_job(tmp_path, epochs=2)

    def stops(message: Message) -> None:
        if isinstance(message, EpochDone):
            raise RuntimeError("stopped after the first epoch")

    def epochs() -> list[list[str]]:
        logs = sorted((tmp_path / "logs" / "g_small").iterdir())
        return [[line for line in log.read_text().splitlines() if " epoch " in line] for log in logs]

    assert run_job(job, stops).message == "RuntimeError: stopped after the first epoch"
    assert run_job(job, lambda message: None) is None
    ((first,), (again, second)) = epochs()
    line = re.search(r"epoch 1/2: \d+\.\d\d s, top-1 error \{'main': \d+\.\d+\}", first)[0]
    assert first.endswith(line) and again.endswith(f"{line}  (from the checkpoint)")
    assert re.search(r"epoch 2/2: .*\}$", second)


def test_an_attempt_is_linked_to_the_metrics_that_it_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    messages: list[Any] = []
    run_job(small_job(tmp_path, metrics=("nll",)), messages.append)
    assert [(part.kind, part.name) for part in messages[0].parts][-1] == ("metric", "nll")
