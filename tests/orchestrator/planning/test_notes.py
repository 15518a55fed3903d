"""The notes of `plan` before anything runs: on what this machine cannot hold, and on what is probably not meant."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator import load_grid, run_grid
from orchestrator.cli import app
from orchestrator.planning import grid_notes, unfit_lines
from orchestrator.scheduler import Observer, SchedulerError
from tests.orchestrator.grid_files import load, problems

GRID = {"name": "g", "fixed": {"dataset": "digits", "epochs": 2}, "grid": {"seed": [0, 1]}}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own, on a machine with two processors and without a GPU."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("ORCHESTRATE", "RAY_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("orchestrator.timing.gpus_here", lambda: 0)
    monkeypatch.setattr("orchestrator.timing.processors", lambda: 2)
    return tmp_path


def write(resources: dict[str, object]) -> Path:
    path = Path("g.yaml")
    path.write_text(json.dumps(GRID | {"resources": resources}))
    return path


@pytest.mark.parametrize(
    ("resources", "asks"),
    [
        ({"gpu": 1}, "1 CPU and 1 GPU"),
        ({"cpu": 64}, "64 CPUs and 0 GPUs"),
        ({"gpu": 0, "processes": 3}, "3 processes with 1 CPU and 0 GPUs each"),
        ({"gpus_per_trial": 2}, "2 processes with 1 CPU and 1 GPU each"),
    ],
)
def test_plan_notes_and_run_refuses_what_this_machine_cannot_hold(resources: dict[str, object], asks: str):
    path = write(resources)
    planned = CliRunner().invoke(app, ["plan", str(path)])
    assert planned.exit_code == 0
    note = f"note: this machine has 2 CPUs and 0 GPUs, and 2 trials ask for {asks} each: `run` will refuse that here; "
    assert planned.stderr.startswith(note) and planned.stderr.count("\n") == 1
    shown = json.loads(CliRunner().invoke(app, ["plan", str(path), "--json"]).stdout)
    assert [f"note: {line}\n" for line in shown["notes"]] == [planned.stderr]
    heard: list[str] = []
    with pytest.raises(SchedulerError, match=f"asks for {asks}, but no node has that much"):
        run_grid(path, "r.db", observer=Observer(note=heard.append, ready=lambda url: heard.append("Ray")))
    assert heard == [], "neither data nor Ray were prepared"


@pytest.mark.parametrize("resources", [{}, {"cpu": 2}, {"gpu": 0, "processes": 2}, {"cpu": 0.5}])
def test_what_this_machine_holds_is_not_noted(resources: dict[str, object]):
    assert CliRunner().invoke(app, ["plan", str(write(resources))]).stderr == ""


def test_of_a_cluster_only_its_nodes_can_tell(monkeypatch: pytest.MonkeyPatch):
    path = write({"gpu": 1})
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert CliRunner().invoke(app, ["plan", str(path)]).stderr == ""


def test_every_request_has_a_line_of_its_own():
    grid = load(
        {
            "grid": {"network": ["resnet18", "resnet50"], "seed": [0]},
            "resources": {"gpu": 0, "cpu": 3, "per_network": {"resnet50": {"gpu": 1, "cpu": 1}}},
        }
    )
    assert [line.split("ask")[1].split(":")[0] for line in unfit_lines(2, 0, grid.trials)] == [
        "s for 3 CPUs and 0 GPUs",
        "s for 1 CPU and 1 GPU",
    ]
    assert unfit_lines(3, 1, grid.trials) == []


def test_batches_larger_than_the_data_and_milestones_that_never_come_are_noted():
    grid = load(
        {
            "fixed": {"dataset": "digits", "epochs": 10, "milestones": [5, 10, 12]},
            "grid": {"batch_size": [100, 2000], "subset": [None, 5], "seed": [0, 1]},
        }
    )
    late = "milestones 10, 12 never come: training ends after 10 epochs, so the learning rate does not fall there"
    few = "batch_size {} is more than the {} training images of digits: every epoch is one step (2 trials)"
    images = 1437
    assert sorted(grid_notes(grid)) == sorted(
        [f"{late} (8 trials)", few.format("100", 50), few.format("2,000", 50), few.format("2,000", f"{images:,}")]
    )
    assert grid_notes(load({"fixed": {"dataset": "folder:pets", "batch_size": 10**6}})) == []


def test_plan_and_run_say_such_a_note(here: Path):
    (here / "g.yaml").write_text(json.dumps(GRID | {"fixed": {"dataset": "digits", "epochs": 2, "milestones": [2]}}))
    message = CliRunner().invoke(app, ["plan", "g.yaml"]).stderr
    assert message == (
        "note: milestones 2 never come: training ends after 2 epochs, so the learning rate does not fall there "
        "(2 trials)\n"
    )
    heard: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("orchestrator.scheduler.trials.run_trials", lambda *_: None)
        run_grid(load_grid("g.yaml"), "r.db", observer=Observer(warning=heard.append))
    assert [f"{line}\n" for line in heard] == [message]


def test_best_val_needs_validation_images():
    (message,) = problems({"grid": {"validation": [0, 300], "seed": [0, 1]}, "report": {"selection": "best_val"}})
    assert message == (
        "1: report.selection: best_val chooses the epoch by validation images, and 2 trials hold out none; add "
        "validation: 5000, or so, to `fixed`"
    )
    assert load({"fixed": {"validation": 300}, "report": {"selection": "best_val"}}).trials
