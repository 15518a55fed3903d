"""`orchestrate doctor` on machines made of a fake NVML and of files: it finds what a grid would fail on later."""

from __future__ import annotations

import os
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pynvml
import pytest

from orchestrator.console.machine import Finding, gpus, processors
from tests.orchestrator.fake_gpu import GPU, MIG, OTHER_GPU, FakeNvml

Usage = namedtuple("Usage", "total used free")


class Machine(FakeNvml):
    """A machine with two GPUs, whose driver serves CUDA 13."""

    cuda = 13000
    mode = pynvml.NVML_COMPUTEMODE_DEFAULT
    instances: tuple[str, ...] | None = None

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        return self.cuda

    def nvmlDeviceGetComputeMode(self, handle: str) -> int:
        return self.mode

    def nvmlDeviceGetMigMode(self, handle: str) -> list[int]:
        if self.instances is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return [int(handle == GPU)] * 2

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: str) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: str, index: int) -> str:
        if index >= len(self.instances or ()):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return self.instances[index]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine's files: a loaded driver, two device nodes, shared memory of the size of this one's."""
    (tmp_path / "dev/shm").mkdir(parents=True)
    for node in ("nvidia0", "nvidia1", "nvidiactl"):
        (tmp_path / "dev" / node).touch()
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    (tmp_path / "proc/driver/nvidia/version").touch()
    return tmp_path


@pytest.fixture(autouse=True)
def large_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(8 * 2**30, 0, 0))


def found(nvml: Any, root: Path, cuda: str | None = "13.2") -> tuple[list[str], list[str]]:
    """Return the texts of what would fail, and the texts of mere notes."""
    findings = list(gpus(cuda, nvml, root))
    assert nvml.open == 0
    return tuple([each.text for each in findings if each.verdict == verdict] for verdict in ("fail", "note"))


def test_a_machine_where_nothing_is_wrong(root: Path) -> None:
    findings = list(gpus("13.2", Machine(), root))
    assert findings == [
        Finding("fine", "driver 580.65.06 serves this PyTorch (CUDA 13.2)"),
        Finding("fine", "GPU 0, NVIDIA H200, 140 GiB"),
        Finding("fine", "GPU 1, NVIDIA H200, 140 GiB"),
    ]


@pytest.mark.parametrize(
    ("cuda", "offered", "message"),
    [
        (
            "13.2",
            12040,
            "driver 580.65.06 serves CUDA 12, but this PyTorch needs CUDA 13: update the driver, or",
        ),
        ("12.6", 12040, None),
        ("12.6", 13000, None),
        (None, 13000, "this PyTorch was built without CUDA"),
    ],
)
def test_a_driver_older_than_pytorch_s_cuda(root: Path, cuda: str | None, offered: int, message: str | None) -> None:
    nvml = Machine()
    nvml.cuda = offered
    failing, _ = found(nvml, root, cuda)
    assert [text.startswith(message or "") for text in failing] == [True] * (message is not None)


def test_a_driver_that_is_missing_is_no_fault_and_one_that_is_broken_is(root: Path, tmp_path: Path) -> None:
    nvml = Machine()
    nvml.errors["init"] = pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH
    ((broken,), _) = found(nvml, root)
    assert "NVML/RM version mismatch" in broken
    for node in (root / "dev").glob("nvidia*"):
        node.unlink()
    ((hidden,), _) = found(nvml, root)
    assert "there is no /dev/nvidia0: start the container with --gpus all" in hidden
    (root / "proc/driver/nvidia/version").unlink()
    (absent,) = gpus("13.2", nvml, root)
    assert absent.verdict == "fine" and absent.text.startswith("no NVIDIA driver: trials run on the processor")


def test_gpus_without_device_nodes(root: Path) -> None:
    for node in (root / "dev").glob("nvidia*"):
        node.unlink()
    failing, _ = found(Machine(), root)
    assert failing == [
        f"GPU {index}, NVIDIA H200: there is no /dev/nvidia0; start the container with --gpus all" for index in (0, 1)
    ]


def test_gpus_of_other_jobs(root: Path) -> None:
    nvml = Machine()
    nvml.forbidden = {GPU}
    assert found(nvml, root) == ([], ["1 GPU of this machine may not be used here (another job's)"])
    nvml.forbidden = {GPU, OTHER_GPU}
    failing, _ = found(nvml, root)
    assert failing == ["no GPU may be used here: ask the batch system or the container for one"]


@pytest.mark.parametrize(
    ("mode", "verdict", "message"),
    [
        (pynvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS, "note", "lets one process in: trials that share it"),
        (pynvml.NVML_COMPUTEMODE_PROHIBITED, "fail", "its compute mode forbids every program"),
    ],
)
def test_a_compute_mode_that_keeps_trials_out(root: Path, mode: int, verdict: str, message: str) -> None:
    nvml = Machine()
    nvml.mode = mode
    failing, notes = found(nvml, root)
    assert [message in text for text in (failing if verdict == "fail" else notes)] == [True, True]
    assert not (notes if verdict == "fail" else failing)


def test_mig(root: Path) -> None:
    nvml = Machine()
    nvml.instances = (MIG, "MIG-4", "MIG-5")
    failing, (note,) = found(nvml, root)
    assert not failing
    assert "Ray counts 3 instances as one GPU" in note
    assert f"export CUDA_VISIBLE_DEVICES={MIG},MIG-4,MIG-5; ray start --head --num-gpus=3" in note
    nvml.instances = ()
    failing, _ = found(nvml, root)
    assert failing == ["GPU 0, NVIDIA H200: MIG is on, and there is no instance; make some, or switch it off"]


def test_shared_memory_of_docker_s_size(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(64 * 2**20, 0, 0))
    _, (note,) = found(Machine(), root)
    assert note.startswith("/dev/shm holds 64 MiB: too little for trials on several GPUs")
    assert found(Machine(count=1), root) == ([], []), "one GPU has nobody to talk to"
    monkeypatch.undo()
    (root / "dev/shm").rmdir()
    assert "there is no /dev/shm" in found(Machine(), root)[1][0]


def test_a_driver_that_hangs_up(root: Path) -> None:
    nvml = Machine()
    nvml.errors["memory"] = pynvml.NVML_ERROR_GPU_IS_LOST
    ((lost,), _) = found(nvml, root)
    assert "the NVIDIA driver does not answer: GPU is lost" in lost


def test_processors_that_this_process_may_not_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 128)
    status = tmp_path / f"proc/{os.getpid()}/status"
    status.parent.mkdir(parents=True)
    (tmp_path / "proc/stat").write_text("".join(f"cpu{number} 1\n" for number in range(128)))
    status.with_name("cgroup").write_text("0::/\n")
    status.write_text("Cpus_allowed_list:\t0-3\n")
    assert processors(tmp_path) == Finding(
        "note", "4 of 128 processors: the rest is not for this process (taskset, Slurm, a container)"
    )
    status.write_text("Cpus_allowed_list:\t0-127\n")
    assert processors(tmp_path) == Finding("fine", "128 processors")
