"""Trials that other code or other data has trained: what `plan` says, what `--retrain` does, what a table says."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.console import add_changes, status_of
from orchestrator.database import AttemptFacts, Database, open_database
from orchestrator.grid import Grid, load_grid
from orchestrator.grid_records import compared
from orchestrator.planning import make_plan
from orchestrator.planning.parts import part_rows
from orchestrator.provenance import code_digest, parts_of
from reports.layouts.entries import entry
from reports.loading import load
from tests.trainer.fake_datasets import fake_folder
from trainer.data import fingerprint
from trainer.plugins import load_plugins
from trainer.results import EpochResult, Evaluation, Metrics

PARTS = """
from dataclasses import dataclass

from trainer import Method


@dataclass
class Penalty(Method):
    name = "penalty"
    title = "Penalty"
    weight: float = 0.1

    def losses(self, networks, outputs, batch, targets):
        return {"penalty": 2.0 * outputs[0].logits.square().mean()}
"""
METRIC = """
from trainer import metric


@metric(name="brier", title="Brier", direction="lower")
def brier(probabilities, labels):
    return 1.0
"""
GRID = """
name: own
plugins: [my_parts.py]
fixed: {dataset: "folder:pets", network: resnet18, epochs: 1, methods: {penalty: {}}}
grid: {seed: [0, 1]}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make a folder with a grid, its file of parts, and images."""
    monkeypatch.setenv("ORCHESTRATE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "my_parts.py").write_text(PARTS)
    (tmp_path / "own.yaml").write_text(GRID)
    fake_folder(tmp_path / "data" / "pets")
    yield tmp_path
    load_plugins([], Path())


def train(database: Database, grid: Grid, root: Path, *numbers: int) -> None:
    """Record trials as a run would, without training them."""
    trials = [(trial.key, trial.config.model_dump(mode="json"), trial.name) for trial in grid.trials]
    database.save_grid(grid.name, "own.yaml", GRID, grid.report, trials)
    for number in numbers:
        trial = grid.trials[number]
        facts = AttemptFacts("h", "cpu", pid=1, environment={"code_digest": code_digest()})
        attempt = database.start_attempt(trial.key, facts)
        database.record_parts(parts_of(trial.config, grid.metrics), attempt)
        database.record_data(attempt, fingerprint(trial.config, root))
        metrics = Metrics(10.0 + number, 5.0, 0.5, 1.0, 2.0)
        evaluations = [Evaluation(0, "main", metrics, 9)]
        database.record_epoch(attempt, EpochResult(0, 0.1, 1.0, 1.0, 0.0, 9, {"loss": 1.0}, evaluations), "exclusive")
        database.finish_attempt(attempt, "done", trial_state="done")


def planned(database: Database, folder: Path) -> list[tuple[str, str]]:
    grid = load_grid(folder / "own.yaml")
    plan = make_plan(grid, database.states([trial.key for trial in grid.trials]))
    return [(each.status, each.reason) for each in compared(plan, database, folder / "data", grid.metrics).entries]


def edit(folder: Path, old: str, new: str) -> None:
    file = folder / "my_parts.py"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def test_an_edited_constant_is_said_and_comments_are_not(folder: Path) -> None:
    with open_database(folder / "r.db", create=True) as database:
        train(database, load_grid(folder / "own.yaml"), folder / "data", 0, 1)
        assert planned(database, folder) == [("done", "its 1 epoch is recorded")] * 2
        edit(folder, "    weight", "    # A comment.\n    weight")
        assert planned(database, folder) == [("done", "its 1 epoch is recorded")] * 2
        edit(folder, "2.0", "3.0")
        for status, reason in planned(database, folder):
            assert status == "done"
            assert reason.startswith("by other code: my_parts.py ")
            assert reason.endswith("; raise its version, or --retrain")
        # Without the grid's file, the files of parts are those that the database names.
        grids = status_of(database, None)
        add_changes(database, grids)
        for trial in grids[0]["trials"]:
            (change,) = trial["changes"]
            assert (change["kind"], change["what"]) == ("code", "my_parts.py") and change["before"] != change["after"]


def test_a_removed_image_is_said(folder: Path) -> None:
    with open_database(folder / "r.db", create=True) as database:
        train(database, load_grid(folder / "own.yaml"), folder / "data", 0, 1)
        (folder / "data/pets/train/ant/0.png").unlink()
        for _, reason in planned(database, folder):
            assert reason.startswith("on other data: ") and reason.endswith("; --retrain")


def test_a_raised_version_is_a_new_trial(folder: Path) -> None:
    with open_database(folder / "r.db", create=True) as database:
        train(database, load_grid(folder / "own.yaml"), folder / "data", 0, 1)
        edit(folder, '    title = "Penalty"', '    title = "Penalty"\n    version = 2')
        assert planned(database, folder) == [("new", "never ran")] * 2


def test_retraining_keeps_the_old_attempts_and_counts_the_new_ones(folder: Path) -> None:
    with open_database(folder / "r.db", create=True) as database:
        grid = load_grid(folder / "own.yaml")
        train(database, grid, folder / "data", 0, 1)
        first = grid.trials[0].key
        before = database.origins([first])[first]
        edit(folder, "2.0", "3.0")
        grid = load_grid(folder / "own.yaml")
        assert database.retrain([first]) == 1
        assert database.states([first])[first].epochs == 0 and database.origins([first]) == {}
        assert database.progress("own")[0].state == "pending"
        train(database, grid, folder / "data", 0)
        assert [each.number for each in database.origins([first])[first]] == [2]
        assert before[0].parts != database.origins([first])[first][0].parts
        assert [(each.number, each.outcome, each.epochs) for each in database.attempts(first)] == [
            (1, "done", 1),
            (2, "done", 1),
        ]
        assert planned(database, folder)[0] == ("done", "its 1 epoch is recorded")


def test_a_number_whose_trials_differ_names_them(folder: Path) -> None:
    with open_database(folder / "r.db", create=True) as database:
        train(database, load_grid(folder / "own.yaml"), folder / "data", 0)
        (alone,) = load(database).cells
        assert entry(alone, "main/top1_error").differing == ((), ())
        edit(folder, "2.0", "3.0")
        (folder / "data/pets/train/ant/0.png").unlink()
        train(database, load_grid(folder / "own.yaml"), folder / "data", 1)
        (cell,) = load(database).cells
        code, data = entry(cell, "main/top1_error").differing.footnotes
        assert code.startswith("trained by code that differs at one version, my_parts.py (")
        assert data.startswith("trained on data that differs (")
        assert all(trial.name in line for trial in cell.trials for line in (code, data))


def test_a_metric_whose_code_changed_is_said(folder: Path) -> None:
    (folder / "my_metrics.py").write_text(METRIC)
    named = "[my_parts.py, my_metrics.py]\nmetrics: [brier]"
    (folder / "own.yaml").write_text(GRID.replace("[my_parts.py]", named))
    with open_database(folder / "results.db", create=True) as database:
        train(database, load_grid(folder / "own.yaml"), folder / "data", 0)
        assert "by other code" not in planned(database, folder)[0][1]
        (folder / "my_metrics.py").write_text(METRIC.replace("1.0", "2.0"))
        reason = planned(database, folder)[0][1]
        assert "by other code: my_metrics.py" in reason and "raise its version, or --retrain" in reason


def test_parts_that_ship_stay_the_programs_own_after_a_run_with_nothing_to_do(folder: Path) -> None:
    with open_database(folder / "r.db", create=True) as database:
        grid = load_grid(folder / "own.yaml")
        train(database, grid, folder / "data", 0, 1)
        database.record_parts(part_rows(grid))
        (origin,) = database.origins([grid.trials[0].key])[grid.trials[0].key]
        shipped = {part.name: part.ships for part in origin.parts}
        assert shipped["resnet18"] and shipped["sgd"] and False in shipped.values()
