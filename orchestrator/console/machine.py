"""Check without PyTorch and Ray for causes that end or spoil a trial: GPUs, driver, memory, processors."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from orchestrator.text import counted, size
from orchestrator.timing import allowed_gpus, load_nvml, procfs

# In bytes. NCCL copies through shared memory between the GPUs of a machine, about 10 MB for each pair, and data loaders
# pass batches through it. Docker's default is 64 MB.
LEAST_SHARED_MEMORY = 2**30


@dataclass(frozen=True)
class Finding:
    """A fact about the machine: `fine`, worth a `note`, or that trials would `fail`."""

    verdict: Literal["fine", "note", "fail"]
    text: str


def processors(root: Path = Path("/")) -> Finding:
    """Return how many processors this process may use, by affinity, cpuset and quota."""
    total, allowed = os.cpu_count() or 1, procfs.processors(root)
    if allowed >= total:
        return Finding("fine", counted(total, "processor"))
    return Finding(
        "note", f"{allowed} of {total} processors: the rest is not for this process (taskset, Slurm, a container)"
    )


def gpus(cuda: str | None, nvml: Any = None, root: Path = Path("/")) -> Iterator[Finding]:
    """Yield a line for each GPU that trials may use, and its problems.

    `cuda` is the version that PyTorch was built for, None for one without CUDA.
    """
    nvml = nvml or load_nvml()
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        yield _no_driver(error, root)
        return
    try:
        yield from _driver(cuda, nvml)
        handles = allowed_gpus(nvml)
        if hidden := nvml.nvmlDeviceGetCount() - len(handles):
            yield Finding("note", f"{counted(hidden, 'GPU')} of this machine may not be used here (another job's)")
        if not handles:
            yield Finding("fail", "no GPU may be used here: ask the batch system or the container for one")
        for index, handle in enumerate(handles):
            yield from _gpu(index, handle, nvml, root)
        if len(handles) > 1:
            yield from _shared_memory(root)
    except nvml.NVMLError as error:
        yield Finding("fail", f"the NVIDIA driver does not answer: {error}; `nvidia-smi` may say more")
    finally:
        nvml.nvmlShutdown()


def _no_driver(error: Exception, root: Path) -> Finding:
    if not (root / "proc/driver/nvidia/version").exists():
        return Finding("fine", "no NVIDIA driver: trials run on the processor, none with `resources: {gpu: 1}`")
    if not _nodes(root):
        what = "the NVIDIA driver is loaded, but there is no /dev/nvidia0: start the container with --gpus all, or ask"
        return Finding("fail", f"{what} the batch system for a GPU")
    return Finding("fail", f"the NVIDIA driver is loaded, but its library does not answer ({error}); reboot")


def _driver(cuda: str | None, nvml: Any) -> Iterator[Finding]:
    driver, offered = nvml.nvmlSystemGetDriverVersion(), nvml.nvmlSystemGetCudaDriverVersion_v2() // 1000
    if cuda is None:
        yield Finding("fail", "this PyTorch was built without CUDA: install one for CUDA, or set `gpu: 0` in the grid")
    # A driver supports every minor version of its CUDA, and all older ones.
    elif (needed := int(cuda.partition(".")[0])) > offered:
        cure = f"update the driver, or install a PyTorch for CUDA {offered}"
        yield Finding("fail", f"driver {driver} serves CUDA {offered}, but this PyTorch needs CUDA {needed}: {cure}")
    else:
        yield Finding("fine", f"driver {driver} serves this PyTorch (CUDA {cuda})")


def _gpu(index: int, handle: Any, nvml: Any, root: Path) -> Iterator[Finding]:
    name = f"GPU {index}, {nvml.nvmlDeviceGetName(handle)}"
    yield Finding("fine", f"{name}, {size(nvml.nvmlDeviceGetMemoryInfo(handle).total)}")
    if (nodes := _nodes(root)) is not None and not nodes:
        yield Finding("fail", f"{name}: there is no /dev/nvidia0; start the container with --gpus all")
    try:
        mode = nvml.nvmlDeviceGetComputeMode(handle)
    except nvml.NVMLError:
        mode = nvml.NVML_COMPUTEMODE_DEFAULT
    if mode == nvml.NVML_COMPUTEMODE_PROHIBITED:
        cure = "`nvidia-smi --compute-mode=DEFAULT` as root"
        yield Finding("fail", f"{name}: its compute mode forbids every program; {cure}")
    elif mode == nvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS:
        what = "its compute mode lets one process in: trials that share it (`gpu: 0.5`, --pack auto) would fail"
        yield Finding("note", f"{name}: {what}")
    yield from _mig(name, handle, nvml)


def _mig(name: str, handle: Any, nvml: Any) -> Iterator[Finding]:
    try:
        if not nvml.nvmlDeviceGetMigMode(handle)[0]:
            return
        most = nvml.nvmlDeviceGetMaxMigDeviceCount(handle)
    except nvml.NVMLError:
        return
    instances = []
    for number in range(most):
        try:
            instances.append(nvml.nvmlDeviceGetUUID(nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)))
        except nvml.NVMLError:
            continue
    if not instances:
        yield Finding("fail", f"{name}: MIG is on, and there is no instance; make some, or switch it off")
        return
    listed = ",".join(instances)
    yield Finding(
        "note",
        f"{name}: MIG is on, and Ray counts {counted(len(instances), 'instance')} as one GPU; for a trial on each: "
        f"export CUDA_VISIBLE_DEVICES={listed}; ray start --head --num-gpus={len(instances)}; then --address auto",
    )


def _shared_memory(root: Path) -> Iterator[Finding]:
    folder = root / "dev/shm"
    try:
        total = shutil.disk_usage(folder).total
    except OSError:
        yield Finding("note", "there is no /dev/shm: trials on several GPUs (gpus_per_trial) would fail")
        return
    if total < LEAST_SHARED_MEMORY:
        what = f"/dev/shm holds {size(total)}: too little for trials on several GPUs (gpus_per_trial) and for loaders"
        yield Finding("note", f"{what}; `docker run --shm-size 8g`, or mount it larger")


def _nodes(root: Path) -> list[str] | None:
    """Return the names of the GPUs' device nodes; None where the folder cannot be read."""
    try:
        return [entry.name for entry in (root / "dev").iterdir() if re.fullmatch(r"nvidia\d+", entry.name)]
    except OSError:
        return None
