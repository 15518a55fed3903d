"""Grid files that are right: what they expand to, and how their trials are named."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.grid import Grid, Resources, load_grid, placed
from tests.orchestrator.grid_files import GRIDS, SHIPPED, keys, load, names, problems
from trainer.config import TrainConfig

SIZES = {
    "quickstart": 12,
    "table1": 24,
    "table3": 3,
    "table4": 3,
    "cifar100_smoke": 2,
    "tinyimagenet": 32,
    "pskd_cifar100": 25,
    "pskd_imagenet": 5,
    "dcm": 30,
    "fidelity": 18,
    "fidelity_small": 18,
}
METHODS = ["byot", "dmfl", "pskd", "label_smoothing"]
AXES = st.fixed_dictionaries(
    {},
    optional={
        "network": st.lists(st.sampled_from(["resnet18", "resnet34", "resnet50"]), min_size=1, unique=True),
        "methods": st.lists(st.sampled_from(METHODS), min_size=1, unique=True).map(lambda some: {"powerset": some}),
        "seed": st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True),
        "width": st.lists(st.integers(1, 64), min_size=1, max_size=3, unique=True),
        "learning_rate": st.lists(st.floats(1e-3, 1), min_size=1, max_size=3, unique=True),
    },
)


def shipped(name: str) -> Grid:
    return load_grid(GRIDS / f"{name}.yaml")


def size(axes: dict) -> int:
    """Return how many trials a product of axes should make."""
    product = 1
    for values in axes.values():
        product *= 2 ** len(values["powerset"]) if isinstance(values, dict) else len(values)
    return product


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_grids_are_complete(path: Path):
    grid = load_grid(path)
    assert grid.name == path.stem
    assert len(grid.trials) == SIZES.get(path.stem, len(grid.trials)) > 0
    assert grid.text == path.read_text()
    assert path.read_text().startswith("# "), "a header says what the grid is"
    assert len({trial.key for trial in grid.trials}) == len({trial.name for trial in grid.trials}) == len(grid.trials)
    assert all(trial.config.key() == trial.key for trial in grid.trials)


def test_every_grid_of_the_papers_is_there():
    assert SIZES.keys() <= {path.stem for path in SHIPPED}


def test_tables_share_their_trials():
    one, three, four = ([trial.key for trial in shipped(name).trials] for name in ("table1", "table3", "table4"))
    assert three[0] == one[7]
    assert four[0] == three[2]
    assert len({*one, *three, *four}) == 24 + 2 + 2
    assert len({trial.key for trial in shipped("fidelity").trials} & set(one)) == 4


def test_the_quickstart_holds_all_four_tables():
    grid = shipped("quickstart")
    methods = [trial.config.methods for trial in grid.trials if trial.config.stages is None]
    assert methods[:1] == [{}] and {"byot": {}, "dmfl": {}, "pskd": {}} in methods
    assert [trial.config.methods["byot"] for trial in grid.trials[7:]] == [
        {},
        {"blocks": [2, 3]},
        {"blocks": [3]},
        {"blocks": [2]},
        {},
    ]
    assert [trial.config.stages for trial in grid.trials[7:]] == [None, None, None, 3, 2]
    assert {trial.config.heads for trial in grid.trials} == {"bottleneck"}
    assert {trial.resources for trial in grid.trials} == {Resources(gpu=0, cpu=1)}
    assert grid.report == {
        "tables": [1, 2, 3, 4, "interactions", "losses"],
        "figures": [2],
        "selection": "best_test",
        "axes": ["methods", "stages"],
    }


def test_the_paper_s_grid_has_the_paper_s_recipe():
    for trial in shipped("table1").trials:
        config = trial.config
        assert (config.dataset, config.epochs, config.settled_milestones(None)) == ("cifar100", 300, (150, 225))
        assert (config.learning_rate, config.momentum, config.nesterov) == (0.1, 0.9, True)
        assert (config.weight_decay, config.batch_size, config.width, config.padding) == (5e-4, 128, 64, 4)
        assert config.heads != "none", "Table 2 evaluates the baseline's heads"


@settings(max_examples=60, deadline=None)
@given(axes=AXES)
def test_a_grid_is_the_product_of_its_axes(axes):
    grid = load({"grid": axes})
    assert len(grid.trials) == size(axes)
    assert len({trial.key for trial in grid.trials}) == len(grid.trials)
    assert len({trial.name for trial in grid.trials}) == len(grid.trials)


@settings(max_examples=60, deadline=None)
@given(axes=AXES, data=st.data())
def test_order_changes_no_trial(axes, data):
    def shuffled(value):
        if isinstance(value, dict):
            return {key: shuffled(child) for key, child in data.draw(st.permutations(list(value.items())))}
        return data.draw(st.permutations(value)) if isinstance(value, list) else value

    content = {"name": "test", "fixed": {"epochs": 9, "dataset": "digits"}, "grid": axes}
    other = shuffled(content)
    assert keys(other) == keys(content)
    assert sorted(names(other)) == sorted(names(content))


@settings(max_examples=40, deadline=None)
@given(axes=AXES, name=st.sampled_from(["network", "seed", "width"]))
def test_a_new_value_adds_exactly_its_trials(axes, name):
    axes = {"network": ["resnet18"], "seed": [0], "width": [8], **axes}
    new = {"network": "resnet101", "seed": 10, "width": 65}[name]
    more = load({"grid": {**axes, name: [*axes[name], new]}})
    before = keys({"grid": axes})
    added = {trial.key for trial in more.trials if getattr(trial.config, name) == new}
    assert added and not added & before
    assert {trial.key for trial in more.trials} == added | before


def test_a_powerset_lists_the_smaller_sets_first():
    methods = [trial.config.methods for trial in load({"grid": {"methods": {"powerset": METHODS[:3]}}}).trials]
    assert [list(some) for some in methods] == [
        [],
        ["byot"],
        ["dmfl"],
        ["pskd"],
        ["byot", "dmfl"],
        ["byot", "pskd"],
        ["dmfl", "pskd"],
        ["byot", "dmfl", "pskd"],
    ]


def test_methods_of_a_powerset_carry_hyperparameters():
    grid = load("name: x\ngrid:\n  methods:\n    powerset:\n      - byot: {blocks: [3]}\n      - pskd\n")
    assert [trial.config.methods for trial in grid.trials] == [
        {},
        {"byot": {"blocks": [3]}},
        {"pskd": {}},
        {"byot": {"blocks": [3]}, "pskd": {}},
    ]


@pytest.mark.parametrize(
    ("written", "methods"),
    [
        ("[baseline]", {}),
        ("[null]", {}),
        ("baseline", {}),
        ("[{}]", {}),
        ("[pskd]", {"pskd": {}}),
        ("pskd", {"pskd": {}}),
        ("[pskd+byot]", {"byot": {}, "pskd": {}}),
        ("[byot + pskd]", {"byot": {}, "pskd": {}}),
        ("[[pskd, byot]]", {"byot": {}, "pskd": {}}),
        ("[{pskd: , byot: {}}]", {"byot": {}, "pskd": {}}),
        ("{pskd: {alpha: 0.5}}", {"pskd": {"alpha": 0.5}}),
        ("[[pskd, byot: {blocks: [3, 1]}]]", {"byot": {"blocks": [1, 3]}, "pskd": {}}),
    ],
)
def test_a_set_of_methods_can_be_written_in_several_ways(written, methods):
    (trial,) = load(f"name: x\ngrid: {{methods: {written}}}").trials
    assert trial.config.methods == methods
    if not written.startswith("["):
        (trial,) = load(f"name: x\nfixed: {{methods: {written}}}").trials
        assert trial.config.methods == methods


def test_fixed_methods_are_one_set():
    (trial,) = load("name: x\nfixed: {methods: [pskd, byot]}").trials
    assert trial.config.methods == {"byot": {}, "pskd": {}}


def test_a_single_value_stands_for_a_list_of_one():
    assert keys({"grid": {"network": "resnet34", "seed": 3}}) == keys({"grid": {"network": ["resnet34"], "seed": [3]}})


def test_an_axis_may_hold_lists():
    grid = load({"grid": {"milestones": [[100, 200], [150], []]}})
    assert [trial.config.milestones for trial in grid.trials] == [(100, 200), (150,), ()]


def test_without_a_grid_there_is_one_trial():
    (trial,) = load({"fixed": {"dataset": "digits", "seed": 3}}).trials
    assert trial.config == TrainConfig(dataset="digits", seed=3)
    assert keys("name: x\ngrid:\n") == {TrainConfig().key()}


def test_yaml_1_2_words_and_numbers():
    grid = load("name: no\ngrid: {learning_rate: [1e-3, .5, 0x1], nesterov: [true, no], seed: [0o17]}")
    assert grid.name == "no"
    assert {trial.config.learning_rate for trial in grid.trials} == {0.001, 0.5, 1.0}
    assert {trial.config.nesterov for trial in grid.trials} == {True, False}
    assert {trial.config.seed for trial in grid.trials} == {15}


def test_anchors_are_followed():
    assert keys("name: x\nfixed: {seed: &s 3, epochs: *s}\ngrid: {width: &w [8, 16], batch_size: *w}") == {
        TrainConfig(seed=3, epochs=3, width=width, batch_size=size).key() for width in (8, 16) for size in (8, 16)
    }


def test_blocks_share_cells():
    one = {"methods": {"powerset": ["pskd", "dmfl"]}}
    other = {"methods": ["pskd+dmfl", "byot"]}
    assert len(keys({"grid": [one, other]})) == 5
    assert keys({"grid": [one, other]}) == keys({"grid": one}) | keys({"grid": other})
    assert sorted(names({"grid": [one, other]})) == sorted(names({"grid": [other, one]}))


@pytest.mark.parametrize(
    ("rules", "left"),
    [
        ([], 8),
        ([{"network": "resnet50"}], 4),
        ([{"network": "resnet50", "methods": "pskd"}], 7),
        ([{"network": ["resnet18", "resnet50"], "methods": ["baseline", "byot+pskd"]}], 4),
        ([{"methods": {"powerset": ["byot"]}}], 4),
        ([{"network": "resnet50", "methods": "byot"}, {"network": "resnet50", "methods": "baseline"}], 6),
        ([{"network": "resnet50"}, {"methods": {"byot": {}, "pskd": None}}], 3),
        ([{"dataset": "cifar100", "epochs": 30.0, "methods": "pskd"}], 6),
    ],
)
def test_exclude_drops_partial_matches(rules, left):
    grid = {"network": ["resnet18", "resnet50"], "methods": {"powerset": ["byot", "pskd"]}}
    content = {"fixed": {"epochs": 30}, "grid": grid, "exclude": rules}
    assert len(keys(content)) == left
    assert keys(content) <= keys({**content, "exclude": []})


def test_exclude_can_drop_what_could_not_run():
    axes = {"network": ["resnet18", "densenet121"], "methods": ["pskd", "byot"]}
    assert len(keys({"grid": axes, "exclude": [{"network": "densenet121", "methods": "byot"}]})) == 3


def test_names_show_what_varies():
    assert names({"grid": {"methods": ["baseline", "pskd+byot"], "seed": [0, 4]}}) == [
        "resnet18/baseline/seed0",
        "resnet18/baseline/seed4",
        "resnet18/byot+pskd/seed0",
        "resnet18/byot+pskd/seed4",
    ]
    assert names({"fixed": {"epochs": 9}, "grid": {"stages": [None, 3], "width": [8]}}) == [
        "resnet18/baseline/seed0",
        "resnet18/baseline/stages3/seed0",
    ]
    grid = [{"methods": ["pskd+byot"]}, {"stages": 3, "methods": [{"byot": {"blocks": [2]}, "pskd": {"alpha": 0.5}}]}]
    assert names({"grid": grid}) == [
        "resnet18/byot+pskd/seed0",
        "resnet18/byot[2]+pskd[alpha=0.5]/stages3/seed0",
    ]
    pair = {"network": "wrn28_10", "peer": ["wrn28_10", "mobilenet"], "methods": ["dml"]}
    assert names({"grid": pair}) == ["wrn28_10+wrn28_10/dml/seed0", "wrn28_10+mobilenet/dml/seed0"]
    varied = {"nesterov": [True, False], "milestones": [None, [5, 9]], "weight_decay": [5e-4, 1e-5]}
    assert names({"grid": varied})[-1] == "resnet18/baseline/milestones5,9/nesterovfalse/weight_decay1e-05/seed0"


def test_heads_that_follow_from_methods_are_not_shown():
    assert names({"grid": {"methods": ["pskd", "byot"]}}) == ["resnet18/pskd/seed0", "resnet18/byot/seed0"]


@pytest.mark.parametrize(
    "folders", [["a/b", "a_b", "a:b"], ["é", "è"], ["x" * 300, "x" * 301], ["a..b", "a_b"], ["a b", "a\\b"]]
)
def test_names_are_unique_and_safe_as_paths(folders):
    named = names({"grid": {"dataset": [f"folder:{folder}" for folder in folders]}})
    assert len(set(named)) == len(folders)
    for name in named:
        assert re.fullmatch(r"[A-Za-z0-9_.,=+/\[\]-]{1,250}", name) and ".." not in name
        assert all(len(part) <= 250 for part in name.split("/"))


def test_resources_may_differ_by_network():
    asked = {"gpu": 0.25, "cpu": 2, "per_network": {"resnet50": {"gpu": 1}, "wrn28_10": {"cpu": 8}}}
    grid = load({"grid": {"network": ["resnet18", "resnet50", "wrn28_10"]}, "resources": asked})
    assert [trial.resources for trial in grid.trials] == [
        Resources(gpu=0.25, cpu=2),
        Resources(gpu=1, cpu=2),
        Resources(gpu=0.25, cpu=8),
    ]
    pair = {"fixed": {"methods": "dml", "network": "mobilenet", "peer": "wrn28_10"}}
    (trial,) = load({**pair, "resources": {"gpu": 1, "cpu": 1, "per_network": {"wrn28_10": {"gpu": 0.5}}}}).trials
    assert trial.resources == Resources(gpu=1, cpu=1)


def test_a_trial_may_run_in_several_processes_each_with_a_gpu_or_none():
    grid = {"network": ["resnet18", "resnet50", "wrn28_10"]}
    asked = {"gpus_per_trial": 4, "cpu": 8, "per_network": {"resnet18": {"gpus_per_trial": 1}, "resnet50": {"cpu": 2}}}
    assert [trial.resources for trial in load({"grid": grid, "resources": asked}).trials] == [
        Resources(gpu=1, cpu=8),
        Resources(gpu=1, cpu=2, processes=4),
        Resources(gpu=1, cpu=8, processes=4),
    ]
    (trial, *_) = load({"grid": grid, "resources": {"gpu": 0, "processes": 2}}).trials
    assert trial.resources == Resources(gpu=0, cpu=1, processes=2)


def test_two_networks_in_several_processes_use_one_gpu_each():
    asked = {"gpu": 0.5, "cpu": 1, "per_network": {"wrn28_10": {"gpus_per_trial": 2}}}
    pair = {"fixed": {"methods": ["dml"], "network": "resnet18", "peer": "wrn28_10"}, "grid": {"seed": [0]}}
    (trial,) = load({**pair, "resources": asked}).trials
    assert trial.resources == Resources(gpu=1, cpu=1, processes=2)


def test_a_grid_that_leaves_it_open_takes_a_gpu_where_there_is_one():
    grid = {
        "grid": {"network": ["resnet18", "resnet50"]},
        "resources": {"cpu": 2, "per_network": {"resnet50": {"gpu": 0.5}}},
    }
    trials = load(grid).trials
    assert [trial.resources for trial in placed(trials, True)] == [Resources(1, 2), Resources(0.5, 2)]
    assert [trial.resources for trial in placed(trials, False)] == [Resources(0, 2), Resources(0.5, 2)]
    # Where it runs is no part of what a trial is.
    assert [trial.key for trial in placed(trials, True)] == [trial.key for trial in trials]
    asked = {"cpu": 1, "processes": 2}
    pair = {"fixed": {"methods": "dml", "network": "resnet18", "peer": "resnet50"}}
    for amounts, open_, with_gpu, absent in (
        ({}, None, 1, 0),
        ({"resnet50": {"gpu": 0}}, None, 1, 0),
        ({"resnet50": {"gpu": 1}}, 1, 1, 1),
    ):
        (trial,) = load({**pair, "resources": {**asked, "per_network": amounts}}).trials
        assert trial.resources == Resources(open_, 1, 2)
        assert [placed([trial], gpus)[0].resources.gpu for gpus in (True, False)] == [with_gpu, absent]


def test_how_steps_are_run_is_no_part_of_what_a_trial_is():
    asked = {"gpu": 1, "engine": "replayed", "per_network": {"resnet50": {"engine": "compiled", "deterministic": True}}}
    grid = {"grid": {"network": ["resnet18", "resnet50"]}}
    trials = load({**grid, "resources": asked}).trials
    assert [trial.resources for trial in trials] == [
        Resources(1, engine="replayed"),
        Resources(1, engine="compiled", deterministic=True),
    ]
    assert [trial.key for trial in trials] == [trial.key for trial in load(grid).trials]


def test_defaults_of_resources_and_report():
    grid = load({})
    assert grid.trials[0].resources == Resources(gpu=None, cpu=1, engine="auto", deterministic=False)
    assert grid.report == {"tables": [], "figures": [], "selection": "best_test", "axes": []}


@pytest.mark.parametrize("selection", ["best_test", "best_val", "last", "mean_last_5"])
def test_selection_rules(selection):
    grid = load({"fixed": {"validation": 300}, "report": {"selection": selection}})
    assert grid.report["selection"] == selection


def test_optimizers_and_schedules_are_axes_with_readable_names():
    grid = {
        "optimizer": ["sgd", "adamw", {"adamw": {"betas": [0.9, 0.95]}}],
        "schedule": ["cosine", {"linear": {"final": 0.01}}],
    }
    loaded = load({"fixed": {"epochs": 9, "warmup": 1}, "grid": grid})
    assert [trial.name for trial in loaded.trials] == [
        f"resnet18/baseline/optimizer={optimizer}/schedule={schedule}/seed0"
        for optimizer in ("sgd", "adamw", "adamw[0.9,0.95]")
        for schedule in ("cosine", "linear[final=0.01]")
    ]
    assert [trial.config.learning_rate for trial in loaded.trials] == [0.1, 0.1, 1e-3, 1e-3, 1e-3, 1e-3]


def test_what_is_kept_of_images_is_no_part_of_a_trial():
    axes = {"grid": {"dataset": "digits", "seed": [0, 1]}}
    plain, kept = load(axes), load({**axes, "outcomes": "probabilities"})
    assert (plain.outcomes, kept.outcomes) == ("correct", "probabilities")
    assert [trial.key for trial in plain.trials] == [trial.key for trial in kept.trials]
    assert load_grid(GRIDS / "quickstart.yaml", {"outcomes": "none"}).outcomes == "none"
    (problem,) = problems({**axes, "outcomes": "probabilitys"})
    assert problem.startswith("1: outcomes: unknown value 'probabilitys'; did you mean 'probabilities'?")
