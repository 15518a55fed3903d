"""Timing quality of an epoch: whether other processes used the device while it ran.

A time is `exclusive` only when it is certain that nobody else used the device; otherwise it is `unknown`.
"""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.timing.cpu import CpuLoad
from orchestrator.timing.gpu import GpuLoad, NoSuchDevice, find_gpu, initialised, load_nvml

# Beside a GPU the processor only launches kernels: when one core and this share of all cores is idle, it never waited.
IDLE_SHARE = 0.1

EXCLUSIVE, PACKED, FOREIGN_LOAD, THROTTLED, UNKNOWN = "exclusive", "packed", "foreign load", "throttled", "unknown"


@dataclass(frozen=True)
class Timing:
    """The quality of an epoch's time, as if this trial were alone on the device (`label` adds co-located ones).

    `detail` is the evidence, in JSON's types. Always present: seconds, samples, foreign_pids, throttled (the reasons),
    unknown (why the above may be incomplete, or None). On a CPU also cores, own_cores, foreign_cores, stolen_cores,
    foreign_limit, idle_cores and processes (pid, name, cores; busiest first); on a GPU uuid, seen_pids,
    utilisation_percent, sm_clock_mhz, sm_clock_max_mhz, used_bytes and power_cap_share, and `processor`, the evidence
    of the processor beside it, as on a CPU.
    """

    quality: str
    detail: dict[str, Any]


class DeviceSampler:
    """A context in which `mark` returns what happened on a device since the mark before.

    `device` is torch's name: cpu, cuda or cuda:1; `uuid` is the GPU's, which torch has from CUDA, because NVML may
    number the GPUs otherwise. `cpus` is the number of processors that the trial asks for. `own_pids` are further
    processes of the tool besides this one, its descendants and its Ray (the driver's, say), or a function that returns
    them; not other trials. A GPU is sampled every `interval` seconds and at every mark; the CPU's counters are read at
    the marks. `nvml` stands in for the module pynvml. Never raises for want of a driver or of counters: the quality is
    then `unknown`.
    """

    def __init__(
        self,
        device: str,
        *,
        uuid: str | None = None,
        cpus: float = 0,
        own_pids: Collection[int] | Callable[[], Collection[int]] = (),
        interval: float = 0.5,
        nvml: Any = None,
        root: Path = Path("/"),
        clock: Callable[[], float] = time.monotonic,
    ):
        self._device, self._uuid, self._cpus = str(device), uuid, cpus
        self._own_pids, self._interval = own_pids, interval
        self._nvml, self._root, self._clock = nvml, root, clock
        self._load: CpuLoad | GpuLoad | None = None
        self._processor: CpuLoad | None = None
        self._reason = "the sampler was not started"

    def __enter__(self) -> DeviceSampler:
        kind = self._device.partition(":")[0]
        try:
            if kind == "cpu":
                self._load = CpuLoad(self._root, self._clock, self._cpus)
            elif kind == "cuda" and self._uuid is None:
                self._reason = f"the UUID of {self._device} is not known, so that it is not known which GPU it is"
            elif kind == "cuda" and self._uuid is not None:
                nvml = self._nvml or load_nvml()
                self._processor = CpuLoad(self._root, self._clock, self._cpus, fine=False)
                self._load = GpuLoad(self._uuid, nvml, self._interval, self._clock, self._root)
            else:
                self._reason = f"there is no way to see who else uses the device {self._device!r}"
        except Exception as error:
            # An error in the timing must not fail a training.
            self._reason = f"{type(error).__name__}: {error}"
        return self

    def __exit__(self, *_: object) -> None:
        if isinstance(self._load, GpuLoad):
            self._load.close()
        self._load = None

    def mark(self) -> Timing:
        """Return the timing since the previous mark, or since the start."""
        detail: dict[str, Any] = {"seconds": None, "samples": 0, "foreign_pids": [], "throttled": []}
        try:
            own_pids = self._own_pids() if callable(self._own_pids) else self._own_pids
            detail |= self._load.since_last(own_pids) if self._load else {"unknown": self._reason}
            if self._load and self._processor:
                processor = self._processor.since_last(own_pids)
                detail["processor"] = processor
                detail["throttled"] = [*detail["throttled"], *processor["throttled"]]
                detail["unknown"] = detail["unknown"] or processor["unknown"]
        except Exception as error:
            detail |= {"unknown": f"{type(error).__name__}: {error}"}
        return Timing(_quality(detail, frozenset(), shared=False), detail)


def label(
    timing: Timing, co_located_pids: Collection[int] = (), shared: bool = False, host_pids: Collection[int] = ()
) -> str:
    """Return the final quality of an epoch's time, given this tool's other trials on the same device.

    `shared` says that one ran there at any time of the epoch; `co_located_pids` are their processes, whose load is not
    foreign; `host_pids` those of trials on other devices of the host, which may keep a GPU's trial from the processor.
    Where several qualities hold, the label is the one that spoils the time most for a reader:

    1. foreign load: of unknown size and not reproducible;
    2. throttled: likewise, but the machine's own doing;
    3. packed: wanted, and the same at every repetition of the grid;
    4. unknown: none of these was seen, but the evidence is incomplete;
    5. exclusive: none of these was present.
    """
    return _quality(timing.detail, frozenset(co_located_pids), shared, frozenset(host_pids))


def worst(timings: Sequence[Timing]) -> Timing:
    """Return the timing, of several ranks', that spoils a time the most (see `label`)."""
    order = (FOREIGN_LOAD, THROTTLED, PACKED, UNKNOWN, EXCLUSIVE)
    return min(timings, key=lambda timing: order.index(timing.quality))


def device_facts(device: str, *, uuid: str | None = None, nvml: Any = None, root: Path = Path("/")) -> dict[str, Any]:
    """Return `name`, `uuid`, `driver` and `memory_bytes` (in total) of a device; None for what cannot be read.

    The `uuid` selects the GPU; without it, in a process that does not use CUDA, CUDA_VISIBLE_DEVICES does.
    """
    facts: dict[str, Any] = {"name": None, "uuid": uuid, "driver": None, "memory_bytes": None}
    kind = str(device).partition(":")[0]
    if kind == "cpu":
        facts["name"] = _cpu_name(root)
        if "SC_PHYS_PAGES" in os.sysconf_names:
            facts["memory_bytes"] = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    elif kind == "cuda":
        nvml = nvml or load_nvml()
        with suppress(nvml.NVMLError, NoSuchDevice), initialised(nvml):
            facts["driver"] = nvml.nvmlSystemGetDriverVersion()
            handle, _ = find_gpu(str(device), nvml, uuid)
            facts["name"] = nvml.nvmlDeviceGetName(handle)
            facts["uuid"] = nvml.nvmlDeviceGetUUID(handle)
            facts["memory_bytes"] = nvml.nvmlDeviceGetMemoryInfo(handle).total
    return facts


def _quality(
    detail: dict[str, Any], co_located: frozenset[int], shared: bool, on_host: frozenset[int] = frozenset()
) -> str:
    processor = detail.get("processor")
    own_trials = co_located | on_host
    if "foreign_cores" in detail:
        # A trial on a GPU of this host takes part of the same processor.
        co_located = own_trials
    if _foreign(detail, co_located) or (processor and _scarce(processor) and _foreign(processor, own_trials)):
        return FOREIGN_LOAD
    if detail["throttled"]:
        return THROTTLED
    if shared or co_located.intersection(detail["foreign_pids"]) or (processor and _scarce(processor)):
        return PACKED
    return UNKNOWN if detail["unknown"] else EXCLUSIVE


def _scarce(processor: dict[str, Any]) -> bool:
    """Return whether others kept a GPU's trial from the processor: they were busy, and almost nothing was idle."""
    busy: bool = processor["foreign_cores"] > processor["foreign_limit"]
    idle: bool = processor["idle_cores"] < max(1.0, IDLE_SHARE * processor["cores"])
    return busy and idle


def _foreign(detail: dict[str, Any], co_located: frozenset[int]) -> bool:
    # A CPU is never without other processes, so their share counts. A process on a GPU can take any share of it between
    # two samples, so its presence counts.
    if "foreign_cores" in detail:
        ours = sum(process["cores"] for process in detail["processes"] if process["pid"] in co_located)
        return bool(detail["foreign_cores"] - ours > detail["foreign_limit"])
    return not co_located.issuperset(detail["foreign_pids"])


def _cpu_name(root: Path) -> str | None:
    try:
        match = re.search(r"^model name\s*:\s*(.+)$", (root / "proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        match = None
    return match[1].strip() if match else platform.processor() or platform.machine() or None
