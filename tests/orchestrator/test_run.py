"""A grid is run from Python: nothing is printed, and whoever asks hears what happens."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from orchestrator import open_database, run_grid
from orchestrator.planning import Plan
from orchestrator.scheduler import Audience, Observer
from tests.orchestrator.runs import ROOT

GRID = {
    "name": "small",
    "fixed": {"dataset": "synthetic", "subset": 2, "epochs": 1, "width": 4},
    "grid": {"seed": [0, 1]},
}


@pytest.fixture
def grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.yaml"
    path.write_text(json.dumps(GRID))
    return path


@pytest.mark.ray
def test_a_file_is_run_without_a_word(grid: Path) -> None:
    code = "from orchestrator import run_grid; outcome = run_grid('small.yaml', 'r.db'); assert outcome.failed == 0"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=grid.parent, env={"PYTHONPATH": str(ROOT)}
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with open_database("r.db", readonly=True) as database:
        assert [row.state for row in database.progress("small")] == ["done", "done"]


def test_whoever_asks_hears_of_the_plan_and_of_the_trials(grid: Path, capfd: pytest.CaptureFixture[str]) -> None:
    heard: list[Any] = []

    @contextmanager
    def watch(name: str, configs: Any, known: Any, plan: Plan | None) -> Iterator[Observer]:
        heard.append((name, sorted(configs)))
        yield Observer(note=heard.append)

    def run_trials(database: Any, trials: Any, options: Any, observer: Observer) -> None:
        observer.note(f"{len(trials)} trials on a Ray at {options.address}")

    audience = Audience(say=heard.append, plan=lambda plan: heard.append(plan.summary()), watch=watch)
    with patch("orchestrator.scheduler.trials.run_trials", run_trials):
        outcome = run_grid(grid, "r.db", audience=audience)
    # Nothing trained them, so that they are left to the next run.
    assert outcome.left == 2
    summary, trials, note = heard
    assert summary.startswith("2 trials")
    assert trials == ("small", [f"resnet18/baseline/seed{seed}" for seed in (0, 1)])
    assert note == "2 trials on a Ray at None"
    assert capfd.readouterr() == ("", "")
