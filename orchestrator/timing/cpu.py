"""CPU time that other processes used between two moments, from the kernel's own counters (Linux).

The counters only ever grow, so two readings give the exact mean over the time between them: no sampling, no thread, and
no cost while an epoch runs. A reading takes a few milliseconds.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.timing.procfs import (
    Process,
    allowed_cpus,
    ancestors,
    cpu_groups,
    cpu_ticks,
    descendants,
    processors,
    read_process,
)

# Threshold in cores, as a mean over the epoch. An idle machine uses less by itself (a few hundredths of a core, Ray's
# daemons not counted); beside a trial that keeps one core busy it costs at most a tenth of the time.
FOREIGN_CORES = 0.10
# A time is not judged when it is so short that the rounding of the counters could hide this many cores.
HIDDEN_CORES = 0.5
# Cores of an idle Ray worker are about 0.007; there may be as many workers as the machine has cores.
IDLE_WORKER_CORES = 0.02
# Processes that use fewer cores are not listed in the evidence.
LISTED_CORES = 0.01
# Share of an epoch in which the device was throttled, from which on it counts: less costs at most this share of the
# time.
THROTTLED_SHARE = 0.05

RAY_AGENTS = ("ray::DashboardA", "ray::RuntimeEnv")  # the kernel cuts names at 15 characters


@dataclass(frozen=True)
class Snapshot:
    """The counters at one moment, in seconds; ticks of work and ticks stolen by the hypervisor, per CPU."""

    at: float
    work: dict[int, int]
    stolen: dict[int, int]
    processes: dict[int, Process]
    throttled: dict[tuple[str, Path], float]


class CpuLoad:
    """The CPU time that others took from the CPUs that this process may use.

    `asked` is the number of processors that the trial asks for: with fewer of them its times are not judged.
    `fine=False` is for the processor beside a GPU, where shares of a core do not matter, nor the rounding of the
    counters.

    Not counted as others are: this process and its descendants, the `own_pids`, and Ray's daemons (the raylet above
    this process, the driver that started it, processes of the same Ray session, idle workers). Busy workers of the same
    Ray count as others and are listed by pid: only the driver knows their trials. `root` contains proc and sys.

    Raises:
        OSError: the system has no such counters.
    """

    def __init__(
        self, root: Path = Path("/"), clock: Callable[[], float] = time.monotonic, asked: float = 0, fine: bool = True
    ):
        self._root, self._clock, self._me, self._asked, self._fine = root, clock, os.getpid(), asked, fine
        self._serves_ray: dict[tuple[int, int], bool] = {}
        self._cpus = allowed_cpus(root, self._me)
        # CPUs that a quota leaves of them.
        self._usable = processors(root, self._me)
        self._throttle_files = [*_quota_files(root, self._me), *_thermal_files(root, self._cpus)]
        mounts = (root / f"proc/{self._me}/mountinfo").read_text().splitlines()
        self._virtual = any("lxcfs" in line and " /proc/stat " in line for line in mounts)
        self._before = self._snapshot()

    def since_last(self, own_pids: Collection[int]) -> dict[str, Any]:
        """Return the evidence since the last call, or since the beginning: means over that time, in cores."""
        before, after = self._before, self._snapshot()
        self._before = after
        seconds = max(after.at - before.at, 1e-6)
        per_core = os.sysconf("SC_CLK_TCK") * seconds
        # The counter of every CPU is rounded to a tick on its own, so the error grows with the root of their number.
        error = 4 * math.sqrt(len(after.work)) / per_core

        ticks = cpu_ticks(before.processes, after.processes)
        if len(after.work) < self._online:
            # The kernel does not count where a process ran: one that may use other CPUs as well may have run only
            # there.
            ticks = {pid: used if self._stays_here(pid) else (0, 0) for pid, used in ticks.items()}
        raylet = next((pid for pid in ancestors(self._me, after.processes) if after.processes[pid].name == "raylet"), 0)
        family = descendants(after.processes, {self._me})
        daemons = self._ray_daemons(after.processes, raylet)
        workers = {pid for pid, process in after.processes.items() if raylet and process.parent == raylet}
        workers -= family | daemons
        idle = {pid for pid in workers if sum(ticks[pid]) / per_core < IDLE_WORKER_CORES}
        attendants = ((set(own_pids) & after.processes.keys()) | daemons | idle) - family
        # The ticks of an attendant's ended children may be anyone's: a worker of another trial ends as a child of the
        # raylet.
        own = sum(sum(ticks[pid]) for pid in family) + sum(ticks[pid][0] for pid in attendants)
        stolen = _growth(before.stolen, after.stolen)
        rest = _growth(before.work, after.work) + stolen - own

        foreign: dict[int, int] = defaultdict(int)
        for pid in after.processes.keys() - family - attendants:
            # The children of a busy worker belong to its trial.
            line = [pid, *ancestors(pid, after.processes)]
            foreign[next((ancestor for ancestor in line if ancestor in workers), pid)] += sum(ticks[pid])
        listed = [
            {"pid": pid, "name": after.processes[pid].name, "cores": round(count / per_core, 4)}
            for pid, count in sorted(foreign.items(), key=lambda item: -item[1])
            if count / per_core >= LISTED_CORES
        ]

        unknown = None
        if self._virtual:
            unknown = "/proc/stat is that of a container (lxcfs), not of the machine"
        elif self._usable < math.floor(self._asked):
            unknown = f"the trial asks for {self._asked:g} processors and may use {self._usable}"
        elif error > HIDDEN_CORES and self._fine:
            unknown = f"{seconds:.3f} s are too short for the kernel's CPU counters"
        elif rest < -(error * per_core + 0.1 * own):
            unknown = "the kernel's CPU counters leave out this process"
        return {
            "seconds": round(seconds, 3),
            "samples": 2,
            "cores": len(after.work),
            "own_cores": round(own / per_core, 4),
            "foreign_cores": round(max(rest, 0) / per_core, 4),
            "stolen_cores": round(stolen / per_core, 4),
            "foreign_limit": round(FOREIGN_CORES + error, 4),
            "idle_cores": round(max(len(after.work) - (own + max(rest, 0)) / per_core - error, 0), 4),
            "foreign_pids": [process["pid"] for process in listed],
            "processes": listed,
            "throttled": _throttles(before, after, seconds),
            "unknown": unknown,
        }

    def _snapshot(self) -> Snapshot:
        at = self._clock()
        work, stolen = {}, {}
        lines = re.findall(r"^cpu(\d+) (.*)$", (self._root / "proc/stat").read_text(), re.MULTILINE)
        self._online = len(lines)
        for cpu, counters in lines:
            if int(cpu) in self._cpus:
                # user includes guests; a CPU that waits for a disk (iowait) is free for others.
                user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, counters.split()[:8])
                work[int(cpu)] = user + nice + system + irq + softirq
                stolen[int(cpu)] = steal
        processes = {}
        with os.scandir(self._root / "proc") as entries:
            for entry in entries:
                process = read_process(self._root, int(entry.name)) if entry.name.isdigit() else None
                if process is not None:
                    processes[int(entry.name)] = process
        throttled = {(cause, path): _throttled_seconds(path) for cause, path in self._throttle_files}
        return Snapshot(at, work, stolen, processes, throttled)

    def _ray_daemons(self, processes: dict[int, Process], raylet: int) -> set[int]:
        """Return the raylet, its agents, its driver, and processes started for its session; no workers, no jobs."""
        if not raylet:
            return set()
        session = re.search(rb"session_\d{4}-[\w.-]+", _command_line(self._root, raylet))
        before, self._serves_ray = self._serves_ray, {}
        for pid, process in processes.items():
            key = (pid, process.started)
            # Read once per process: there may be thousands, and few are new.
            if key not in before:
                before[key] = session is not None and session[0] in _command_line(self._root, pid)
            self._serves_ray[key] = before[key]
        serving = {pid for (pid, _), serves in self._serves_ray.items() if serves} - {raylet}
        agents = {pid for pid, process in processes.items() if process.parent == raylet and process.name in RAY_AGENTS}
        # The parent of a raylet that outlived `ray start` is init, not a driver.
        driver = ({processes[raylet].parent} & processes.keys()) - {1}
        return {raylet} | driver | agents | descendants(processes, serving)

    def _stays_here(self, pid: int) -> bool:
        try:
            return allowed_cpus(self._root, pid) <= self._cpus
        except OSError:
            return False


def _growth(before: dict[int, int], after: dict[int, int]) -> int:
    return sum(after[cpu] - before[cpu] for cpu in before.keys() & after.keys())


def _throttles(before: Snapshot, after: Snapshot, seconds: float) -> list[str]:
    held: dict[str, float] = defaultdict(float)
    for (cause, path), value in after.throttled.items():
        held[cause] = max(held[cause], (value - before.throttled[cause, path]) / seconds)
    return sorted(cause for cause, share in held.items() if share > THROTTLED_SHARE)


def _throttled_seconds(path: Path) -> float:
    try:
        words = path.read_text().split()
    except OSError:
        return 0.0
    if len(words) == 1:
        return int(words[0]) / 1e3
    counters = dict(zip(words[::2], map(int, words[1::2]), strict=False))
    return counters.get("throttled_usec", 0) / 1e6 + counters.get("throttled_time", 0) / 1e9


def _quota_files(root: Path, pid: int) -> Iterator[tuple[str, Path]]:
    """Yield the cpu.stat of this process's control group and of every group above it; any may hold a quota."""
    for group in cpu_groups(root, pid):
        if (group / "cpu.stat").is_file():
            yield "CPU quota", group / "cpu.stat"


def _thermal_files(root: Path, cpus: set[int]) -> Iterator[tuple[str, Path]]:
    """Yield the counters of milliseconds that each CPU was slowed down for heat; the kernel has them on Intel only.

    Frequencies are not read: a read wakes idle CPUs, and no value separates heat from an idle core.
    """
    for cpu in sorted(cpus):
        for part in ("core", "package"):
            path = root / f"sys/devices/system/cpu/cpu{cpu}/thermal_throttle/{part}_throttle_total_time_ms"
            if path.is_file():
                yield "CPU heat", path


def _command_line(root: Path, pid: int) -> bytes:
    try:
        return (root / f"proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
