"""Timing quality through a whole run on this machine's CPU: a neighbour marks its epochs and no others."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise

import psutil
import pytest

from tests.orchestrator.runs import PATIENCE, Workplace, ended, wait_for

# What strangers may take of one core while this is measured; the limit of a label is a tenth of a core.
STRANGERS = 0.03
EPOCHS, FIRST, LOOP = 30, 4, range(10, 18)


@contextmanager
def busy_loop() -> Iterator[psutil.Process]:
    """A process that keeps one core busy, on a CPU where the trial may run."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()


def used(process: psutil.Process) -> float:
    """CPU seconds of a process, and of those of its children that are gone."""
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return times.user + times.system + times.children_user + times.children_system


def strangers(workplace: Workplace, own: list[psutil.Process]) -> Callable[[], float]:
    """Start a watch; it returns the cores that others than the run, this test and `own` took since."""

    def reading() -> tuple[float, float]:
        times = psutil.cpu_times()
        every = times.user + times.nice + times.system + times.irq + times.softirq + times.steal
        ours = [*workplace.processes(), psutil.Process(os.getpid()), *own]
        return datetime.now(UTC).timestamp(), every - sum(
            map(used, {process.pid: process for process in ours}.values())
        )

    began, before = reading()

    def since() -> float:
        now, after = reading()
        return max(0.0, after - before) / max(now - began, 1e-9)

    return since


def quiet(since: Callable[[], float]) -> None:
    if (cores := since()) > STRANGERS:
        pytest.skip(f"other processes on this machine take {cores:.2f} cores, so that every epoch has foreign load")


@pytest.mark.ray
@pytest.mark.skipif(
    not os.environ.get("ORCHESTRATE_QUIET_MACHINE"),
    reason="needs a machine that nobody else uses: ORCHESTRATE_QUIET_MACHINE=1 says so",
)
def test_a_busy_loop_in_the_middle_of_a_run_marks_exactly_its_epochs(workplace: Workplace):
    idle = strangers(workplace, [])
    wait_for(lambda: False, 2)
    quiet(idle)
    # Epochs of most of a second, of which a moment of something else is a small share.
    grid = workplace.grid(
        *("load", {"methods": [{}]}),
        epochs=EPOCHS,
        fixed={"subset": 100, "width": 8},
        report={"tables": [1], "figures": [], "selection": "last"},
    )
    process = workplace.start("run", grid, "--no-dashboard", "--no-canary")
    with ended(process):

        def trained(count: int) -> bool:
            return wait_for(lambda: process.poll() is not None or workplace.epochs() >= count)

        # Ray is still starting things while the first epochs run.
        assert trained(FIRST)
        watch = strangers(workplace, [])
        assert trained(LOOP.start)
        quiet(watch)
        began = datetime.now(UTC)
        with busy_loop() as loop:
            watch = strangers(workplace, [loop])
            assert trained(LOOP.stop)
            quiet(watch)
            over = datetime.now(UTC)
        watch = strangers(workplace, [])
        assert trained(EPOCHS - 1)
        quiet(watch)
        assert process.wait(PATIENCE) == 0

    query = "SELECT recorded, timing_quality FROM epochs WHERE accepted = 1 ORDER BY epoch"
    rows = [(datetime.fromisoformat(at).replace(tzinfo=UTC), label) for at, label in workplace.ask(query)]
    assert len(rows) == EPOCHS
    before, during, after = [], [], []
    for (start, _), (end, label) in pairwise(rows[FIRST:]):
        # An epoch in which the loop began or ended was shared in part, and either label is right.
        if end < began:
            before.append(label)
        elif began < start and end < over:
            during.append(label)
        elif start > over:
            after.append(label)
    assert set(before) == {"exclusive"}
    assert set(during) == {"foreign load"}
    assert set(after) == {"exclusive"}
    assert min(map(len, (before, during, after))) >= 3

    code, output = workplace.run("report", "--format", "md")
    assert code == 0, output
    (row,) = [line for line in (workplace.folder / "report/table1.md").read_text().splitlines() if "baseline" in line]
    *_, train_time, epoch_time, _ = row.split("|")
    assert "*" in train_time and "*" not in epoch_time
