"""Disturb a grid while it runs: each disturbance hits one run at a random moment and says what it did."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.orchestrator.runs import ROOT, Results, Run, Workplace, differences, ended, name_of, wait_for

# Every kind of state that a checkpoint holds: soft targets, heads, a second network, a teacher trained beforehand.
METHODS = [{}, {"pskd": {}}, {"byot": {}, "dmfl": {}, "pskd": {}}, {"dml": {}}, {"tfkd": {}}]
EPOCHS = 4


def write_grid(place: Workplace) -> Path:
    """Five small trials."""
    return place.grid("chaos", {"methods": METHODS}, epochs=EPOCHS)


class Unexpected(Exception):
    """A run that was disturbed did not end as it should."""


# A disturbance gets the place, the grid and a source of randomness, and returns a few words.
Disturbance = Callable[[Workplace, Path, random.Random], str]


def kill_worker(place: Workplace, grid: Path, chance: random.Random) -> str:
    """SIGKILL to a process that trains, up to three times; the run replaces it and goes on."""
    with ended(_start(place, grid)) as run:
        words = []
        for _ in range(chance.randint(1, 3)):
            words.append(_moment(place, run, chance, starting=False))
            # In the order of their numbers, so that the choice is the seed's.
            workers = sorted(place.workers(), key=lambda process: process.pid)
            _kill([chance.choice(workers)] if workers else [])
        _expect(run, 0)
    return f"SIGKILL to a worker {', '.join(words)}"


def kill_driver(place: Workplace, grid: Path, chance: random.Random) -> str:
    """SIGKILL to the driver; the next run starts at once, while the old one's workers may still be there."""
    with ended(_start(place, grid)) as run:
        moment = _moment(place, run, chance)
        run.send_signal(signal.SIGKILL)
        _expect(run, 128 + signal.SIGKILL)
    return f"SIGKILL to the driver {moment}"


def kill_ray(place: Workplace, grid: Path, chance: random.Random) -> str:
    """SIGKILL to a process of Ray itself, as the kernel's out-of-memory killer might."""
    name = chance.choice(["raylet", "gcs_server"])
    with ended(_start(place, grid)) as run:
        moment = _moment(place, run, chance, starting=False)
        _kill([process for process in place.processes() if name_of(process) == name])
        _expect(run, 1)
        _tidy(place, run)
    return f"SIGKILL to Ray's {name} {moment}"


def terminate(place: Workplace, grid: Path, chance: random.Random) -> str:
    """SIGTERM to the driver, as a batch system or a shutdown sends it."""
    with ended(_start(place, grid)) as run:
        moment = _moment(place, run, chance)
        run.send_signal(signal.SIGTERM)
        _expect(run, 128 + signal.SIGTERM)
        _tidy(place, run)
    return f"SIGTERM {moment}"


def interrupt(place: Workplace, grid: Path, chance: random.Random) -> str:
    """Ctrl-C."""
    with ended(_start(place, grid)) as run:
        moment = _moment(place, run, chance)
        run.press_ctrl_c()
        _expect(run, 128 + signal.SIGINT)
        _tidy(place, run)
    return f"Ctrl-C {moment}"


def interrupt_twice(place: Workplace, grid: Path, chance: random.Random) -> str:
    """Ctrl-C, and again before the first one has ended the run."""
    with ended(_start(place, grid)) as run:
        moment = _moment(place, run, chance)
        run.press_ctrl_c()
        time.sleep(chance.uniform(0, 1))
        run.press_ctrl_c()
        _expect(run, 128 + signal.SIGINT)
        _tidy(place, run)
    return f"Ctrl-C twice {moment}"


def stop_node(place: Workplace, grid: Path, chance: random.Random) -> str:
    """A node of a cluster of two is lost; the other one finishes the grid."""
    with two_nodes(place) as (address, stop), ended(_start(place, grid, "--address", address)) as run:
        moment = _moment(place, run, chance, starting=False)
        stop()
        _expect(run, 0)
    return f"a node is lost {moment}"


DISTURBANCES: list[Disturbance] = [
    kill_worker,
    kill_driver,
    kill_ray,
    terminate,
    interrupt,
    interrupt_twice,
    stop_node,
]


def recover(place: Workplace, grid: Path, expected: Results) -> list[str]:
    """Run the grid again after it was disturbed; return how its results differ from those of an undisturbed run."""
    code, output = place.run("run", grid, "--no-dashboard", output="again.txt")
    problems = [] if code == 0 else [f"the next run ended with {code}:\n{output}"]
    problems += place.doubtful() + differences(place.results(), expected)
    return problems + [f"still running: {process}" for process in place.processes_left()]


@contextmanager
def two_nodes(place: Workplace) -> Iterator[tuple[str, Callable[[], None]]]:
    """The address of a cluster of two nodes, and what stops the second one."""
    environment = {**os.environ, "PYTHONPATH": f"{place.code}:{ROOT}", "RAY_TMPDIR": str(place.folder)}
    command = [sys.executable, "-m", "tests.chaos.two_nodes"]
    with subprocess.Popen(
        command, cwd=place.folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as cluster:
        assert cluster.stdin and cluster.stdout

        def stop() -> None:
            cluster.stdin.write("stop\n")
            cluster.stdin.flush()
            while cluster.stdout.readline().strip() not in ("stopped", ""):
                pass

        try:
            yield cluster.stdout.readline().strip(), stop
        finally:
            with contextlib.suppress(BrokenPipeError):
                cluster.stdin.close()


def _start(place: Workplace, grid: Path, *options: str) -> Run:
    return place.start("run", grid, "--no-dashboard", *options, output="disturbed.txt")


def _moment(place: Workplace, run: Run, chance: random.Random, *, starting: bool = True) -> str:
    """Wait for a random moment of a run: while Ray starts, or in the middle of an epoch; says which."""
    if starting and chance.random() < 0.25:
        wait_for(lambda: len(place.processes()) > 1 or run.over())
        wait = chance.uniform(0, 6)
        time.sleep(wait)
        return f"{wait:.1f} s after Ray began to start"
    target = place.epochs() + chance.randint(1, len(METHODS) * EPOCHS // 3)
    if not wait_for(lambda: place.epochs() >= target or run.over()):
        raise Unexpected(f"the run came to nothing:\n{run.text()}")
    wait = chance.uniform(0, 0.7)
    time.sleep(wait)
    return f"{wait:.1f} s after epoch {target} of {len(METHODS) * EPOCHS}"


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _expect(run: Run, code: int) -> None:
    """Raise Unexpected unless the run ends with this code, or was done before it was disturbed; without a traceback."""
    exit_code = run.code()
    if exit_code not in (code, 0):
        raise Unexpected(f"the run ended with {exit_code}, not {code}:\n{run.text()}")
    if "Traceback" in run.text():
        raise Unexpected(f"the run ended with a traceback:\n{run.text()}")


def _tidy(place: Workplace, run: Run) -> None:
    """Raise Unexpected where a run that had the time to end in order left something behind."""
    left = [f"still running: {process}" for process in place.processes_left()]
    # A signal that comes before Ray is being started kills at once.
    if run.returncode > 0:
        left += place.unfinished()
    if left:
        raise Unexpected("\n".join(left))
