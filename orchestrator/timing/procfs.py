"""The kernel's table of processes: descent, allowed CPUs, and CPU time used (Linux).

In every function `root` is the folder that contains `proc`, `/` on a real machine.
"""

from __future__ import annotations

import math
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A line of /proc/PID/stat: clock ticks of its own threads, and those of children it has waited for."""

    parent: int
    started: int
    name: str
    ticks: int
    reaped: int


def cpu_ticks(before: dict[int, Process], after: dict[int, Process]) -> dict[int, tuple[int, int]]:
    """Return per process of `after` the ticks since `before`: its own, and those of children that ended meanwhile."""
    gone: dict[int, list[int]] = defaultdict(list)
    for pid, process in before.items():
        if pid not in after or after[pid].started != process.started:
            gone[process.parent].append(pid)

    def total(pid: int) -> int:
        return before[pid].ticks + before[pid].reaped + sum(total(child) for child in gone[pid])

    used = {}
    for pid, now in after.items():
        old = before.get(pid)
        if old is None or old.started != now.started:
            used[pid] = (now.ticks, now.reaped)
            continue
        # A parent inherits all ticks of its child, also those from before `before`.
        reaped = now.reaped - old.reaped - sum(total(child) for child in gone[pid])
        used[pid] = (max(now.ticks - old.ticks, 0), max(reaped, 0))
    return used


def read_process(root: Path, pid: int) -> Process | None:
    """Return the counters of one process, or None when it is gone."""
    try:
        with open(f"{root}/proc/{pid}/stat", "rb") as file:
            line = file.read()
    except OSError:
        return None
    # The name may contain spaces and parentheses.
    name, _, rest = line.partition(b"(")[2].rpartition(b")")
    fields = rest.split()
    if len(fields) < 20:
        return None
    return Process(
        parent=int(fields[1]),
        started=int(fields[19]),
        name=name.decode(errors="replace"),
        ticks=int(fields[11]) + int(fields[12]),
        reaped=int(fields[13]) + int(fields[14]),
    )


def ancestors(pid: int, processes: dict[int, Process]) -> Iterator[int]:
    """Yield parent, grandparent, ... as far as they are in the table."""
    seen = {pid}
    while pid in processes and processes[pid].parent in processes.keys() - seen:
        pid = processes[pid].parent
        seen.add(pid)
        yield pid


def descendants(processes: dict[int, Process], roots: set[int]) -> set[int]:
    """Return the roots and all their descendants."""
    children: dict[int, list[int]] = defaultdict(list)
    for pid, process in processes.items():
        children[process.parent].append(pid)
    family: set[int] = set()
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        if pid not in family:
            family.add(pid)
            waiting.extend(children[pid])
    return family


def allowed_cpus(root: Path, pid: int) -> set[int]:
    """Return the CPUs on which a process may run, by its affinity and its cpuset."""
    status = (root / f"proc/{pid}/status").read_text()
    match = re.search(r"^Cpus_allowed_list:\s*(\S+)", status, re.MULTILINE)
    cpus: set[int] = set()
    for part in match[1].split(",") if match else []:
        first, _, last = part.partition("-")
        cpus.update(range(int(first), int(last or first) + 1))
    return cpus


def processors(root: Path = Path("/"), pid: int | None = None) -> int:
    """Return how many processors a process may use, at least one: by affinity, cpuset and quota of control groups.

    A fractional quota is rounded down. Where the kernel has no such files (not Linux), all processors of the machine
    count.
    """
    try:
        pid = pid or os.getpid()
        # The kernel's list may name processors that are off.
        stat = (root / "proc/stat").read_text()
        online = {int(number) for number in re.findall(r"^cpu(\d+) ", stat, re.MULTILINE)}
        count = float(len(allowed_cpus(root, pid) & online))
        return max(1, math.floor(min([count, *_quotas(root, pid)])))
    except OSError:
        return os.cpu_count() or 1


def cpu_groups(root: Path, pid: int) -> Iterator[Path]:
    """Yield the folders of a process's control group for processors and of every group above it (versions 1 and 2)."""
    for line in (root / f"proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # Beside groups of version 1, version 2 has a folder of its own.
        mounts = [controllers, *controllers.split(",")] if controllers else ["", "unified"]
        for mount in dict.fromkeys(root / "sys/fs/cgroup" / mount for mount in mounts):
            group_path = Path(group.lstrip("/"))
            for level in (group_path, *group_path.parents):
                if (mount / level).is_dir():
                    yield mount / level


def _quotas(root: Path, pid: int) -> Iterator[float]:
    """Yield each control group's limit, in processors."""
    for group in cpu_groups(root, pid):
        for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
            try:
                words = " ".join((group / name).read_text() for name in names).split()
            except OSError:
                continue
            # "max" and -1 mean no limit.
            if len(words) == 2 and words[0].isdecimal() and int(words[1]):
                yield int(words[0]) / int(words[1])
