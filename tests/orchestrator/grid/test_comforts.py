"""Comforts of a grid file: fields that vary together, settings, an order; and what features of other tools become."""

import json
import random
from pathlib import Path

import pytest

from orchestrator.grid import Grid, GridError, load_grid, parse_settings
from tests.orchestrator.grid_files import SHIPPED, load, names, problems

HEAD = "name: x\nfixed: {dataset: digits, epochs: 2}\n"


def set_in(folder: Path, text: str, *settings: str) -> Grid:
    """The grid of a file with settings, after its stored text has made the same grid."""
    (folder / "grid.yaml").write_text(text)
    grid = load_grid(folder / "grid.yaml", parse_settings(settings))
    (folder / "stored.yaml").write_text(grid.text)
    again = load_grid(folder / "stored.yaml")
    assert [(trial.key, trial.name, trial.resources) for trial in again.trials] == [
        (trial.key, trial.name, trial.resources) for trial in grid.trials
    ]
    assert (again.name, again.report, again.order, again.text) == (grid.name, grid.report, grid.order, grid.text)
    return grid


def refused(folder: Path, text: str, *settings: str) -> list[str]:
    with pytest.raises(GridError) as caught:
        set_in(folder, text, *settings)
    return [str(problem).replace(f"{folder / 'grid.yaml'}", "") for problem in caught.value.problems]


def seeds(grid: Grid) -> list[int]:
    return [trial.config.seed for trial in grid.trials]


# zip


def test_fields_of_a_zip_vary_together_and_with_every_other_axis():
    grid = load(HEAD + "grid:\n  seed: [0, 1]\n  zip: {width: [16, 8, 4], learning_rate: [0.1, 0.2, 0.4]}\n")
    made = [(trial.config.seed, trial.config.width, trial.config.learning_rate) for trial in grid.trials]
    assert made == [(seed, *row) for seed in (0, 1) for row in ((16, 0.1), (8, 0.2), (4, 0.4))]
    assert len({trial.name for trial in grid.trials}) == 6 and "width16" in grid.trials[0].name


def test_several_zips_are_a_product():
    grid = load(
        {"grid": {"zip": [{"width": [16, 8], "padding": [1, 2]}, {"methods": {"powerset": ["pskd"]}, "seed": [4, 5]}]}}
    )
    made = [(c.width, c.padding, list(c.methods), c.seed) for c in (trial.config for trial in grid.trials)]
    assert made == [(16, 1, [], 4), (16, 1, ["pskd"], 5), (8, 2, [], 4), (8, 2, ["pskd"], 5)]


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (
            "zip:\n    width: [1, 2]\n    seed: [3]\n    padding: 7\n",
            [
                "6: grid.zip.seed: has 1 value, and width in line 5 has 2; fields that vary together have as many each",
                "7: grid.zip.padding: has 1 value, and width in line 5 has 2; fields that vary together have as many "
                "each",
            ],
        ),
        (
            "zip: {width: [1, 2, 1], seed: [3, 4, 3]}\n",
            ["4: grid.zip: row 3 makes the same trials as row 1; leave one out"],
        ),
        (
            "seed: [1]\n  zip: {seed: [3]}\n",
            ["5: grid.zip.seed: is given by grid.seed in line 4 as well; leave one out"],
        ),
        ("zip: {epochs: [3]}\n", ["4: grid.zip.epochs: is given by fixed.epochs in line 2 as well; leave one out"]),
        ("zip: {width: [1, x], seed: [3, 4]}\n", ["4: grid.zip.width[1]: 'x' is not a whole number"]),
        ("zip: {widht: [1]}\n", ["4: grid.zip.widht: unknown key 'widht'; did you mean 'width'?"]),
        ("zip:\n", ["4: grid.zip: has no fields"]),
        ("zip: 3\n", ["4: grid.zip: 3 is not a mapping"]),
        # Where the mistaken value is unknown, nothing is made up of the others.
        ("zip: {network: [densenet121, x], methods: [byot, pskd]}\n", ["4: grid.zip.network[1]: unknown network 'x'"]),
    ],
)
def test_a_zip_that_is_wrong_is_said_with_its_line(block: str, expected: list[str]):
    wrong = problems(HEAD + "grid:\n  " + block)
    assert len(wrong) == len(expected)
    assert all(line.startswith(words) for line, words in zip(wrong, expected, strict=True)), wrong


def test_a_zip_is_excluded_by_any_of_its_fields():
    text = HEAD + "grid: {seed: [0, 1], zip: {width: [16, 8], padding: [1, 2]}}\nexclude: [{padding: 2, seed: 0}]\n"
    assert [(trial.config.seed, trial.config.width) for trial in load(text).trials] == [(0, 16), (1, 16), (1, 8)]


# exclude


def test_exclude_compares_values_and_not_their_spelling():
    optimizers = "grid: {optimizer: [sgd, adamw], seed: [0, 1]}\n"
    grid = load(HEAD + optimizers + "exclude: [{learning_rate: 1e-1, seed: 0}]\n")
    # AdamW's own default is another rate.
    assert [(t.config.optimizer, t.config.seed) for t in grid.trials] == [("sgd", 1), ("adamw", 0), ("adamw", 1)]
    grid = load(HEAD + optimizers + "exclude: [{learning_rate: 0.001}]\n")
    assert [trial.config.optimizer for trial in grid.trials] == ["sgd", "sgd"]
    grid = load(HEAD + "grid: {seed: [0, 1], methods: [pskd, byot]}\nexclude: [{methods: {pskd: {alpha: 8e-1}}}]\n")
    assert {name for trial in grid.trials for name in trial.config.methods} == {"byot"}
    fixed = "name: x\nfixed: {optimizer: adamw}\ngrid: {seed: [0, 1]}\nexclude: [{learning_rate: 0.1}]\n"
    assert problems(fixed) == ["4: exclude[0]: matches no trial of this grid; correct it or leave it out"]


# set


def test_a_setting_replaces_a_value_an_axis_or_a_field_of_a_zip(tmp_path: Path):
    text = HEAD + "grid:\n  seed: [0, 1]\n  zip: {width: [16, 8], padding: [1, 2]}\n# the end"
    grid = set_in(tmp_path, text, "epochs=7", "seed=[5, 6, 7]", "width=4", "learning_rate=2e-1")
    assert {(t.config.epochs, t.config.width, t.config.learning_rate) for t in grid.trials} == {(7, 4, 0.2)}
    assert sorted(seeds(grid)) == [5, 5, 6, 6, 7, 7]
    assert grid.text.startswith(text), "no line of the file moves"
    assert set_in(tmp_path, text, "seed=3").trials[0].config.seed == 3


def test_a_list_for_a_field_that_is_no_axis_yet_becomes_one(tmp_path: Path):
    assert seeds(set_in(tmp_path, HEAD, "seed=[3, 4]")) == [3, 4]
    grid = set_in(tmp_path, HEAD, "milestones=[1]", "methods=[pskd, byot]")
    assert [(t.config.milestones, list(t.config.methods)) for t in grid.trials] == [(None, ["byot", "pskd"])]
    blocks = HEAD + "grid:\n- {seed: [0, 1], width: [8]}\n- {width: [4]}\n"
    assert seeds(set_in(tmp_path, blocks, "seed=9")) == [9, 9]


def test_settings_reach_the_name_the_order_the_resources_and_the_report(tmp_path: Path):
    text = HEAD + "resources: {gpu: 1, cpu: 2}\nreport: {tables: [1]}\n"
    grid = set_in(tmp_path, text, "name=y", "order=breadth", "resources.gpu=0", "report.selection=last")
    assert (grid.name, grid.order) == ("y", "breadth")
    assert (grid.trials[0].resources.gpu, grid.trials[0].resources.cpu) == (0, 2)
    assert grid.report == {"tables": [1], "figures": [], "selection": "last", "axes": []}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"name": "x", "grid": {"seed": [0, 1]}}),
        json.dumps({"name": "x", "grid": {"seed": [0, 1]}}, indent=2),
        "# braces { in a comment\n{name: x, grid: {seed: [0, 1]},  # the end }\n}\n",
        "name: x\ngrid: {seed: [0, 1]}\n...\n",
        "---\n  name: x\n  grid: {seed: [0, 1]}\n",
        "name: x\ngrid: {seed: [0, 1]}\n# last",
        "name: x\nset: {width: 3,\n  seed: 5}\ngrid: {seed: [0, 1]}\n",
        "name: x\r\ngrid: {seed: [0, 1]}\r\n",
        "{name: x, set: {width: 3}, grid: {seed: [0, 1]}}",
        "{grid: {seed: [0, 1]}, name: x, set: {width: 3, seed: 1}}",
    ],
)
def test_the_stored_text_makes_the_grid_without_the_option_whatever_its_style(tmp_path: Path, text: str):
    grid = set_in(tmp_path, text, "seed=7", "name=y")
    assert (grid.name, seeds(grid)) == ("y", [7])
    assert ("width: 3" in text) == (grid.trials[0].config.width == 3), "settings of the file stay"


def test_every_shipped_grid_takes_settings(tmp_path: Path):
    for path in SHIPPED:
        # Seeds that come by a rule are the rule's.
        by_rule = load_grid(path).seeds is not None
        grid = set_in(tmp_path, path.read_text(), *([] if by_rule else ["seed=77"]), "epochs=3")
        expected = {(seed, 3) for seed in (range(3) if by_rule else [77])}
        assert {(trial.config.seed, trial.config.epochs) for trial in grid.trials} == expected


def test_a_mistake_in_the_seeds_is_the_only_one_that_is_named(tmp_path: Path):
    with pytest.raises(GridError) as caught:
        set_in(tmp_path, SHIPPED[0].with_name("fidelity_small.yaml").read_text(), "seed=77")
    assert [line.split(": ", 1)[1] for line in str(caught.value).splitlines()] == [
        "--set seed: seeds come by the rule of `seeds`, from 0 on; leave one of the two out"
    ]


def test_an_exclusion_of_a_field_that_is_set_may_match_nothing(tmp_path: Path):
    text = HEAD + "grid: {seed: [0, 1], width: [8, 4]}\nexclude: [{seed: 1, width: 8}]\n"
    assert seeds(set_in(tmp_path, text, "seed=0")) == [0, 0]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["sed=3"], [": --set sed: unknown field 'sed'; did you mean 'seed'?"]),
        (["gpu=0"], [": --set gpu: belongs here as resources.gpu"]),
        (["epochs=x"], [": --set epochs: 'x' is not a whole number"]),
        (["seed=[1, x]"], [": --set seed[1]: 'x' is not a whole number"]),
        (["epochs=5", "warmup=6"], [": --set warmup: 6 leaves none of the 5 epochs"]),
        (["order=wide"], [": --set order: unknown order 'wide' (allowed: breadth, depth)"]),
        (["resources.gpu=9"], [": --set resources.gpu: 9 GPUs would be kept and one used"]),
        (["name=a/b"], [": --set name: 'a/b' cannot name a grid"]),
        (["seed"], ["--set seed: is not FIELD=VALUE, such as --set epochs=3"]),
        (["seed=1", "seed=2"], ["--set seed=2: sets seed a second time"]),
        (["seed=[1", "width="], ["--set seed=[1: is not YAML: the [ opened here is not closed"]),
        (["seed=${SEED}"], ["--set seed=${SEED}: '${SEED}': variables and templates are not filled in"]),
    ],
)
def test_a_setting_that_is_wrong_is_said_as_the_option_that_it_is(tmp_path: Path, settings, expected):
    wrong = refused(tmp_path, HEAD + "grid: {seed: [0, 1]}\n", *settings)
    assert len(wrong) == len(expected)
    assert all(words in line for line, words in zip(wrong, expected, strict=True)), wrong


def test_other_problems_keep_their_lines_beside_a_setting(tmp_path: Path):
    for text in (HEAD + "grid: {sed: [0]}\n", '{"name": "x",\n\n "grid": {"sed": [0]}}'):
        messages = refused(tmp_path, text, "seed=3")
        assert len(messages) == 1 and messages[0].startswith(":3: grid.sed: unknown key 'sed'"), messages


# order


def test_the_order_is_said_in_the_file_and_is_no_part_of_the_identity():
    text = HEAD + "grid: {width: [8, 4], seed: [0, 1]}\n"
    depth, breadth = load(text), load(text + "order: breadth\n")
    assert (depth.order, breadth.order) == ("depth", "breadth")
    assert [trial.key for trial in depth.trials] == [trial.key for trial in breadth.trials]
    assert problems(text + "order: bredth\n") == [
        "4: order: unknown order 'bredth'; did you mean 'breadth'? (allowed: breadth, depth)"
    ]


# Features of other tools


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            'fixed: {dataset: "folder:${oc.env:NAME}"}\n',
            "2: 'folder:${oc.env:NAME}': variables and templates are not filled in: write the value itself, or give it "
            "on the command line: --set FIELD=VALUE",
        ),
        ("fixed: {seed: !include seed.yaml}\n", "2: the tag '!include' is not allowed; files are not included"),
        ("defaults: [base, _self_]\n", "2: defaults: a list of defaults is not read; a grid file is whole"),
        ("include: base.yaml\n", "2: include: files are not included; a grid file is whole"),
        ("hydra: {job: {}}\n", "2: hydra: settings of Hydra are not read"),
        (
            "fixed: {network: {_target_: torchvision.models.resnet18}}\n",
            "2: nothing is built from `_target_`: name a network, a data set or a method",
        ),
        ("fixed:\n  <<: *a\n", "is not an anchor above this line"),
    ],
)
def test_a_feature_of_another_tool_is_refused_with_what_to_do_instead(text: str, expected: str):
    assert any(expected in line for line in problems("name: x\n" + text)), problems("name: x\n" + text)


# All at once, and nothing made up


def test_a_fault_of_one_value_hides_no_other():
    text = """name: x
fixed: {network: resnet19, epochs: 0, dataset: digits, validation: 9999}
grid: {methods: [byot], warmup: [400], seed: [0, 1e999], seed: [1]}
exclude: [{width: 3}]
resources: {epochs: 3}
report: {engine: auto}
"""
    assert [line.split(": ")[0] + line.split(":")[1] for line in problems(text)] == [
        "2 fixed.network",
        "2 fixed.epochs",
        "2 fixed.validation",
        "3 1e999 is too large for a number",
        "3 the key 'seed' stands twice; first in line 3",
        "5 resources.epochs",
        "6 report.engine",
    ]


def test_a_warmup_is_no_problem_where_the_epochs_are_one():
    assert problems({"fixed": {"epochs": "x", "warmup": 400}}) == ["1: fixed.epochs: 'x' is not a whole number"]
    assert "1: fixed.warmup: 400 leaves none" in problems({"fixed": {"warmup": 400}})[0]


def test_stages_and_blocks_are_said_with_a_warmup():
    messages = problems({"fixed": {"epochs": 2, "warmup": 3}, "grid": {"methods": [{"byot": {"blocks": [9]}}]}})
    assert len(messages) == 2 and "warmup" in messages[0] + messages[1] and "block" in messages[0] + messages[1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("resources: {epochs: 3}\n", "2: resources.epochs: belongs under `fixed`, or under `grid` with a list"),
        ("resources: {per_network: {resnet18: {selection: 1}}}\n", "belongs under `report`"),
        ("report: {engine: auto}\n", "2: report.engine: belongs under `resources`"),
        ("report: {network: x}\n", "2: report.network: belongs under `fixed`"),
        ("grid: {resources: {gpu: 1}}\n", "2: grid.resources: belongs beside `grid`, as a section of its own"),
        ("fixed: {name: y}\n", "2: fixed.name: belongs beside `grid`, as a section of its own"),
        ("fixed: {zip: {}}\n", "2: fixed.zip: belongs under `grid`"),
        ("zip: {}\n", "2: zip: belongs under `grid`"),
        ("set: {gpu: 1}\n", "2: set.gpu: belongs here as resources.gpu"),
        ("exclude: [{tables: 1}]\n", "2: exclude[0].tables: belongs under `report`"),
        ("fixed: {momentum: nan}\n", "2: fixed.momentum: 'nan' is not a finite number"),
        ("fixed: {learning_rate: inf}\n", "2: fixed.learning_rate: 'inf' is not a finite number"),
        ("fixed: {epochs: .nan}\n", "2: fixed.epochs: '.nan' is not a whole number"),
        ("grid: {methods: [baseline, baseline]}\n", "2: grid.methods[1]: 'baseline' makes the same trials"),
        ("grid: {methods: [pskd, {pskd: {}}]}\n", "2: grid.methods[1]: {'pskd': {}} makes the same trials"),
    ],
)
def test_a_key_or_value_in_the_wrong_place_is_said_in_the_words_of_the_file(text: str, expected: str):
    (message,) = problems("name: x\n" + text)
    assert expected in message


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("grid:\n  network: [resnet18\n  seed: [0, 1]\n", 3),
        ("grid:\n  network: [resnet18,\n    resnet34\n  seed: [0, 1]\n", 3),
        ("grid: {network: {a: [1, 2}\nfixed: {}\n", 2),
        ("fixed: {epochs: 3\nresources: {gpu: 0}\n", 2),
        ('fixed: {dataset: "digits}\nresources: {gpu: 0}\n', 2),
    ],
)
def test_an_unclosed_bracket_is_named_where_it_was_opened(text: str, line: int):
    (message,) = problems("name: x\n" + text)
    assert message.startswith(f"{line}: is not YAML: the ") and "opened here is not closed" in message


def test_names_of_a_grid_without_comforts_stay():
    assert names({"grid": {"seed": [0], "width": [8, 4]}}) == [
        "resnet18/baseline/width8/seed0",
        "resnet18/baseline/width4/seed0",
    ]


def test_settings_of_damaged_files_are_refused_or_make_a_grid(tmp_path: Path):
    from tests.orchestrator.grid_mutants import SEEDS, mutant

    generator = random.Random(3)
    made = 0
    for _ in range(200):
        (tmp_path / "grid.yaml").write_bytes(mutant(generator.choice(SEEDS), generator))
        try:
            grid = load_grid(tmp_path / "grid.yaml", {"seed": 12})
        except GridError:
            continue
        (tmp_path / "again.yaml").write_text(grid.text)
        assert [t.key for t in load_grid(tmp_path / "again.yaml").trials] == [t.key for t in grid.trials]
        assert {trial.config.seed for trial in grid.trials} == {12}
        made += 1
    assert made > 10
