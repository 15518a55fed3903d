"""Other processes on a GPU, and throttling of its clocks, as NVML reports them several times a second."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from orchestrator.errors import OrchestrateError
from orchestrator.timing.cpu import THROTTLED_SHARE
from orchestrator.timing.procfs import read_process

# Heat, and a power supply that cannot deliver. The software power cap is not among them: a card at full load keeps to
# its rated power by it, in every epoch alike. Nor are clocks that the owner has locked. A slowdown may show in a sample
# whenever the clocks change, so it counts from THROTTLED_SHARE on.
THROTTLE_REASONS = {
    "nvmlClocksEventReasonHwSlowdown": "hardware slowdown",
    "nvmlClocksEventReasonSwThermalSlowdown": "software thermal slowdown",
    "nvmlClocksEventReasonHwThermalSlowdown": "hardware thermal slowdown",
    "nvmlClocksEventReasonHwPowerBrakeSlowdown": "power brake",
}
# The driver's counters of the same reasons, in nanoseconds: exact where a sample twice a second is not.
THROTTLE_COUNTERS = {
    "NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN": "software thermal slowdown",
    "NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN": "hardware thermal slowdown",
    "NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN": "power brake",
}
# The driver's own samples of the processes that have run kernels are at most this far apart.
SAMPLE_MICROSECONDS = 1_000_000
# The server that runs the kernels of the clients of CUDA's multi-process service; NVML lists the clients themselves.
MPS_SERVER = "nvidia-cuda-mps"
# Bytes; even an idle CUDA context takes more memory.
CONTEXT_BYTES = 64 * 2**20
# The pid namespace of the machine itself; a container without --pid=host has another one.
MACHINE_PIDS = "pid:[4026531836]"


class NoSuchDevice(OrchestrateError):
    """No GPU of that name is available to this process; the message says why."""


@dataclass(frozen=True)
class Sample:
    """NVML's values at one moment; None where this GPU does not report one."""

    pids: frozenset[int]
    processes_bytes: int | None
    used_bytes: int | None
    utilisation: int | None
    sm_clock: int | None
    reasons: int | None


class GpuLoad:
    """Samples one GPU every `interval` seconds in a daemon thread, until `close`.

    A sample takes NVML a fraction of a millisecond, without the interpreter's lock. Counters of the driver, where it
    has them, cover the time between two samples: how long the clocks were throttled, and which processes ran kernels.
    `uuid` is NVML's for the GPU or MIG instance; `nvml` is the module pynvml.

    Raises:
        NoSuchDevice: no such GPU.
        nvml.NVMLError: no driver, or no permission.
    """

    def __init__(self, uuid: str, nvml: Any, interval: float, clock: Callable[[], float], root: Path = Path("/")):
        self._nvml, self._interval, self._clock, self._root = nvml, interval, clock, root
        self._samples: list[Sample] = []
        self._errors: list[str] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        nvml.nvmlInit()
        try:
            self._uuid = uuid
            self._handle, self._board = find_gpu("", nvml, uuid)
            self._max_clock = self._optional(lambda: nvml.nvmlDeviceGetMaxClockInfo(self._board, nvml.NVML_CLOCK_SM))
        except BaseException:
            nvml.nvmlShutdown()
            raise
        self._isolated = self._in_pid_namespace()
        self._since = clock()
        self._held = self._held_nanoseconds()
        self._ran_until = 0
        self._who_ran()
        if self._ran_until:
            # The next sample may still show processes of the previous trial.
            self._ran_until += SAMPLE_MICROSECONDS
        self._thread = threading.Thread(target=self._run, name="gpu-load", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop sampling."""
        self._stop.set()
        self._thread.join(timeout=5)
        # A driver that hangs keeps its thread; shutting NVML down under the thread could crash the process.
        if not self._thread.is_alive():
            self._nvml.nvmlShutdown()

    def since_last(self, own_pids: Collection[int]) -> dict[str, Any]:
        """Return the evidence since the last call, or since the beginning; takes a sample, so there is always one."""
        self._sample()
        now = self._clock()
        with self._lock:
            samples, self._samples = self._samples, []
            errors, self._errors = self._errors, []
        seconds, self._since = now - self._since, now
        held, self._held = self._held, self._held_nanoseconds()

        me = os.getpid()
        seen = frozenset().union(*(sample.pids for sample in samples), self._who_ran())
        own = {pid for pid in seen if pid == me or pid in own_pids or self._descends_from(pid, me)}
        own |= {pid for pid in seen - own if self._serves_mps(pid)}
        unknown = errors[0] if errors else None
        if me not in seen and self._isolated and len(seen) == 1:
            # In a container too, drivers may give the machine's pids. The epoch ran here, so the only pid listed is
            # ours.
            own = set(seen)
        elif me not in seen:
            own = set(seen)
            unknown = unknown or (
                f"NVML does not list this process ({me}) on {self._uuid}, so its own load cannot be told from that of "
                "others (a container needs --pid=host)"
            )
        unknown = unknown or self._blind_spot(samples)

        def mean(name: str) -> float | None:
            values = [getattr(sample, name) for sample in samples if getattr(sample, name) is not None]
            return round(fmean(values), 1) if values else None

        def share(reason: str) -> float:
            bit = getattr(self._nvml, reason)
            return sum(bool((sample.reasons or 0) & bit) for sample in samples) / max(len(samples), 1)

        if held is not None and self._held is not None:
            shares = {name: (self._held[name] - held[name]) / 1e9 / max(seconds, 1e-6) for name in held}
        else:
            shares = {name: share(reason) for reason, name in THROTTLE_REASONS.items()}
        return {
            "seconds": round(seconds, 3),
            "samples": len(samples),
            "uuid": self._uuid,
            "foreign_pids": sorted(seen - own),
            "seen_pids": sorted(seen),
            "utilisation_percent": mean("utilisation"),
            "sm_clock_mhz": mean("sm_clock"),
            "sm_clock_max_mhz": self._max_clock,
            "used_bytes": max((sample.used_bytes or 0 for sample in samples), default=0),
            "power_cap_share": round(share("nvmlClocksEventReasonSwPowerCap"), 4),
            "throttled": [name for name, part in shares.items() if part > THROTTLED_SHARE],
            "unknown": unknown,
        }

    def _held_nanoseconds(self) -> dict[str, int] | None:
        """Return how long the clocks were throttled so far, by reason; None where the driver does not count it."""
        counters = [getattr(self._nvml, counter) for counter in THROTTLE_COUNTERS]
        values = self._where_counted(lambda: self._nvml.nvmlDeviceGetFieldValues(self._board, counters))
        if values is None or any(value.nvmlReturn != self._nvml.NVML_SUCCESS for value in values):
            return None
        return {name: value.value.ullVal for name, value in zip(THROTTLE_COUNTERS.values(), values, strict=True)}

    def _who_ran(self) -> set[int]:
        """Return the processes that have run kernels since the last call, by the driver's own samples."""
        samples = self._where_counted(lambda: self._nvml.nvmlDeviceGetProcessUtilization(self._handle, self._ran_until))
        if not samples:
            return set()
        new = [sample for sample in samples if sample.timeStamp > self._ran_until]
        self._ran_until = max((sample.timeStamp for sample in new), default=self._ran_until)
        return {sample.pid for sample in new if sample.smUtil}

    def _where_counted(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except self._nvml.NVMLError:
            # Not available on this GPU, or nothing new: the samples remain.
            return None

    def _serves_mps(self, pid: int) -> bool:
        process = read_process(self._root, pid)
        return process is not None and process.name.startswith(MPS_SERVER)

    def _blind_spot(self, samples: list[Sample]) -> str | None:
        if any(sample.reasons is None for sample in samples):
            return "this GPU does not tell why its clocks are low"
        if not self._isolated:
            return None
        # Newer drivers hide the processes of other containers; the memory of those processes shows.
        for sample in samples:
            if sample.processes_bytes is None or sample.used_bytes is None:
                return "processes outside this container cannot be seen (it needs --pid=host)"
            hidden = sample.used_bytes - sample.processes_bytes
            if hidden > CONTEXT_BYTES:
                return f"{hidden / 2**20:.0f} MiB of the GPU's memory belong to processes outside this container"
        return None

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            self._sample()

    def _sample(self) -> None:
        # An error here must not end a training; it makes the epoch's timing unknown.
        try:
            sample = self._read()
        except Exception as error:
            with self._lock:
                self._errors.append(f"NVML: {error}")
        else:
            with self._lock:
                self._samples.append(sample)

    def _read(self) -> Sample:
        nvml, handle, board = self._nvml, self._handle, self._board
        processes = {process.pid: process for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle)}
        for process in self._optional(lambda: nvml.nvmlDeviceGetMPSComputeRunningProcesses(handle)) or ():
            processes.setdefault(process.pid, process)
        taken = [process.usedGpuMemory for process in processes.values()]
        return Sample(
            pids=frozenset(processes),
            processes_bytes=None if None in taken else sum(taken),
            used_bytes=self._optional(lambda: nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2).used),
            utilisation=self._optional(lambda: nvml.nvmlDeviceGetUtilizationRates(board).gpu),
            sm_clock=self._optional(lambda: nvml.nvmlDeviceGetClockInfo(board, nvml.NVML_CLOCK_SM)),
            reasons=self._optional(lambda: nvml.nvmlDeviceGetCurrentClocksEventReasons(board)),
        )

    def _optional(self, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except self._nvml.NVMLError as error:
            nvml = self._nvml
            untold = (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_FUNCTION_NOT_FOUND, nvml.NVML_ERROR_NO_PERMISSION)
            if error.value in untold:
                return None
            raise

    def _descends_from(self, pid: int, ancestor: int) -> bool:
        line = {}
        while pid not in line and (process := read_process(self._root, pid)) is not None:
            line[pid] = process
            pid = process.parent
        return ancestor in line and pid != ancestor

    def _in_pid_namespace(self) -> bool:
        try:
            return os.readlink(self._root / "proc/self/ns/pid") != MACHINE_PIDS
        except OSError:
            return True


def load_nvml() -> Any:
    """Return the module pynvml, imported only for a GPU: it is a megabyte of declarations."""
    import pynvml

    return pynvml


@contextmanager
def initialised(nvml: Any) -> Iterator[None]:
    """Open the driver's library for a while; raises nvml.NVMLError where there is no driver."""
    nvml.nvmlInit()
    try:
        yield
    finally:
        nvml.nvmlShutdown()


def find_gpu(device: str, nvml: Any, uuid: str | None = None) -> tuple[Any, Any]:
    """Return the NVML handle of a GPU and that of its board; they differ for a MIG instance, which has no clocks.

    The `uuid` is certain. Without one, as in a process that does not use CUDA, cuda:i is the i-th of
    CUDA_VISIBLE_DEVICES among the GPUs that this process may use, which are those of the job under Slurm.

    Raises:
        NoSuchDevice: there is no such GPU.
        nvml.NVMLError: the driver does not answer.
    """
    if uuid is None:
        index = int(device.partition(":")[2] or 0)
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        handles = allowed_gpus(nvml)
        names = [str(i) for i in range(len(handles))] if visible is None else [n.strip() for n in visible.split(",")]
        if index >= len(names) or not names[index]:
            raise NoSuchDevice(f"{device} is not among CUDA_VISIBLE_DEVICES={visible}")
        name = names[index]
        if name.isdecimal():
            if int(name) >= len(handles):
                raise NoSuchDevice(
                    f"{device} is GPU {name} in CUDA_VISIBLE_DEVICES={visible}, but there are {len(handles)} GPUs"
                )
            return handles[int(name)], handles[int(name)]
        if not name.startswith("MIG-"):
            # CUDA accepts the first letters of a UUID where they are unique.
            fitting = [handle for handle in handles if nvml.nvmlDeviceGetUUID(handle).startswith(name)]
            if len(fitting) != 1:
                raise NoSuchDevice(f"{device} is {name!r} in CUDA_VISIBLE_DEVICES={visible}, which names no single GPU")
            return fitting[0], fitting[0]
        uuid = name
    handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
    return handle, nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle) if uuid.startswith("MIG-") else handle


def gpus_here(nvml: Any = None) -> int:
    """Return how many GPUs of this machine this process may use, without PyTorch and Ray; 0 without a driver."""
    nvml = nvml or load_nvml()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    # CUDA ignores a list from its first invalid name on; -1 and an empty value stand for no GPU.
    listed = None if visible is None else [name for name in visible.split(",") if name.strip() not in ("", "-1")]
    try:
        with initialised(nvml):
            allowed = len(allowed_gpus(nvml))
    except nvml.NVMLError:
        return 0
    return (
        allowed
        if listed is None
        else len(listed)
        if any("MIG-" in name for name in listed)
        else min(allowed, len(listed))
    )


def allowed_gpus(nvml: Any) -> list[Any]:
    """Return the handles of the GPUs that this process may use, in the order of the bus; NVML counts all GPUs."""
    handles = []
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            handles.append(nvml.nvmlDeviceGetHandleByIndex(index))
        except nvml.NVMLError as error:
            if error.value not in (nvml.NVML_ERROR_NO_PERMISSION, nvml.NVML_ERROR_GPU_IS_LOST):
                raise
    return handles
