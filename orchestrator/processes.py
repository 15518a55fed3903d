"""The kernel's table of processes: who descends from whom, who may run where, who used how much CPU time (Linux).

In every function `root` is the folder in which `proc` lies, `/` on a real machine.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """One line of /proc/PID/stat: clock ticks of its own threads, and those of children it has waited for."""

    parent: int
    started: int
    name: str
    ticks: int
    reaped: int


def cpu_ticks(before: dict[int, Process], after: dict[int, Process]) -> dict[int, tuple[int, int]]:
    """Per process of `after` the ticks since `before`: its own, and those of children that ended meanwhile."""
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
        # A parent inherits all that its child ever used, of which the part before `before` is not of this time.
        reaped = now.reaped - old.reaped - sum(total(child) for child in gone[pid])
        used[pid] = (max(now.ticks - old.ticks, 0), max(reaped, 0))
    return used


def read_process(root: Path, pid: int) -> Process | None:
    """The counters of one process, or None when it is gone."""
    try:
        with open(f"{root}/proc/{pid}/stat", "rb") as file:
            line = file.read()
    except OSError:
        return None
    # The name may hold spaces and parentheses.
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
    """Parent, grandparent, ... as far as they are known."""
    seen = {pid}
    while pid in processes and processes[pid].parent in processes.keys() - seen:
        pid = processes[pid].parent
        seen.add(pid)
        yield pid


def descendants(processes: dict[int, Process], roots: set[int]) -> set[int]:
    """The roots and whatever descends from them."""
    children: dict[int, list[int]] = defaultdict(list)
    for pid, process in processes.items():
        children[process.parent].append(pid)
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting.extend(children[pid])
    return found


def allowed_cpus(root: Path, pid: int) -> set[int]:
    """The CPUs on which a process may run, by its affinity and its cpuset."""
    status = (root / f"proc/{pid}/status").read_text()
    match = re.search(r"^Cpus_allowed_list:\s*(\S+)", status, re.MULTILINE)
    cpus: set[int] = set()
    for part in match[1].split(",") if match else []:
        first, _, last = part.partition("-")
        cpus.update(range(int(first), int(last or first) + 1))
    return cpus
