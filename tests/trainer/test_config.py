"""The configuration: one canonical form and key for everything that means the same, and plain words for mistakes."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from trainer import config as module
from trainer.config import TrainConfig, config_problems
from trainer.parts import METHODS, NETWORKS

KNOWN = json.loads((Path(__file__).parent / "known_keys.json").read_text())

# For every field a value that is not its default, and the fields it needs beside it.
CHANGED = {
    "dataset": {"dataset": "cifar10"},
    "subset": {"subset": 20},
    "validation": {"validation": 5000},
    "normalization": {"normalization": "imagenet"},
    "padding": {"padding": 2},
    "padding_mode": {"padding_mode": "reflect"},
    "flip": {"flip": False},
    "ood_dataset": {"ood_dataset": "svhn"},
    "network": {"network": "resnet34"},
    "peer": {"peer": "mobilenet", "methods": {"dml": {}}},
    "width": {"width": 8},
    "stages": {"stages": 3},
    "heads": {"heads": "native"},
    "methods": {"methods": {"pskd": {}}},
    "epochs": {"epochs": 10},
    "batch_size": {"batch_size": 64},
    "optimizer": {"optimizer": "adamw"},
    "learning_rate": {"learning_rate": 0.05},
    "warmup": {"warmup": 5},
    "schedule": {"schedule": "cosine"},
    "milestones": {"milestones": [100, 200]},
    "gamma": {"gamma": 0.2},
    "momentum": {"momentum": 0.8},
    "nesterov": {"nesterov": False},
    "weight_decay": {"weight_decay": 1e-4},
    "precision": {"precision": "float32"},
    "seed": {"seed": 1},
}

BYOT_OF_THREE = st.sampled_from([None, [1], [2], [3], [1, 2], [2, 3], [1, 2, 3], [3, 2, 1]])
METHOD_SETS = st.fixed_dictionaries(
    {},
    optional={
        "pskd": st.fixed_dictionaries({}, optional={"alpha": st.floats(0, 1)}),
        "byot": st.fixed_dictionaries({}, optional={"blocks": BYOT_OF_THREE, "temperature": st.floats(1, 9)}),
        "dmfl": st.fixed_dictionaries({}, optional={"variant": st.sampled_from(["equation", "released"])}),
        "label_smoothing": st.just({}),
    },
)
CONFIGS = st.fixed_dictionaries(
    {},
    optional={
        "network": st.sampled_from(["resnet18", "resnet50", "resnext50_32x4d"]),
        "dataset": st.sampled_from(["cifar100", "digits", "folder:photos"]),
        "methods": METHOD_SETS,
        "heads": st.sampled_from(["auto", "native", "bottleneck", "attention"]),
        "stages": st.sampled_from([None, 4]),
        "width": st.integers(1, 128),
        "epochs": st.integers(1, 400),
        "learning_rate": st.floats(1e-6, 10),
        "weight_decay": st.sampled_from([0, 0.0, -0.0, 5e-4]),
        "optimizer": st.sampled_from(["sgd", "adamw", {"adamw": {"betas": [0.9, 0.95]}}, {"adamw": {"eps": 1e-8}}]),
        "warmup": st.sampled_from([0, -0.0, 0.5]),
        "milestones": st.none() | st.lists(st.integers(1, 300), unique=True).map(sorted),
        "flip": st.sampled_from([None, True, False]),
        "seed": st.integers(0, 2**63 - 1),
    },
)


def problems_of(**values) -> dict[str, str]:
    with pytest.raises(ValidationError) as caught:
        TrainConfig(**values)
    return {".".join(path): message for path, message in config_problems(caught.value)}


def test_every_field_is_tried():
    assert CHANGED.keys() == TrainConfig.model_fields.keys()


@pytest.mark.parametrize("name", CHANGED)
def test_every_field_is_part_of_the_key(name):
    beside = {other: value for other, value in CHANGED[name].items() if other != name}
    assert TrainConfig(**CHANGED[name]).key() != TrainConfig(**beside).key()


@pytest.mark.parametrize("entry", KNOWN, ids=lambda entry: entry["key"][:8])
def test_known_configurations_keep_their_keys(entry):
    # Results in databases hang on these keys: they may change with CONFIG_VERSION only.
    assert TrainConfig(**entry["config"]).key() == entry["key"]


def test_known_configurations_cover_every_field_and_method():
    assert {name for entry in KNOWN for name in entry["config"]} == TrainConfig.model_fields.keys()
    assert {name for entry in KNOWN for name in entry["config"].get("methods", {})} >= METHODS.keys()
    assert len({entry["key"] for entry in KNOWN}) == len(KNOWN)


def test_a_field_added_with_a_default_keeps_every_key(monkeypatch):
    class Later(TrainConfig):
        added: int = 3

    monkeypatch.setitem(module._DEFAULTS, "added", 3)
    for entry in KNOWN:
        assert Later(**entry["config"]).key() == entry["key"]
    assert Later(added=4).key() != TrainConfig().key()


def test_the_key_of_a_cell_is_that_of_all_its_seeds():
    one, other = TrainConfig(width=8, seed=3), TrainConfig(width=8, seed=7)
    assert one.cell_key() == other.cell_key() == TrainConfig(width=8).key()
    assert one.cell_key() != TrainConfig(width=16, seed=3).cell_key()


def test_a_hyperparameter_at_its_default_leaves_the_key():
    spelled_out = {"pskd": {"alpha": 0.8}, "dmfl": {"variant": "equation"}, "byot": {"temperature": 3, "alpha": "0.1"}}
    short = TrainConfig(methods={"byot": None, "pskd": {}, "dmfl": {}})
    assert TrainConfig(methods=spelled_out) == short
    assert TrainConfig(methods=spelled_out).key() == short.key()


@pytest.mark.parametrize(
    ("spelled", "canonical"),
    [
        ({name: field.get_default(call_default_factory=True) for name, field in TrainConfig.model_fields.items()}, {}),
        ({"stages": 4}, {}),
        ({"milestones": [150, 225]}, {}),
        ({"epochs": 10, "milestones": [5, 7]}, {"epochs": 10}),
        ({"flip": True}, {}),
        ({"dataset": "digits", "flip": False}, {"dataset": "digits"}),
        ({"padding": 0, "padding_mode": "reflect"}, {"padding": 0}),
        ({"dataset": "tinyimagenet", "normalization": "imagenet"}, {"dataset": "tinyimagenet"}),
        ({"weight_decay": -0.0}, {"weight_decay": 0}),
        ({"methods": {"byot": {"feature_weight": -0.0}}}, {"methods": {"byot": {"feature_weight": 0}}}),
        ({"learning_rate": 1}, {"learning_rate": 1.0}),
        ({"optimizer": {"sgd": {}}, "schedule": {"steps": None}, "warmup": -0.0}, {}),
        ({"optimizer": {"adamw": {"betas": [0.9, 0.999], "eps": "1e-8"}}}, {"optimizer": "adamw"}),
        ({"optimizer": "adamw", "learning_rate": 0.001, "weight_decay": 0.01}, {"optimizer": "adamw"}),
        ({"optimizer": "adamw", "momentum": 0.9, "nesterov": True}, {"optimizer": "adamw"}),
        ({"schedule": {"cosine": {"final": -0.0}}}, {"schedule": "cosine"}),
        ({"schedule": "linear", "milestones": None, "gamma": 0.1}, {"schedule": "linear"}),
        ({"heads": "none"}, {}),
        ({"heads": "native"}, {"heads": "bottleneck"}),
        ({"heads": "native", "methods": {"byot": {}}}, {"methods": {"byot": {}}}),
        ({"heads": "bottleneck", "methods": {"byot": {}}}, {"methods": {"byot": {}}}),
        ({"heads": "native", "network": "resnext50_32x4d"}, {"heads": "attention", "network": "resnext50_32x4d"}),
        ({"methods": {"byot": {"blocks": [1, 2, 3]}}}, {"methods": {"byot": {}}}),
        ({"methods": {"byot": {"blocks": [2, 1]}}, "stages": 3}, {"methods": {"byot": {}}, "stages": 3}),
        ({"methods": {"byot": {"blocks": [3, 2]}}}, {"methods": {"byot": {"blocks": [2, 3]}}}),
        (
            {"network": "wrn28_10", "peer": "wrn28_10", "methods": {"dml": {}}},
            {"network": "wrn28_10", "methods": {"dml": {}}},
        ),
    ],
)
def test_equivalent_values_make_equal_configurations(spelled, canonical):
    assert TrainConfig(**spelled) == TrainConfig(**canonical)
    assert TrainConfig(**spelled).key() == TrainConfig(**canonical).key()


@settings(max_examples=150, deadline=None)
@given(values=CONFIGS, data=st.data())
def test_identity_survives_storage_and_any_order(values, data):
    built = TrainConfig(**values)
    stored = json.loads(json.dumps(built.model_dump(mode="json")))
    assert TrainConfig(**stored) == built
    assert TrainConfig(**stored).key() == built.key()
    assert TrainConfig(**built.science()).key() == built.key()
    shuffled = dict(data.draw(st.permutations(list(values.items()))))
    if "methods" in shuffled:
        shuffled["methods"] = dict(data.draw(st.permutations(list(shuffled["methods"].items()))))
    assert TrainConfig(**shuffled).key() == built.key()


def test_configurations_do_not_share_their_methods():
    one, other = (TrainConfig(methods={"byot": {"blocks": [3]}}) for _ in range(2))
    assert one.methods is not other.methods
    assert one.methods["byot"] is not other.methods["byot"]


@pytest.mark.parametrize("value", ["no", False, "off"])
def test_words_of_older_yaml_mean_what_they_say(value):
    assert TrainConfig(nesterov=value).nesterov is False


def rates(config: TrainConfig, steps: int) -> list[float]:
    return [rate for epoch in range(config.epochs) for rate in config.learning_rates(epoch, steps)]


def test_the_learning_rate_follows_the_milestones():
    config = TrainConfig(epochs=300)
    assert [config.learning_rates(epoch, 2) for epoch in (0, 149, 150, 224, 225, 299)] == [
        *([0.1, 0.1], [0.1, 0.1], [0.1 * 0.1] * 2, [0.1 * 0.1] * 2, [0.1 * 0.1**2] * 2, [0.1 * 0.1**2] * 2)
    ]
    assert TrainConfig(epochs=1).settled_milestones(None) == ()
    assert TrainConfig(epochs=1, milestones=[]).learning_rates(0, 1) == [0.1]


def test_the_learning_rate_falls_along_a_cosine_or_a_line_to_its_final_value():
    fields = {"epochs": 2, "learning_rate": 0.8}
    half, quarter = 0.4, 0.8 * (1 + math.sqrt(0.5)) / 2
    assert rates(TrainConfig(schedule="cosine", **fields), 2) == pytest.approx([0.8, quarter, half, 0.8 - quarter])
    assert rates(TrainConfig(schedule="linear", **fields), 2) == pytest.approx([0.8, 0.6, 0.4, 0.2])
    linear = TrainConfig(schedule={"linear": {"final": 0.5}}, **fields)
    assert rates(linear, 4) == pytest.approx([0.8 - 0.05 * step for step in range(8)])
    assert rates(TrainConfig(schedule={"cosine": {"final": 1}}, **fields), 3) == pytest.approx([0.8] * 6)


@pytest.mark.parametrize(
    "fields, expected",
    [
        ({"schedule": "linear"}, [0.2, 0.4, 0.6, 0.6, 0.4, 0.2]),
        ({"schedule": {"linear": {"final": 1}}}, [0.2, 0.4, 0.6, 0.6, 0.6, 0.6]),
        # Milestones count from the beginning, not from the end of the warmup.
        ({"milestones": [1, 2], "gamma": 0.5}, [0.2, 0.4, 0.3, 0.3, 0.15, 0.15]),
        ({"schedule": "linear", "warmup": 0}, [0.6, 0.5, 0.4, 0.3, 0.2, 0.1]),
        ({"warmup": 0.25, "milestones": []}, [0.6] * 6),
    ],
)
def test_the_learning_rate_rises_step_by_step_in_the_warmup(fields, expected):
    config = TrainConfig(**{"epochs": 3, "learning_rate": 0.6, "warmup": 1.5} | fields)
    assert rates(config, 2) == pytest.approx(expected)


def test_the_defaults_of_a_rate_and_a_decay_are_those_of_the_optimizer():
    adamw = TrainConfig(optimizer="adamw")
    assert (adamw.learning_rate, adamw.weight_decay, adamw.science()) == (1e-3, 1e-2, {"optimizer": "adamw"})
    given = TrainConfig(optimizer={"adamw": {"betas": [0.9, 0.95]}}, learning_rate=0.1, weight_decay=5e-4)
    assert given.science().keys() == {"optimizer", "learning_rate", "weight_decay"}
    assert TrainConfig(**given.science()) == given


@pytest.mark.parametrize(
    ("values", "key", "words"),
    [
        ({"epochs": 0}, "epochs", ["0 is too small", "1 or more"]),
        ({"epochs": True}, "epochs", ["true is not a number"]),
        ({"epochs": 1.5}, "epochs", ["1.5 is not a whole number"]),
        ({"epochs": "many"}, "epochs", ["'many' is not a whole number"]),
        ({"epochs": None}, "epochs", ["null is not a whole number"]),
        ({"epochs": [3]}, "epochs", ["[3] is not a whole number"]),
        ({"seed": 2**63}, "seed", ["too large", "less than 9223372036854775808"]),
        ({"seed": -1}, "seed", ["-1 is too small", "0 or more"]),
        ({"learning_rate": "fast"}, "learning_rate", ["'fast' is not a number"]),
        ({"learning_rate": 0}, "learning_rate", ["0 is too small", "more than 0"]),
        ({"learning_rate": float("inf")}, "learning_rate", ["inf is not a finite number"]),
        ({"momentum": 1}, "momentum", ["1 is too large", "less than 1"]),
        ({"nesterov": "maybe"}, "nesterov", ["'maybe' is neither true nor false"]),
        ({"milestones": 3}, "milestones", ["3 is not a list"]),
        ({"milestones": [3, 2]}, "milestones", ["[3, 2]", "rising"]),
        ({"milestones": [1, "x"]}, "milestones.1", ["'x' is not a whole number"]),
        ({"precision": "float23"}, "precision", ["'float23'", "did you mean 'float32'", "bfloat16"]),
        ({"network": "resnet19"}, "network", ["'resnet19'", "did you mean 'resnet18'", "pyramidnet200"]),
        ({"network": 18}, "network", ["18 is not text"]),
        ({"dataset": "cifar1000"}, "dataset", ["'cifar1000'", "did you mean 'cifar100'", "folder:NAME"]),
        ({"dataset": "folder:"}, "dataset", ["'folder:'"]),
        ({"dataset": "folder:../secrets"}, "dataset", ["'folder:../secrets' leaves the data root"]),
        ({"dataset": "folder:/etc"}, "dataset", ["leaves the data root"]),
        ({"ood_dataset": "svnh"}, "ood_dataset", ["did you mean 'svhn'"]),
        ({"methods": "pskd"}, "methods", ["'pskd' is not a mapping"]),
        ({"methods": {"pskdd": {}}}, "methods.pskdd", ["'pskdd'", "did you mean 'pskd'", "byot"]),
        ({"methods": {"pskd": 1}}, "methods.pskd", ["1 is not a mapping"]),
        ({"methods": {"pskd": {"alfa": 1}}}, "methods.pskd.alfa", ["hyperparameter of pskd", "did you mean 'alpha'"]),
        ({"methods": {"pskd": {"alpha": 2}}}, "methods.pskd.alpha", ["2 is too large", "1 or less"]),
        ({"methods": {"pskd": {"alpha": True}}}, "methods.pskd.alpha", ["true is not a number"]),
        ({"methods": {"byot": {"blocks": [True]}}}, "methods.byot.blocks", ["is not a number"]),
        ({"methods": {"byot": {"blocks": []}}}, "methods.byot.blocks", ["[] is too short"]),
        ({"methods": {"byot": {"blocks": [4]}}}, "methods.byot", ["no block 4", "1 to 3"]),
        ({"methods": {"dmfl": {"variant": "relased"}}}, "methods.dmfl.variant", ["did you mean 'released'"]),
        ({"optimizer": "AdamW"}, "optimizer", ["unknown optimizer 'AdamW'", "did you mean 'adamw'", "adamw, sgd"]),
        ({"optimizer": None}, "optimizer", ["null is not one optimizer", "adamw, sgd"]),
        ({"optimizer": {"sgd": {}, "adamw": {}}}, "optimizer", ["is not one optimizer"]),
        ({"optimizer": {"lion": {}}}, "optimizer.lion", ["unknown optimizer 'lion'"]),
        ({"optimizer": {"adamw": 3}}, "optimizer.adamw", ["3 is not a mapping of hyperparameters"]),
        ({"optimizer": {"adamw": {"beta": 1}}}, "optimizer.adamw.beta", ["hyperparameter of adamw", "mean 'betas'"]),
        ({"optimizer": {"adamw": {"betas": [0.9, 1]}}}, "optimizer.adamw.betas.1", ["1 is too large"]),
        ({"optimizer": {"adamw": {"betas": [0.9]}}}, "optimizer.adamw.betas.1", ["[0.9] is too short"]),
        ({"optimizer": {"adamw": {"betas": [0, 0, 0]}}}, "optimizer.adamw.betas", ["[0, 0, 0] is too long", "have 2"]),
        ({"optimizer": {"adamw": {"eps": True}}}, "optimizer.adamw.eps", ["true is not a number"]),
        ({"optimizer": {"sgd": {"momentum": 0.8}}}, "optimizer.sgd.momentum", ["write it beside `optimizer`"]),
        ({"optimizer": "adamw", "momentum": 0.8}, "momentum", ["0.8 is not used", "adamw has no momentum", "of sgd"]),
        ({"optimizer": "adamw", "nesterov": False}, "nesterov", ["false is not used", "adamw has no nesterov"]),
        ({"schedule": "cosin"}, "schedule", ["unknown schedule 'cosin'", "did you mean 'cosine'"]),
        ({"schedule": {"cosine": {"final": 2}}}, "schedule.cosine.final", ["2 is too large"]),
        ({"schedule": "cosine", "milestones": [150, 225]}, "milestones", ["not used", "cosine has no milestones"]),
        ({"schedule": "linear", "gamma": 0.2}, "gamma", ["0.2 is not used", "of steps"]),
        ({"warmup": -1}, "warmup", ["-1 is too small"]),
        ({"warmup": True}, "warmup", ["true is not a number"]),
        ({"warmup": 10, "epochs": 10}, "warmup", ["10 leaves none of the 10 epochs"]),
        ({"lr": 0.1}, "lr", ["'lr'", "did you mean 'learning_rate'"]),
        ({"epoch": 1}, "epoch", ["did you mean 'epochs'"]),
        ({"stages": 5}, "stages", ["resnet18 has 2 to 4 stages, not 5"]),
        ({"stages": 2, "network": "densenet121"}, "stages", ["densenet121 has only 4 stages, not 2"]),
        ({"peer": "mobilenet"}, "peer", ["'mobilenet' is not used", "dml"]),
        ({"validation": 49_901}, "validation", ["leaves too few of the 50,000 training images for 100 classes"]),
        ({"subset": 501}, "subset", ["501 is more than the 500 training images of any class"]),
        ({"subset": 147, "dataset": "digits"}, "subset", ["more than the 146"]),
        ({"network": "densenet121", "methods": {"byot": {}}}, "network", ["byot", "networks that can", "resnet18"]),
        ({"heads": "attension"}, "heads", ["'attension'", "bottleneck, attention"]),
        ({"heads": "none", "methods": {"byot": {}}}, "heads", ["byot trains auxiliary heads"]),
        ({"network": "wrn28_10", "peer": "resnet18", "methods": {"dcm": {}}}, "peer", ["resnet18 cannot carry 'dcm'"]),
    ],
)
def test_mistakes_are_told_in_plain_words(values, key, words):
    wrong = problems_of(**values)
    assert list(wrong) == [key]
    for word in words:
        assert word in wrong[key]


def test_all_mistakes_are_told_at_once():
    wrong = problems_of(epochs=0, lr=1, network="resnet19", methods={"pskdd": {}, "byot": {"blocks": "x", "y": 1}})
    assert wrong.keys() == {"epochs", "lr", "network", "methods.pskdd", "methods.byot.blocks", "methods.byot.y"}
    wrong = problems_of(stages=5, peer="mobilenet", validation=60_000, heads="none", methods={"byot": {}})
    assert wrong.keys() == {"stages", "peer", "validation", "heads"}


def test_long_values_are_shortened():
    assert len(problems_of(epochs="x" * 10_000)["epochs"]) < 200


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_trains_by_default(network):
    config = TrainConfig(network=network)
    assert config.network_names == [network]
    assert config.head_kind is None
    assert TrainConfig(**config.model_dump(mode="json")) == config


@pytest.mark.parametrize("methods", [{"dcm": {}, "byot": {}}, {"dmfl": {}}])
def test_methods_that_compare_features_refuse_heads_of_another_length(methods):
    with pytest.raises(ValidationError, match="features of heads"):
        TrainConfig(network="wrn28_10", methods=methods)


def test_byot_without_its_feature_term_works_with_any_heads():
    config = TrainConfig(network="wrn28_10", methods={"dcm": {}, "byot": {"feature_weight": 0}})
    assert config.heads == "dcm"
    assert not config.requires.features
