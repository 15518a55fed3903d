"""One grid on a cluster of several nodes that join late and die, and from a job that was submitted to it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.orchestrator.ray_nodes import Nodes, cut_off, ray_nodes, workers_of
from tests.orchestrator.runs import Results, Workplace, differences, ended, name_of, wait_for, workplace

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

EPOCHS = 10
# The epoch before which trials wait while the file `gate` is there.
WAITS_IN = 2


@pytest.fixture(scope="module")
def place() -> Iterator[Workplace]:
    with workplace() as folder:
        shutil.copy(Path(__file__).parents[1] / "sabotage.py", folder.code / "trainer/methods")
        yield folder


@pytest.fixture(scope="module")
def gate(place: Workplace) -> Path:
    """A file that is not there unless a test makes it."""
    return place.folder / "gate"


@pytest.fixture(scope="module")
def grid(place: Workplace, gate: Path) -> Path:
    waits = {"sabotage": {"how": "wait", "flag": str(gate), "at": WAITS_IN}}
    return place.grid("cluster", {"methods": [waits, waits | {"byot": {}, "pskd": {}}], "seed": [0, 1]}, epochs=EPOCHS)


@pytest.fixture(scope="module")
def expected(place: Workplace, grid: Path) -> Results:
    """The results of a run on a private Ray that nothing disturbed."""
    return place.undisturbed(grid)


@pytest.fixture(scope="module")
def nodes(place: Workplace, expected: Results) -> Iterator[Nodes]:
    with ray_nodes(place) as cluster:
        yield cluster


def test_what_no_node_can_hold_is_refused_unless_a_node_will_join(place: Workplace, grid: Path, nodes: Nodes) -> None:
    code, output = place.run("run", grid, "--address", nodes.address)
    assert code == 2
    assert "asks for 1 CPU and 0 GPUs, but no node has that much (nodes: " in output
    assert "or give --wait-for-nodes where such a node will join" in output
    assert "Traceback" not in output


def test_trials_follow_the_nodes(place: Workplace, grid: Path, gate: Path, nodes: Nodes, expected: Results) -> None:
    shared = place.folder / "shared"
    # No trial ends before its node is cut off.
    gate.touch()
    options = ["--wait-for-nodes", "--no-canary", "--checkpoints", f"file://{shared}"]
    with ended(place.start("run", grid, *options, RAY_ADDRESS=nodes.address)) as run:
        assert wait_for(lambda: "waiting for a node with 1 CPU and 0 GPUs: 4 trials" in run.text() or run.over()), (
            run.text()
        )
        nodes.add(1)
        assert wait_for(lambda: place.epochs() >= 1 or run.over()), run.text()
        late = nodes.add(1)
        epochs_of_process = "SELECT count(*) FROM epochs e JOIN attempts a ON a.id = e.attempt_id WHERE a.pid = ?"

        def trained_there() -> bool:
            """Return whether an epoch of the late node is recorded."""
            return any(place.ask(epochs_of_process, process.pid) > [(0,)] for process in workers_of(place, late))

        assert wait_for(lambda: trained_there() or run.over()), run.text()
        cut_off(late)
        gate.unlink()
        assert run.code() == 0, run.text()
    assert differences(place.results(), expected) == []
    assert place.doubtful() == []
    lost = place.ask("SELECT trial_id, error_class FROM attempts WHERE outcome = 'failed'")
    assert [error_class for _, error_class in lost] == ["infrastructure"]
    # It went on from its checkpoint: no epoch was trained twice.
    assert place.ask("SELECT count(*) FROM epochs WHERE accepted IS NULL") == [(0,)]
    assert sorted(path.name for path in shared.iterdir()) == sorted(f"{key}.pt" for key in expected)
    assert "Traceback" not in run.text()


def test_a_grid_runs_as_a_submitted_job(place: Workplace, grid: Path, nodes: Nodes, expected: Results) -> None:
    place.clear()
    nodes.add(1)
    submit = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "job", "submit"]
    program = [sys.executable, str(place.command), "run", str(grid), "--db", str(place.database), "--address", "auto"]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done: Any = None

    def accepted() -> bool:
        """Submit; on a busy machine the head's agent may not be there yet."""
        nonlocal done
        done = subprocess.run(
            [*submit, "--address", f"http://{nodes.dashboard}", "--", *program, "--no-canary"],
            env={**variables, "RAY_AUTH_MODE": "token", "PYTHONPATH": str(place.code)},
            cwd=place.folder, capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        return "No available agent" not in done.stderr

    assert wait_for(accepted), done.stderr
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 of 4 done" in done.stdout
    assert differences(place.results(), expected) == []
    assert place.doubtful() == []


def test_a_head_that_dies_ends_the_run_with_a_line(place: Workplace, nodes: Nodes) -> None:
    place.clear()
    nodes.add(1)
    endless = place.grid("endless", {"seed": [0]}, epochs=100_000)
    with ended(place.start("run", endless, "--address", nodes.address, "--no-canary")) as run:
        assert wait_for(lambda: place.epochs() >= 1 or run.over()), run.text()
        (head,) = [process for process in place.processes() if name_of(process) == "gcs_server"]
        head.kill()
        assert run.code() == 75, run.text()
    assert f"error: Ray ended: the head of its cluster, {nodes.address}, is silent" in run.text()
    # Nothing of Ray's own, whose core would end the run after a minute with the stacks of its threads.
    assert "Traceback" not in run.text() and "StackTrace" not in run.text()
