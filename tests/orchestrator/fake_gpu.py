"""NVML and PyTorch's CUDA on a machine that has neither: they show what a test scripts, and insist on their order."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pynvml
import torch

GPU = "GPU-11111111-aaaa-bbbb-cccc-000000000000"
OTHER_GPU = "GPU-22222222-aaaa-bbbb-cccc-000000000000"
MIG = "MIG-33333333-aaaa-bbbb-cccc-000000000000"


class FakeNvml:
    """NVML with two GPUs, of which the first (and its MIG instance) shows what the test scripts.

    Constants, names and errors are the real module's; so is a missing function's failure.
    """

    def __init__(self, count: int = 2):
        self.uuids = [GPU, OTHER_GPU][:count]
        self.open = 0
        self.calls = 0
        self.pids = {os.getpid(): 900}
        self.used = 900
        self.reasons = 0
        self.slow_call: int | None = None
        self.clock = 1980
        self.errors: dict[str, int] = {}
        # What an old driver does not have.
        self.mps: list[int] = []
        self.held: dict[int, int] | None = None
        self.ran: list[SimpleNamespace] | None = None
        self.forbidden: set[str] = set()

    def __getattr__(self, name):
        if name.startswith(("NVML", "nvmlClocksEventReason", "nvmlMemory_v2")):
            return getattr(pynvml, name)
        raise AttributeError(name)

    def _check(self, function: str) -> None:
        if function in self.errors:
            raise pynvml.NVMLError(self.errors[function])

    def nvmlInit(self):
        self._check("init")
        self.open += 1

    def nvmlShutdown(self):
        self.open -= 1

    def nvmlSystemGetDriverVersion(self):
        return "580.65.06"

    def nvmlDeviceGetCount(self):
        return len(self.uuids)

    def nvmlDeviceGetHandleByIndex(self, index):
        if self.uuids[index] in self.forbidden:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NO_PERMISSION)
        return self.uuids[index]

    def nvmlDeviceGetMPSComputeRunningProcesses(self, handle):
        return [SimpleNamespace(pid=pid, usedGpuMemory=100 * 2**20) for pid in self.mps]

    def nvmlDeviceGetFieldValues(self, handle, fields):
        assert handle != MIG
        if self.held is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return [
            SimpleNamespace(nvmlReturn=pynvml.NVML_SUCCESS, value=SimpleNamespace(ullVal=self.held.get(field, 0)))
            for field in fields
        ]

    def nvmlDeviceGetProcessUtilization(self, handle, since):
        new = [sample for sample in self.ran or () if sample.timeStamp > since]
        if not new:
            # What the real one says where there is nothing new, or where it cannot tell.
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED if self.ran is None else pynvml.NVML_ERROR_NOT_FOUND)
        return new

    def nvmlDeviceGetHandleByUUID(self, uuid):
        assert uuid not in self.forbidden
        if uuid not in (*self.uuids, MIG):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return uuid

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, handle):
        assert handle == MIG
        return GPU

    def nvmlDeviceGetUUID(self, handle):
        return handle

    def nvmlDeviceGetName(self, handle):
        return "NVIDIA H200"

    def nvmlDeviceGetMaxClockInfo(self, handle, kind):
        assert handle != MIG and kind == pynvml.NVML_CLOCK_SM
        return 1980

    def nvmlDeviceGetClockInfo(self, handle, kind):
        assert handle != MIG and kind == pynvml.NVML_CLOCK_SM
        return self.clock

    def nvmlDeviceGetMemoryInfo(self, handle, version=None):
        self._check("memory")
        return SimpleNamespace(used=self.used * 2**20, total=143771 * 2**20)

    def nvmlDeviceGetUtilizationRates(self, handle):
        assert handle != MIG
        self._check("utilisation")
        return SimpleNamespace(gpu=97, memory=40)

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle):
        assert handle != MIG
        self._check("reasons")
        return pynvml.nvmlClocksEventReasonHwSlowdown if self.calls == self.slow_call else self.reasons

    def nvmlDeviceGetComputeRunningProcesses(self, handle):
        self._check("processes")
        self.calls += 1
        if handle == OTHER_GPU:
            return []
        return [
            SimpleNamespace(pid=pid, usedGpuMemory=None if mib is None else mib * 2**20)
            for pid, mib in self.pids.items()
        ]


class FakeCuda:
    """`torch.cuda` of a machine with one GPU, up to the first tensor on it.

    Memory is asked for only after CUDA was initialised, or it answers as the real one does. `asked` names what was
    called, in order; `current` is the number of the device that was made the current one.
    """

    def __init__(self, patch: Callable[[Any, str, Any], None] = setattr) -> None:
        self.asked: list[str] = []
        self.current: int | None = None
        self.initialized = False
        for name in ("max_memory_allocated", "max_memory_reserved", "reset_peak_memory_stats", "memory_stats"):
            patch(torch.cuda, name, partial(self._after_initialisation, name))
        for name in ("init", "_lazy_init", "synchronize"):
            patch(torch.cuda, name, partial(self._initialise, name))
        patch(torch.cuda, "get_device_properties", self._properties)
        patch(torch.cuda, "is_initialized", lambda: self.initialized)
        patch(torch.cuda, "is_available", lambda: True)
        patch(torch.cuda, "device_count", lambda: 1)
        patch(torch.cuda, "set_device", self._set_device)
        patch(torch.cuda, "empty_cache", lambda: None)

    def _set_device(self, device: Any) -> None:
        self.current = device if isinstance(device, int) else torch.device(device).index
        assert self.current is not None, "Expected a torch.device with a specified index"
        self.asked.append("set_device")

    def _initialise(self, name: str, *_: Any) -> None:
        self.initialized = True
        self.asked.append(name)

    def _after_initialisation(self, name: str, *_: Any) -> int:
        if not self.initialized:
            raise RuntimeError("Invalid device argument 0: did you call init?")
        self.asked.append(name)
        return 0

    def _properties(self, device: Any = None) -> SimpleNamespace:
        self._initialise("get_device_properties")
        return SimpleNamespace(uuid=GPU.removeprefix("GPU-"), name="NVIDIA H200", total_memory=143771 * 2**20)


def train_on_the_cpu_instead() -> None:
    """In a worker: all that a trial does on cuda:0 is done, up to the training itself, which runs on the CPU."""
    import orchestrator.timing.sampler
    import trainer.canary
    import trainer.train

    if isinstance(getattr(trainer.train.train, "on_cuda", None), bool):
        return
    FakeCuda()
    orchestrator.timing.sampler.load_nvml = FakeNvml

    def moved(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, device: str, **more: Any) -> Any:
            assert device == "cuda:0" and torch.cuda.is_initialized(), device
            return real(*arguments, device="cpu", **more)

        call.on_cuda = True
        return call

    trainer.train.train = moved(trainer.train.train)
    trainer.canary.rehearse = moved(trainer.canary.rehearse)
