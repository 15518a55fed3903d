"""One word for one thing: interrupted trials, epochs, headlines and names read the same wherever they stand."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.database import driver_lock, open_database
from orchestrator.failures import failure_of
from orchestrator.grid import GridError, load_grid, trial_names
from tests.orchestrator.databases.samples import result, start
from trainer.config import TrainConfig

GRID = """\
name: words
fixed: {dataset: digits, epochs: 3}
grid: {methods: [baseline, pskd], seed: [0, 1, 2]}
resources: {gpu: 0, cpu: 1}
"""


def orchestrate(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ORCHESTRATE_DB", raising=False)
    Path("g.yaml").write_text(GRID)
    grid = load_grid("g.yaml")
    with open_database("results.db", create=True) as database:
        trials = [(trial.key, trial.config.model_dump(mode="json"), trial.name) for trial in grid.trials]
        database.save_grid("words", "g.yaml", "", {}, trials)
    return grid


def record(key: str, *errors: float, outcome: str, state: str) -> None:
    with open_database("results.db") as database:
        attempt = start(database, key)
        for epoch, error in enumerate(errors):
            database.record_epoch(attempt, result(epoch, error=error), "exclusive")
        database.finish_attempt(attempt, outcome, trial_state=state)


def test_a_trial_without_an_epoch_is_interrupted_for_plan_status_and_watch_alike(grid: Any):
    record(grid.trials[0].key, outcome="interrupted", state="pending")
    record(grid.trials[1].key, 50.0, outcome="interrupted", state="pending")
    assert "2 to continue" in orchestrate("plan", "g.yaml")
    status = orchestrate("status")
    assert "2 interrupted, 4 pending" in status
    assert status.count("  interrupted resnet18/baseline") == 2
    (shown,) = json.loads(orchestrate("status", "--json"))
    assert [trial["interrupted"] for trial in shown["trials"]] == [True, True, False, False, False, False]
    assert "seed 0: 0 of 3 epochs, interrupted; 1 more under way" in orchestrate("watch", "--once")


def test_what_another_run_has_claimed_is_not_interrupted(grid: Any):
    key = grid.trials[0].key
    record(key, 50.0, outcome="interrupted", state="pending")
    with open_database("results.db") as database, driver_lock(database, grid="words") as driver:
        database.claim([key], driver)
        assert "1 waiting elsewhere" in orchestrate("plan", "g.yaml")
        assert "interrupted" not in orchestrate("status")


def test_a_cell_shows_the_mean_of_the_seeds_that_are_done_while_another_is_under_way(grid: Any):
    record(grid.trials[0].key, 20.0, outcome="done", state="done")
    record(grid.trials[1].key, 30.0, outcome="done", state="done")
    record(grid.trials[2].key, 80.0, outcome="interrupted", state="pending")
    assert "25.00 % (2/3 seeds); seed 2: 1 of 3 epochs, interrupted" in orchestrate("watch", "--once")


def test_exported_epochs_count_from_1_as_those_of_the_screen(grid: Any, tmp_path: Path):
    record(grid.trials[0].key, 50.0, 40.0, outcome="interrupted", state="pending")
    orchestrate("export", "--out", "out")
    for name in ("epochs", "evaluations", "losses"):
        with open(f"out/{name}.csv") as file:
            assert sorted({row["epoch"] for row in csv.DictReader(file)}) == ["1", "2"], name


def test_a_plan_says_why_there_is_no_estimate_and_keeps_its_columns(grid: Any):
    methods = "[{byot: {blocks: [1, 2, 3]}, label_smoothing: {}, dmfl: {variant: released}}, baseline]"
    Path("g.yaml").write_text(GRID.replace("[baseline, pskd]", methods))
    lines = orchestrate("plan", "g.yaml").splitlines()
    assert len({line.index("never ran") for line in lines if "never ran" in line}) == 1
    assert "no estimate of time, memory and disk: nothing like these trials was measured" in lines[-2]


def test_a_headline_says_what_is_wrong():
    def headline(error: BaseException) -> str:
        try:
            raise error
        except BaseException as raised:
            return failure_of(raised).message

    with pytest.raises(ValidationError) as caught:
        TrainConfig(dataset="digits", epochs=0, widht=3)
    assert "ValidationError" not in (text := headline(caught.value))
    assert text.startswith("configuration: ") and "epochs: 0 is too small" in text and "did you mean 'width'" in text
    assert headline(KeyError("loss")).startswith("KeyError: key 'loss' is missing (test_words.py:")
    assert headline(AssertionError()).startswith("AssertionError: no message (test_words.py:")
    assert headline(ValueError("\n\nthe reason\nmore")) == "ValueError: the reason"
    assert headline(ExceptionGroup("several", [OSError("the reason")])) == "OSError: the reason"
    passed_on = (
        "Caught ValueError in DataLoader worker process 0.\nOriginal Traceback:\n  ...\nValueError: the reason\n"
    )
    assert headline(RuntimeError(passed_on)) == "ValueError: the reason"


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        ("['pskd, byot']", "to train with all of them, write pskd+byot"),
        ("['pskd byot']", "to train with all of them, write pskd+byot"),
        ("[psk]", "unknown method 'psk'; did you mean 'pskd'? (allowed: baseline, byot"),
        ("[base]", "did you mean 'baseline'?"),
        ("[baseline+pskd]", "'baseline' stands alone"),
        ("['${METHOD}']", "variables and templates are not filled in: write the value itself"),
        ("[{{ method }}]", "templates ({{ }}) are not filled in: write the value itself"),
    ],
)
def test_a_method_that_is_none_is_told_what_is_meant(methods: str, words: str, tmp_path: Path):
    path = tmp_path / "g.yaml"
    path.write_text(f"name: g\nfixed: {{dataset: digits}}\ngrid: {{methods: {methods}}}\n")
    with pytest.raises(GridError) as caught:
        load_grid(path)
    assert words in str(caught.value) and ":3:" in str(caught.value)


def test_merge_keys_are_told_by_their_name(tmp_path: Path):
    path = tmp_path / "g.yaml"
    path.write_text("name: g\nfixed: &base {dataset: digits}\ngrid:\n  <<: *base\n  seed: [0]\n")
    with pytest.raises(GridError, match="merge keys") as caught:
        load_grid(path)
    assert "g.yaml:4:" in str(caught.value)


def test_data_sets_have_readable_names():
    def names(*datasets: str) -> list[str]:
        configs = {f"{n}" * 64: TrainConfig.model_construct(dataset=name) for n, name in enumerate(datasets)}
        return trial_names(configs, {"dataset"})

    assert names("folder:pets", "digits") == [
        "resnet18/baseline/dataset=folder-pets/seed0",
        "resnet18/baseline/dataset=digits/seed0",
    ]
    first, second = names("folder:a b", "folder:a-b")
    assert first != second and first.startswith("resnet18/baseline/dataset=folder-a-b/seed0-")
    assert names("folder:../x", "digits")[0] == "resnet18/baseline/dataset=folder-x/seed0"
