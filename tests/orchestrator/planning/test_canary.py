"""Canaries: which trials have one, what a failing one stops, and the share of a GPU that follows from them."""

from __future__ import annotations

import json
import re

import pytest

from orchestrator.planning import Footprint, canaries, canary_shape, packed_share
from tests.orchestrator.grid_files import load
from tests.orchestrator.runs import Workplace

GIB = 2**30
LONG = {"fixed": {"dataset": "cifar100", "epochs": 300, "network": "resnet18"}}


def names(groups):
    return [[trial.name for trial in members] for members in groups.values()]


def test_one_canary_for_trials_that_differ_in_seed_rate_or_epochs():
    axes = {"methods": [{}, {"pskd": None}], "seed": [0, 1], "learning_rate": [0.1, 0.05], "epochs": [200, 300]}
    groups = canaries(load({**LONG, "fixed": {"dataset": "cifar100"}, "grid": axes}).trials, ())
    assert [len(members) for members in groups.values()] == [8, 8]


@pytest.mark.parametrize(
    "axis",
    [
        {"network": ["resnet18", "resnet34"]},
        {"methods": [{"byot": {"blocks": [1, 2]}}, {"byot": {"blocks": [2]}}]},
        {"stages": [3, 4]},
        {"heads": ["none", "native"]},
        {"width": [32, 64]},
        {"batch_size": [64, 128]},
        {"precision": ["float32", "bfloat16"]},
        {"dataset": ["cifar10", "cifar100"]},
        {"validation": [0, 5000]},
    ],
)
def test_a_canary_of_its_own_for_what_changes_code_memory_or_data(axis):
    fixed = {name: value for name, value in LONG["fixed"].items() if name not in axis}
    assert len(canaries(load({"fixed": fixed, "grid": axis}).trials, ())) == 2


def test_a_canary_of_its_own_for_each_engine():
    grid = {**LONG, "grid": {"network": ["resnet18"], "seed": [0, 1]}, "resources": {"gpu": 1, "engine": "compiled"}}
    del (fixed := dict(LONG["fixed"]))["network"]
    compiled = load({**grid, "fixed": fixed}).trials
    config = compiled[0].config.model_dump(mode="json")
    assert names(canaries(compiled, {canary_shape(config)})) == [[trial.name for trial in compiled]]
    assert canaries(compiled, {canary_shape(config, "compiled")}) == {}


def test_what_is_known_to_work_and_what_is_small_has_none():
    grid = load({**LONG, "grid": {"methods": [{}, {"pskd": None}], "seed": [0, 1]}})
    known_shape = canary_shape(grid.trials[0].config.model_dump(mode="json"))
    assert names(canaries(grid.trials, {known_shape})) == [[trial.name for trial in grid.trials[2:]]]
    small = load({"fixed": {"dataset": "digits", "epochs": 5}, "grid": {"seed": [0, 1]}})
    assert canaries(small.trials, ()) == {}


@pytest.mark.parametrize(
    ("reserved", "launching", "gpus", "cpus", "share"),
    [
        (2 * GIB, 0.95, 1, 16, 1 / 4),  # small and launch-bound: as many as are ever packed
        (24 * GIB, 0.95, 1, 16, 1 / 2),  # 72 of 80 GiB hold two with their contexts
        (30 * GIB, 0.95, 1, 16, 1 / 2),
        (40 * GIB, 0.95, 1, 16, 1),  # two fill the memory to the last byte, which is too much
        (2 * GIB, 0.30, 1, 16, 1),  # one alone keeps the device busy
        (2 * GIB, 0.95, 1, 3, 1 / 3),  # three processors
        (2 * GIB, 0.95, 8, 16, 1 / 2),  # sixteen processors for eight GPUs
        (2 * GIB, 0.95, 8, 4, 1),
    ],
)
def test_the_share_of_a_gpu(reserved, launching, gpus, cpus, share):
    assert packed_share(Footprint(reserved, launching), 80 * GIB, gpus, cpus, 1) == share


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_failing_canary_stops_its_trials_and_no_others(workplace: Workplace):
    workplace.keep_to_one_processor()
    # Every trial is large enough here, and one of the methods has a bug.
    canary = workplace.code / "orchestrator/planning/canary.py"
    canary.write_text(re.sub(r"^LEAST_IMAGES = .*$", "LEAST_IMAGES = 1", canary.read_text(), flags=re.MULTILINE))
    broken = workplace.code / "trainer/methods/cskd.py"
    text = broken.read_text()
    assert "    def losses(" in text
    broken.write_text(
        text.replace("    def losses(", "    def losses(self, *_):\n        raise LookupError('no')\n\n    def _(", 1)
    )
    axes = [{"methods": [{"cskd": None}], "seed": [0, 1]}, {"methods": [{"pskd": None}], "seed": [0]}]
    grid = workplace.grid("mixed", axes, epochs=1)

    code, output = workplace.run("run", grid, "--no-dashboard")
    assert code == 1, output
    assert "rehearsing 2 kinds of trials" in output
    assert workplace.states() == dict.fromkeys(workplace.states(), "done") | {
        "resnet18/cskd/seed0": "failed",
        "resnet18/cskd/seed1": "failed",
    }
    query = """SELECT n.name, a.purpose, a.outcome, a.error_class, substr(a.error_text, 1, 29), a.environment
               FROM attempts a JOIN grid_trials n ON n.trial_id = a.trial_id ORDER BY a.purpose, n.position"""
    attempts = [(*facts, json.loads(environment).get("canary")) for *facts, environment in workplace.ask(query)]
    assert [attempt[:4] for attempt in attempts] == [
        ("resnet18/cskd/seed0", "canary", "failed", "code"),
        ("resnet18/pskd/seed0", "canary", "done", None),
        ("resnet18/cskd/seed0", "train", "failed", "code"),
        ("resnet18/cskd/seed1", "train", "failed", "code"),
        ("resnet18/pskd/seed0", "train", "done", None),
    ]
    assert attempts[2][4] == "the canary failed: LookupError"[:29]
    assert attempts[1][5]["seconds_per_epoch"] > 0 and attempts[1][5]["checkpoint_bytes"] > 10_000
    assert workplace.ask("SELECT count(*) FROM epochs WHERE accepted = 1") == [(1,)]
    assert not list(workplace.folder.rglob("*.rehearsal.pt*"))

    # What the canary said is in the plan, and what works is not rehearsed again.
    code, output = workplace.run("plan", grid)
    assert "resnet18/cskd/seed1" in output and "code: the canary failed" in output
    broken.write_text(text)
    code, output = workplace.run("run", grid, "--retry-failed", "--no-dashboard")
    assert code == 0, output
    assert "rehearsing one kind of trial" in output
    assert set(workplace.states().values()) == {"done"}
