"""A canary and a trial on a GPU as a worker runs them, without Ray: messages, labels, and the driver's own facts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.provenance import code_digest
from orchestrator.timing import DeviceSampler, device_facts
from orchestrator.worker import Job, run_job
from orchestrator.worker.messages import DataIdentity, EpochDone, Started
from tests.gpu.configs import config_of


def job(folder: Path, **fields: Any) -> Job:
    config = config_of({"byot": {}, "pskd": {}})
    defaults: dict[str, Any] = {
        "key": config.key(),
        "name": "gpu/trial",
        "config": config.model_dump(mode="json"),
        "cpus": 2,
        "gpus": 1,
        "data_root": str(folder),
        "checkpoint": str(folder / "trial.pt"),
        "checkpoint_seconds": 0.0,
        "log_folder": str(folder / "logs"),
        "code_digest": code_digest(),
    }
    return Job(**defaults | fields)


def messages(job: Job) -> list[Any]:
    heard: list[Any] = []
    assert run_job(job, heard.append) is None
    return heard


def test_a_trial_says_where_it_runs_and_how_its_times_are_to_be_read(cuda: str, tmp_path: Path):
    started, identity, *epochs = messages(job(tmp_path))
    assert isinstance(started, Started) and isinstance(identity, DataIdentity)
    assert started.facts.device.startswith("cuda:0 (")
    assert started.facts.device_uuid.startswith(("GPU-", "MIG-"))
    assert started.facts.pid == os.getpid()
    assert [type(message) for message in epochs] == [EpochDone, EpochDone]
    for message in epochs:
        detail = message.timing.detail
        assert detail["uuid"] == started.facts.device_uuid
        assert detail["samples"] >= 1
        assert message.timing.quality in ("exclusive", "unknown", "foreign load", "throttled")


def test_a_canary_measures_memory_and_time(cuda: str, tmp_path: Path):
    (started,) = messages(job(tmp_path, canary=True))
    canary = started.facts.environment["canary"]
    assert canary["seconds_per_epoch"] > 0
    assert 0 <= canary["launch_share"] <= 1
    assert 0 < canary["peak_memory_bytes"] <= canary["reserved_memory_bytes"]
    assert canary["reserved_memory_bytes"] < device_facts(cuda)["memory_bytes"]
    assert list(tmp_path.glob("*.pt*")) == []


def test_another_process_on_the_gpu_is_seen(cuda: str):
    code = f"import torch, time; held = torch.zeros(2**26, device={cuda!r}); print('there', flush=True); time.sleep(60)"
    uuid = f"GPU-{torch.cuda.get_device_properties(cuda).uuid}"
    # The driver lists a process once it has memory there.
    held = torch.zeros(1, device=cuda)
    with DeviceSampler(cuda, uuid=uuid) as sampler:
        sampler.mark()
        # Started by a shell that ends: a child of this process would count as its own.
        shell = subprocess.Popen(
            ["sh", "-c", '"$0" -c "$1" & echo $!', sys.executable, code], stdout=subprocess.PIPE, text=True
        )
        assert shell.stdout is not None
        pid = int(shell.stdout.readline())
        try:
            assert shell.stdout.readline() == "there\n"
            timing = sampler.mark()
        finally:
            os.kill(pid, signal.SIGKILL)
            shell.communicate()
    del held
    if timing.quality == "unknown":
        pytest.skip(f"this machine hides processes: {timing.detail['unknown']}")
    assert timing.quality == "foreign load"
    assert pid in timing.detail["foreign_pids"]


def test_a_rank_of_nccl_trains_alone_as_without(cuda: str, tmp_path: Path):
    """NCCL is started, a group of one is joined, and DistributedDataParallel wraps the step; no warning is given."""
    code = f"""
    import warnings
    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    torch.cuda.set_device({cuda!r})
    store = dist.HashStore()
    dist.init_process_group("nccl", store=store, rank=0, world_size=1, device_id=torch.device({cuda!r}))
    warnings.simplefilter("error")
    layer = torch.nn.Linear(8, 8, device={cuda!r})
    step = DistributedDataParallel(layer, static_graph=True, gradient_as_bucket_view=True)
    for _ in range(3):
        layer.zero_grad(set_to_none=True)
        step(torch.randn(4, 8, device={cuda!r})).sum().backward()
    assert layer.weight.grad is not None
    total = torch.ones(1, device={cuda!r})
    dist.all_reduce(total)
    assert total.item() == 1
    dist.destroy_process_group()
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
