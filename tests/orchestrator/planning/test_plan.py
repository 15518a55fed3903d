"""The plan: why each trial would run or not."""

import json

import pytest
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.planning import devices_line, make_plan
from orchestrator.scheduler import Observer
from orchestrator.scheduler.cluster import Cluster
from orchestrator.scheduler.trials import _placed
from tests.orchestrator.grid_files import load
from tests.orchestrator.planning.states import trial_state

GRID = load({"fixed": {"epochs": 30, "dataset": "digits"}, "grid": {"seed": [0, 1]}})
FIRST, SECOND = GRID.trials


@pytest.mark.parametrize(
    ("state", "status", "words", "runs"),
    [
        (None, "new", "never ran", True),
        (trial_state("pending", attempts=0), "new", "never ran", True),
        (trial_state("pending", 7), "interrupted", "stopped after 7 of 30 epochs", True),
        (trial_state("pending", 0), "interrupted", "stopped after 0 of 30 epochs", True),
        (
            trial_state("pending", 3, 2, "infrastructure", "node lost"),
            "interrupted",
            "3 of 30 epochs; last error: infrastructure: node lost",
            True,
        ),
        (
            trial_state("running", 7, driver=12),
            "running",
            "another driver trains it; 7 of 30 epochs",
            False,
        ),
        (trial_state("pending", 0, 0, driver=12), "waiting", "has it and will start it; 0 of 30 epochs", False),
        (trial_state("pending", 7, driver=12), "waiting", "has it and will start it; 7 of 30 epochs", False),
        (trial_state("running", 7), "interrupted", "stopped after 7 of 30 epochs", True),
        (trial_state("done", 30), "done", "all 30 epochs recorded", False),
        (
            trial_state("failed", 2, 1, "diverged", "loss is NaN in step 3"),
            "failed",
            "diverged: loss is NaN in step 3; after 2 of 30 epochs; --retry-failed",
            False,
        ),
        (trial_state("failed"), "failed", "without a message", False),
    ],
)
def test_the_reason_follows_from_the_state(state, status, words, runs):
    plan = make_plan(GRID, {} if state is None else {FIRST.key: state})
    entry, other = plan.entries
    assert (entry.trial, other.trial) == (FIRST, SECOND)
    assert entry.status == status and words in entry.reason and "\n" not in entry.reason
    assert entry.would_run is runs
    assert other.status == "new"
    assert plan.pending == ([entry, other] if runs else [other])


def test_the_summary_counts():
    assert make_plan(GRID, {}).summary() == "2 trials: 2 new; 2 trials to run"
    done = {trial.key: trial_state("done", 30) for trial in GRID.trials}
    assert make_plan(GRID, done).summary() == "2 trials: 2 done; nothing to run"
    mixed = {FIRST.key: trial_state("failed"), SECOND.key: trial_state("pending", 3)}
    plan = make_plan(GRID, mixed)
    assert plan.summary() == "2 trials: 1 to continue, 1 failed (--retry-failed tries again); 1 trial to run"
    assert [plan.count(status) for status in ("new", "interrupted", "failed", "done")] == [0, 1, 1, 0]


def test_what_another_driver_trains_and_what_waits_there_are_two_things():
    elsewhere = {FIRST.key: trial_state("running", 3, driver=12), SECOND.key: trial_state("pending", 0, 0, driver=12)}
    plan = make_plan(GRID, elsewhere)
    assert plan.summary() == "2 trials: 1 running elsewhere, 1 waiting elsewhere; nothing to run"
    assert [entry.epochs for entry in plan.entries] == [3, 0]


def test_states_of_other_grids_do_not_matter():
    assert make_plan(GRID, {"f" * 64: trial_state("failed")}).count("new") == 2


def test_tens_of_thousands_of_trials_are_planned():
    axes = {
        "network": ["resnet18", "resnet34", "resnet50", "resnet101", "resnext50_32x4d"],
        "methods": {"powerset": ["byot", "dmfl", "pskd"]},
        "learning_rate": [0.1, 0.05, 0.02, 0.01, 0.005],
        "width": [8, 16, 32, 64, 128],
        "seed": list(range(20)),
    }
    grid = load({"fixed": {"dataset": "digits"}, "grid": axes})
    assert len({trial.key for trial in grid.trials}) == len({trial.name for trial in grid.trials}) == 20_000
    plan = make_plan(grid, {trial.key: trial_state("done") for trial in grid.trials[:1000]})
    assert plan.count("done") == 1000
    assert len(plan.pending) == plan.count("new") == 19_000
    assert plan.summary() == "20,000 trials: 19,000 new, 1,000 done; 19,000 trials to run"


def test_the_plan_tells_of_trials_in_several_processes():
    assert make_plan(GRID, {}).together() == []
    asked = {"gpus_per_trial": 4, "cpu": 8, "per_network": {"resnet50": {"gpus_per_trial": 1}}}
    grid = load({"grid": {"network": ["resnet18", "resnet50"], "seed": [0, 1]}, "resources": asked})
    assert make_plan(grid, {}).together() == ["2 trials in 4 processes each, a process with 1 GPU and 8 CPUs"]


def test_the_plan_says_how_steps_are_run_where_the_grid_does():
    asked = {"engine": "replayed", "per_network": {"resnet50": {"engine": "auto", "deterministic": True}}}
    grid = load({"grid": {"network": ["resnet18", "resnet50"], "seed": [0, 1]}, "resources": asked})
    assert make_plan(grid, {}).together() == [
        "2 trials with engine: replayed",
        "2 trials with deterministic: true",
    ]


@pytest.mark.parametrize(
    ("resources", "gpus", "taken", "line"),
    [
        ({"cpu": 1}, 2, 1, "2 GPUs here: each trial takes one, as the grid does not say `gpu` under `resources`"),
        (
            {"cpu": 1},
            0,
            0,
            "no GPU here: trials run on the processor, as the grid does not say `gpu` under `resources`",
        ),
        ({"gpu": 1}, 0, 1, None),
    ],
)
def test_a_plan_says_where_trials_run_that_leave_it_open(monkeypatch, tmp_path, resources, gpus, taken, line):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("orchestrator.timing.gpus_here", lambda: gpus)
    (tmp_path / "open.yaml").write_text(json.dumps({"name": "open", "resources": resources}))
    shown = CliRunner().invoke(app, ["plan", "open.yaml"]).output
    assert (line in shown) if line else ("as the grid does not say" not in shown)
    (described,) = [json.loads(CliRunner().invoke(app, ["plan", "open.yaml", "--json"]).stdout)]
    assert described["devices"] == line
    assert described["trials"][0]["resources"]["gpu"] == taken


def test_a_run_goes_by_what_the_nodes_have():
    trials = load({"resources": {"cpu": 1}}).trials
    for nodes, taken in (([{"CPU": 4.0}], 0), ([{"CPU": 4.0}, {"CPU": 8.0, "GPU": 4.0}], 1)):
        notes: list[str] = []
        (trial,) = _placed(Cluster(nodes, None, private=False), trials, Observer(note=notes.append))
        assert trial.resources.gpu == taken
        assert notes == [devices_line(4 * taken, "in the cluster")]
    (trial,) = _placed(Cluster([], None), load({"resources": {"gpu": 1}}).trials, Observer(note=notes.append))
    assert (trial.resources.gpu, len(notes)) == (1, 1)
