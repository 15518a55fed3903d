"""A change of the grid file touches the trials that train something else, and no others."""

import json
from pathlib import Path

import pytest

from orchestrator.grid import load_grid
from tests.orchestrator.grid_files import SHIPPED, keys, load
from trainer.config import TrainConfig

BASE = {
    "fixed": {"dataset": "digits", "epochs": 9},
    "grid": {"network": ["resnet18", "resnet50"], "methods": {"powerset": ["byot", "pskd"]}, "seed": [0, 1]},
}


def changed(**fixed) -> dict:
    return {**BASE, "fixed": {**BASE["fixed"], **fixed}}


@pytest.mark.parametrize(
    "spelled_out",
    [
        {"learning_rate": 0.1, "weight_decay": 5e-4, "precision": "bfloat16", "subset": None, "heads": "auto"},
        {"milestones": [4, 6], "flip": False, "stages": 4},
        {"width": 64.0, "batch_size": "128"},
    ],
)
def test_defaults_that_are_written_down_change_nothing(spelled_out):
    assert keys(changed(**spelled_out)) == keys(BASE)


@pytest.mark.parametrize(
    "section",
    [
        {"name": "another"},
        {"resources": {"gpu": 1, "cpu": 16, "engine": "compiled", "per_network": {"resnet50": {"gpus_per_trial": 8}}}},
        {"report": {"tables": [1, 2], "figures": [2], "selection": "last"}},
    ],
)
def test_only_what_is_trained_counts(section):
    assert keys({**BASE, **section}) == keys(BASE)


@pytest.mark.parametrize("change", [{"epochs": 10}, {"width": 8}, {"dataset": "synthetic"}, {"precision": "float32"}])
def test_a_changed_parameter_changes_every_trial_it_reaches(change):
    assert not keys(changed(**change)) & keys(BASE)


def test_a_hyperparameter_changes_only_its_method_s_trials():
    methods = {"powerset": [{"byot": {"temperature": 4}}, "pskd"]}
    before = load(BASE).trials
    after = keys({**BASE, "grid": {**BASE["grid"], "methods": methods}})
    assert {trial.key for trial in before} & after == {t.key for t in before if "byot" not in t.config.methods}
    assert len(after) == len(before)


def test_byot_on_every_block_is_its_default():
    def of(byot: dict) -> set[str]:
        return keys({**BASE, "grid": {**BASE["grid"], "methods": [{"byot": byot}]}})

    assert of({"blocks": [3, 2, 1]}) == of({"blocks": [1, 2, 3]}) == of({}) == of({"alpha": 0.1})
    assert not of({"blocks": [2, 3]}) & of({})


def test_fixed_or_axis_makes_no_difference():
    fixed = {"fixed": {"dataset": "digits", "epochs": 9, "methods": "pskd", "seed": 1}}
    assert keys(fixed) == keys({"grid": {"dataset": "digits", "epochs": 9, "methods": ["pskd"], "seed": [1]}})


def test_yaml_and_json_make_the_same_trials():
    assert keys(json.dumps({"name": "x", **BASE})) == keys(
        """
        # Another order, other words, other numbers.
        grid:
          seed: [1, 0]
          network: [resnet50, resnet18]
          methods: [byot+pskd, [pskd], {byot: }, baseline]
        fixed: {epochs: 9.0, dataset: "digits", gamma: 1e-1}
        name: y
        """
    )


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_keys_hold_in_another_process_and_after_storage(path: Path):
    for trial in load_grid(path).trials:
        assert TrainConfig(**json.loads(json.dumps(trial.config.model_dump(mode="json")))).key() == trial.key
