"""The short form of `make chaos`: every kind of end once, damaged checkpoints among them, and the loss of a node.

The moments are not random here: every trial waits in its third epoch for as long as a file exists.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import tests.orchestrator
from tests.chaos.disturbances import recover, two_nodes
from tests.orchestrator.runs import Results, Run, Workplace, differences, ended, wait_for, workplace

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1200)]

EPOCHS, WAITS_IN = 4, 2
# Every kind of state that a checkpoint holds: soft targets, heads, a teacher trained beforehand.
METHODS = [{"byot": {}, "dmfl": {}, "pskd": {}}, {"tfkd": {}}]


@pytest.fixture(scope="module")
def place() -> Iterator[Workplace]:
    with workplace() as folder:
        shutil.copy(Path(tests.orchestrator.__file__).parent / "sabotage.py", folder.code / "trainer/methods")
        yield folder


@pytest.fixture(scope="module")
def gate(place: Workplace) -> Path:
    """The file for which the trials wait, once it is there."""
    return place.folder / "gate"


@pytest.fixture(scope="module")
def grid(place: Workplace, gate: Path) -> Path:
    """Two trials, which run at once, whatever the machine has."""
    return write_grid(place, gate, cpu=0.5)


def write_grid(place: Workplace, gate: Path, cpu: float) -> Path:
    waits = {"sabotage": {"how": "wait", "flag": str(gate), "at": WAITS_IN}}
    methods = [{**method, **waits} for method in METHODS]
    return place.grid("chaos", {"methods": methods}, epochs=EPOCHS, resources={"gpu": 0, "cpu": cpu})


@pytest.fixture(scope="module")
def expected(place: Workplace, grid: Path) -> Results:
    """The results of a run that nothing disturbed."""
    results = place.undisturbed(grid)
    assert len(results) == len(METHODS)
    return results


def until(run: Run, condition) -> None:
    """Wait for something to happen while the run goes on."""
    assert wait_for(lambda: condition() or run.over())
    assert not run.over(), run.text()


def waiting(place: Workplace) -> dict[str, int]:
    """The trials that wait at the gate, by key, with the process of each."""
    return dict(place.ask(
        "SELECT t.key, a.pid FROM trials t JOIN attempts a ON a.trial_id = t.id AND a.outcome IS NULL AND "
        f"(SELECT count(*) FROM epochs e WHERE e.trial_id = t.id AND e.accepted = 1) = {WAITS_IN} ORDER BY a.id"
    ))  # fmt: skip


def superseded(place: Workplace) -> list[tuple[str, int]]:
    """The epochs that were trained again: trial and epoch."""
    return place.ask(
        "SELECT t.key, e.epoch FROM epochs e JOIN trials t ON t.id = e.trial_id WHERE e.accepted IS NULL "
        "ORDER BY t.key, e.epoch"
    )


def checkpoint(place: Workplace, key: str) -> Path:
    return place.folder / "results-checkpoints" / f"{key}.pt"


def tidy(place: Workplace) -> None:
    """Fail where a run that had the time to end in order left something behind."""
    assert place.processes_left() == []
    assert place.unfinished() == []


def test_one_grid_survives_every_end_of_a_process(place, gate, grid, expected):
    def start() -> Run:
        return place.start("run", grid, "--no-dashboard")

    gate.touch()
    # A worker dies in the middle of an epoch, and the run replaces it; then the driver dies.
    with ended(start()) as run:
        until(run, lambda: len(waiting(place)) == len(METHODS))
        cut, gone = waiting(place)
        killed = waiting(place)[cut]
        os.kill(killed, signal.SIGKILL)
        until(run, lambda: waiting(place).get(cut, killed) != killed)
        run.kill()
        assert run.code() == 128 + signal.SIGKILL
    assert {f"trial {key[:8]} is claimed (running)" for key in (cut, gone)} <= set(place.unfinished())
    # Whoever looks is told what is, and not what the dead driver wrote last.
    (status,) = json.loads(place.run("status", "--json", output="status.txt")[1])
    assert status["counts"] == {"pending": len(METHODS)}

    # One trial's newest checkpoint is cut in half, so that the one before it counts; another's are both deleted.
    newest = checkpoint(place, cut)
    os.truncate(newest, newest.stat().st_size // 2)
    for path in newest.parent.glob(f"{gone}.pt*"):
        path.unlink()

    # The dead driver's lock and claims are in nobody's way; what was lost is trained again.
    lost = sorted([(cut, 1), (gone, 0), (gone, 1)])
    with ended(start()) as run:
        until(run, lambda: superseded(place) == lost and {cut, gone} <= waiting(place).keys())
        run.send_signal(signal.SIGTERM)
        assert run.code() == 128 + signal.SIGTERM, run.text()
    tidy(place)

    with ended(start()) as run:
        until(run, lambda: "started" in run.text())
        run.press_ctrl_c()
        run.press_ctrl_c()
        assert run.code() == 128 + signal.SIGINT, run.text()
        assert "interrupted (SIGINT): what was recorded stays" in run.text()
        assert "Traceback" not in run.text()
    tidy(place)

    gate.unlink()
    code, output = place.run("run", grid, "--no-dashboard")
    assert code == 0, output
    assert differences(place.results(), expected) == []
    # Nothing but what the checkpoints had lost was trained twice.
    assert superseded(place) == lost
    tidy(place)


def test_the_loss_of_a_node(place, gate, expected):
    place.clear()
    gate.touch()
    # A node has room for one trial, so that there is one on either.
    grid = write_grid(place, gate, cpu=1)
    with two_nodes(place) as (address, stop), ended(
        place.start("run", grid, "--no-dashboard", "--address", address, output="disturbed.txt")
    ) as run:  # fmt: skip
        until(run, lambda: len(waiting(place)) == len(METHODS))
        stop()
        until(run, lambda: ": tried again: " in run.text())
        gate.unlink()
        assert run.code() == 0, run.text()
        assert "Traceback" not in run.text()
    assert superseded(place) == []
    assert place.ask("SELECT DISTINCT error_class FROM attempts WHERE outcome = 'failed'") == [("infrastructure",)]
    assert recover(place, grid, expected) == []
