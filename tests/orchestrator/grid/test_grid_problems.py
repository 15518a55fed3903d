"""Grid files that are wrong: every problem at once, each with its line, in plain words, whatever the file holds."""

import os
import re
from pathlib import Path

import pytest

from orchestrator.grid import GridError, Problem, load_grid
from orchestrator.grid.document import MAX_BYTES
from orchestrator.grid.problems import joined
from tests.orchestrator.grid_files import GRIDS, load, problems
from trainer.parts import METRICS, metric

HEAD = "name: x\n"
CROSS = "grid: {network: [resnet18, densenet121], methods: [baseline, byot], seed: [0, 1, 2]}\n"


def test_all_problems_at_once_with_their_lines():
    messages = problems(
        """
name: a/b
fixd: {epochs: 3}
fixed:
  dataset: cifar1000
  epochs: 0
  lr: 0.1
grid:
  network: [resnet18,
            resnet19]
  methods: {powerset: [byot, pskdd, dmfl: {varient: x}]}
  seed: []
exclude: [{}]
resources: {gpus: 1}
report: {tables: [9]}
"""
    )
    assert [":".join(line.split(":")[:2]) for line in messages] == [
        "2: name",
        "3: fixd",
        "5: fixed.dataset",
        "6: fixed.epochs",
        "7: fixed.lr",
        "10: grid.network[1]",
        "11: grid.methods.powerset[1].pskdd",
        "11: grid.methods.powerset[2].dmfl.varient",
        "12: grid.seed",
        "13: exclude[0]",
        "14: resources.gpus",
        "15: report.tables",
    ]
    for near in ("fixed", "cifar100", "learning_rate", "resnet18", "pskd", "variant", "gpu"):
        assert any(f"did you mean '{near}'" in line for line in messages), near


def test_a_problem_names_file_line_key_value_and_remedy():
    path = GRIDS / "no such" / "x.yaml"
    problem = Problem(str(path), 7, 12, "grid.network[1]", "unknown network 'resnet19'; did you mean 'resnet18'?")
    assert str(problem) == f"{path}:7: grid.network[1]: unknown network 'resnet19'; did you mean 'resnet18'?"
    error = GridError([Problem("x", 9, 1, "", "b"), problem, Problem("x", 9, 1, "", "b"), Problem("x", 2, 1, "", "a")])
    assert str(error) == f"x:2: a\n{problem}\nx:9: b"


def test_more_problems_than_anyone_reads_are_counted():
    with pytest.raises(GridError) as caught:
        load({"grid": {f"unknown{i}": [1] for i in range(300)}})
    assert len(caught.value.problems) == 300
    assert str(caught.value).splitlines()[-1] == "... and 100 more problems"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Documents.
        ("", ["1: is empty"]),
        ("# nothing\n\n", ["1: is empty"]),
        ("~", ["1: is empty"]),
        ("- name: x\n", ["1: is [{'name': 'x'}], not a mapping"]),
        ("just words", ["1: is 'just words', not a mapping"]),
        ("name: x\ngrid:\n\tseed: [1]\n", ["3: is not YAML: ", "tab"]),
        ("name: x\ngrid: {seed: [1\n", ["2: is not YAML"]),
        ("name: x\nname: y\n", ["2: the key 'name' stands twice; first in line 1"]),
        ("name: x\n---\nname: y\n", ["2: a second document"]),
        ("name: x\ngrid: {seed: *there}\n", ["2: *there is not an anchor above"]),
        ("name: x\ngrid: &g {seed: [*g]}\n", ["2: *g stands inside itself"]),
        ("name: x\n1: 2\n", ["2: the key 1 is not a name"]),
        ("name: x\n? {a: b}\n: 2\n", ["2: the key {'a': 'b'} is not a name"]),
        ("name: x\nfixed: {seed: !!int '3'}\n", ["2: the tag 'tag:yaml.org,2002:int' is not allowed"]),
        ("name: !!python/object/apply:os.system [ls]\n", ["1: the tag", "python/object"]),
        ("name: x\nfixed: {seed: 1e999}\n", ["2: 1e999 is too large for a number"]),
        ('name: x\nfixed: {dataset: "folder:\\u0007"}\n', ["2: ", "unprintable character U+0007"]),
        ('name: x\nfixed: {dataset: "folder:\\ud800"}\n', ["2: ", "unprintable character U+D800"]),
        (b"name: x\nfixed: {dataset: caf\xe9}\n", ["2: is not UTF-8 text: byte 0xe9"]),
        (b"\xff\xfen\x00a\x00", ["1: is not UTF-8 text: byte 0xff"]),
        (b"name: x\n\x00\x01", ["2: holds the unprintable character U+0000"]),
        (b"\x89PNG\r\n\x1a\n", ["1: is not UTF-8 text"]),
        ("[" * 100_000, ["1: is nested deeper than 20 levels"]),
        ("{a: " * 1000, ["1: is nested deeper than 20 levels"]),
        ("- " * 1000, ["1: is nested deeper than 20 levels"]),
        ("#" * (MAX_BYTES + 1), ["1: is larger than 256 KiB"]),
        # Names.
        ("grid: {seed: [1]}\n", ["1: name: is missing"]),
        ("name:\n", ["1: name: null cannot name a grid"]),
        ("name: 7\n", ["1: name: 7 cannot name a grid"]),
        ("name: [x]\n", ["1: name: ['x'] cannot"]),
        ("name: ''\n", ["1: name: '' cannot"]),
        ("name: ../x\n", ["1: name: '../x' cannot"]),
        ("name: x/y\n", ["1: name: 'x/y' cannot"]),
        ("name: a..b\n", ["1: name: 'a..b' cannot"]),
        ("name: .hidden\n", ["1: name: '.hidden' cannot"]),
        ("name: -rf\n", ["1: name: '-rf' cannot"]),
        ("name: tabelle-ü\n", ["1: name: 'tabelle-ü' cannot"]),
        ("name: <b>\n", ["1: name: '<b>' cannot"]),
        (f"name: {'x' * 300}\n", ["1: name: 'xxx", "at most 100"]),
        # Sections.
        (HEAD + "grids: {}\n", ["2: grids: unknown key 'grids'; did you mean 'grid'"]),
        (HEAD + "fixed: [1]\n", ["2: fixed: [1] is not a mapping"]),
        (HEAD + "grid: 3\n", ["2: grid: 3 is not a mapping"]),
        (HEAD + "grid: []\n", ["2: grid: has no blocks"]),
        (HEAD + "grid: [3]\n", ["2: grid[0]: 3 is not a mapping"]),
        (HEAD + "exclude: {seed: 3}\n", ["2: exclude: {'seed': 3} is not a list"]),
        (HEAD + "exclude: [3]\n", ["2: exclude[0]: 3 is not a mapping"]),
        (HEAD + "exclude:\n  -\n", ["3: exclude[0]: names nothing"]),
        (HEAD + "exclude: [{seed: 3}]\n", ["2: exclude[0]: matches no trial"]),
        (HEAD + "exclude: [{seed: 0}]\n", ["2: exclude: leaves no trial"]),
        (HEAD + "exclude: [{network: resnet19}]\n", ["2: exclude[0].network: unknown network 'resnet19'"]),
        (HEAD + f"exclude: [{'{seed: 1}, ' * 101}]\n", ["2: exclude: has 101 entries; one file may hold 100"]),
        (HEAD + "resources: {gpu: -1}\n", ["2: resources.gpu: -1 is not an amount"]),
        (HEAD + "resources: {gpu: 1.5}\n", ["2: resources.gpu: 1.5 is not an amount", "0, 1, or a fraction"]),
        (HEAD + "resources: {gpu: 2}\n", ["2: resources.gpu: 2 GPUs would be kept and one used", "gpus_per_trial: 2"]),
        (HEAD + "resources: {gpu: 8.0}\n", ["2: resources.gpu: 8 GPUs would be kept", "gpus_per_trial: 8"]),
        (
            HEAD + "resources: {engine: replay}\n",
            ["2: resources.engine: unknown engine 'replay'", "did you mean 'replayed'?"],
        ),
        (HEAD + "resources: {deterministic: 1}\n", ["2: resources.deterministic: 1 is neither true nor false"]),
        (HEAD + "resources: {gpu: 0.0001}\n", ["2: resources.gpu: 0.0001 is not an amount", "from 0.01"]),
        (HEAD + "resources: {gpu: true}\n", ["2: resources.gpu: true is not"]),
        (HEAD + "resources: {cpu: 0}\n", ["2: resources.cpu: 0 is not"]),
        (HEAD + "resources: {cpu: many}\n", ["2: resources.cpu: 'many' is not"]),
        (HEAD + "resources: {cpu: 100000}\n", ["2: resources.cpu: 100000 is not"]),
        (HEAD + "resources: {gpus_per_trial: 0.5}\n", ["2: resources.gpus_per_trial: 0.5 is not a number of GPUs"]),
        (HEAD + "resources: {gpus_per_trial: 0}\n", ["2: resources.gpus_per_trial: 0 is not", "whole number from 1"]),
        (HEAD + "resources: {processes: true}\n", ["2: resources.processes: true is not a number of processes"]),
        (HEAD + "resources: {gpus_per_trial: 4, gpu: 0.5}\n", ["2: resources.gpu: is given by gpus_per_trial as well"]),
        (HEAD + "resources: {gpus_per_trial: 4, processes: 4}\n", ["2: resources.processes: is given by", "leave one"]),
        (HEAD + "resources: {gpu: 0.5, processes: 2}\n", ["2: resources.gpu: each of 2 processes would get 0.5 GPUs"]),
        (HEAD + "resources: {gpu: 2, processes: 2}\n", ["2: resources.gpu: 2 GPUs would be kept and one used"]),
        (HEAD + "resources: {gpus: 4}\n", ["2: resources.gpus: unknown key", "gpu"]),
        (HEAD + "resources: {per_network: {resnet19: {gpu: 1}}}\n", ["2: resources.per_network.resnet19: unknown"]),
        (HEAD + "resources: {per_network: {resnet50: {gpu: 1}}}\n", ["2: resources.per_network.resnet50: no trial"]),
        (HEAD + "report: {tables: [12]}\n", ["2: report.tables: 12 is not one of them (allowed: 1, 2, 3, 4"]),
        (HEAD + "report: {tables: [1, 1]}\n", ["2: report.tables: 1 is listed twice"]),
        (HEAD + "report: {tables: 1}\n", ["2: report.tables: 1 is not a list"]),
        (HEAD + "report: {figures: [true]}\n", ["2: report.figures: true is not one of them"]),
        (HEAD + "report: {selection: best}\n", ["2: report.selection: unknown selection 'best'", "best_test"]),
        (HEAD + "report: {selection: mean_last_0}\n", ["2: report.selection: unknown selection 'mean_last_0'"]),
        # Values.
        (HEAD + "fixed:\n  seed: 1\ngrid:\n  seed: [0]\n", ["5: grid.seed: is given by fixed.seed in line 3"]),
        (HEAD + "grid: {seed: }\n", ["2: grid.seed: has no values"]),
        (HEAD + "grid: {seed: [1, x]}\n", ["2: grid.seed[1]: 'x' is not a whole number"]),
        (HEAD + "grid: {optimizer: [sgd, {adamw: {betas: [0.9,\n 2]}}]}\n", ["3: grid.optimizer[1].adamw.betas[1]: 2"]),
        (HEAD + "fixed: {optimizer: adamw,\n momentum: 0.8}\n", ["3: fixed.momentum: 0.8 is not used"]),
        (HEAD + "fixed: {schedule: cosine,\n milestones: [5]}\n", ["3: fixed.milestones: [5] is not used"]),
        (HEAD + "grid: {milestones: [60, 120]}\n", ["2: grid.milestones[0]: 60 is not a list"]),
        (HEAD + "fixed: {milestones: [1,\n x]}\n", ["3: fixed.milestones[1]: 'x' is not a whole"]),
        (HEAD + "grid: {methods: {powerset: byte}}\n", ["2: grid.methods.powerset.byte: unknown method 'byte'"]),
        (HEAD + "grid: {methods: {powerset: }}\n", ["2: grid.methods.powerset: has no methods"]),
        (HEAD + "grid: {methods: {powersets: [byot]}}\n", ["2: grid.methods.powersets", "did you mean 'powerset'"]),
        (HEAD + "grid: {methods: {powerset: [byot], x: 1}}\n", ["2: grid.methods.x: unknown key 'x'"]),
        (HEAD + "grid: {methods: {powerset: [byot, byot: {}]}}\n", ["2: grid.methods.powerset[1]: names 'byot' again"]),
        (HEAD + "grid: {methods: {powerset: [baseline]}}\n", ["2: grid.methods.powerset[0]: 'baseline' is not one"]),
        (HEAD + "grid: {methods: {powerset: [byot+pskd]}}\n", ["2: grid.methods.powerset[0]: 'byot+pskd' is not one"]),
        (HEAD + "grid: {methods: [pskd+pskd]}\n", ["2: grid.methods[0]: names 'pskd' twice"]),
        (HEAD + "grid: {methods: [pskd+]}\n", ["2: grid.methods[0].'': unknown method ''"]),
        (HEAD + "grid: {methods: [[3]]}\n", ["2: grid.methods[0]: 3 is not a method"]),
        (HEAD + "grid:\n  methods:\n  - byot:\n      blocks: [0]\n", ["4: grid.methods[0].byot: ", "no block 0"]),
        (HEAD + "grid:\n  methods:\n  - byot:\n      block: 0\n", ["5: grid.methods[0].byot.block: unknown"]),
        (HEAD + "grid: {seed: [1, 2, 1]}\n", ["2: grid.seed[2]: 1 makes the same trials as grid.seed[0] in line 2"]),
        (HEAD + "grid: {stages: [4, null]}\n", ["2: grid.stages[1]: null makes the same trials as grid.stages[0]"]),
        (HEAD + "grid: {methods: [byot, {byot: {blocks: [1, 2, 3]}}]}\n", ["2: grid.methods[1]", "same trials"]),
        (HEAD + "grid: {methods: [pskd+byot, byot+pskd], seed: [0, 1]}\n", ["2: grid.methods[1]", "same trials"]),
        # One value against another: once, where it is.
        (HEAD + CROSS, ["2: grid.network[1]: densenet121 cannot carry auxiliary heads (byot trains them)"]),
        (HEAD + "fixed: {stages: 3}\ngrid: {network: [mobilenet, resnet18]}\n", []),
        (HEAD + "grid: {peer: [mobilenet]}\n", ["2: grid.peer[0]: 'mobilenet' is not used"]),
        (HEAD + "fixed: {validation: 60000}\ngrid: {precision: fp16}\n", ["fixed.validation", "grid.precision"]),
    ],
)
def test_what_is_said(text, expected):
    if not expected:
        assert load(text).trials
        return
    wrong = "\n".join(problems(text))
    for words in expected:
        assert words in wrong


def test_a_problem_of_many_trials_is_told_once():
    assert len(problems(HEAD + CROSS)) == 1
    seeds = list(range(500))
    assert len(problems({"grid": {"network": ["resnet19", "resnet18"], "seed": seeds}})) == 1
    assert len(problems({"grid": {"stages": [9, 4], "seed": seeds}})) == 1
    assert len(problems({"grid": {"seed": [0, 0], "width": list(range(1, 500))}})) == 1


def test_mistakes_do_not_make_up_others():
    assert len(problems({"fixed": {"network": "wrn28-10"}, "grid": {"methods": ["dcm", "dml"]}})) == 1
    assert len(problems({"fixed": {"metods": "dml", "peer": "mobilenet"}})) == 1
    assert len(problems({"grid": {"network": ["densenet121"], "methods": ["byot"]}, "exclude": [{"metods": 1}]})) == 1
    assert len(problems({"grid": {"methods": {"powerset": ["dcmm"]}, "peer": ["mobilenet"]}})) == 1
    assert len(problems({"gird": {"methods": ["dml"]}, "fixed": {"peer": "mobilenet"}})) == 1


def test_aliases_cannot_explode():
    lines = ["name: x", "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    assert problems("\n".join(lines)) == ["7: expands to over 200,000 values or 20 levels"]
    nested = ["name: x", "a0: &a0 [1]", *(f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 30))]
    assert "expands to over 200,000 values or 20 levels" in problems("\n".join(nested))[0]


def test_a_grid_too_large_is_refused_before_it_is_expanded():
    (message,) = problems({"grid": {name: list(range(1, 1000)) for name in ("seed", "width", "epochs", "batch_size")}})
    assert "1: grid: makes 996,005,996,001 trials; one file may hold 200,000" in message


def test_files_that_cannot_be_read(tmp_path: Path):
    (tmp_path / "table1.yaml").write_text("name: x\n")
    os.mkfifo(tmp_path / "pipe")
    for path, words in {
        tmp_path: "is a folder",
        tmp_path / "pipe": "is not a regular file",
        tmp_path / "tabel1.yaml": f"no such file; did you mean {tmp_path / 'table1.yaml'}?",
        tmp_path / "none" / "x.yaml": "no such file",
        Path("/dev/zero"): "is not a regular file",
        tmp_path / ("x" * 1000): "cannot be read",
        Path("a\0b"): "cannot be read",
    }.items():
        with pytest.raises(GridError, match=re.escape(words)) as caught:
            load_grid(path)
        assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    "text",
    [
        "grid:\n  network: [resnet18\n",
        'grid:\n  network: "resnet18\n\n\n',
        "grid:\n  methods: {byot: {alpha: 1}\n",
        "grid:\n  network: [resnet18",
        "grid: {a: b\r\n\r\n",
        "grid:\n  network: *",
        "grid:\n  ? ",
    ],
)
def test_the_line_of_a_file_that_ends_too_early_is_there(text):
    for problem in problems(HEAD + text):
        line = int(problem.split(":")[0])
        lines = (HEAD + text).splitlines()
        assert 1 < line <= len(lines) and lines[line - 1].strip(), problem
        assert "stream" not in problem


@pytest.mark.parametrize("key", ["gpu", "cpu", "gpus_per_trial", "processes", "engine", "deterministic", "per_network"])
def test_a_key_of_the_resources_elsewhere_is_sent_there(key):
    text = f"{HEAD}{key}: 1\nfixed:\n  {key}: 1\ngrid:\n  {key}: [1]\nexclude:\n  - {key}: 1\n"
    assert problems(text) == [
        f"2: {key}: belongs under `resources`",
        f"4: fixed.{key}: belongs under `resources`",
        f"6: grid.{key}: belongs under `resources`",
        f"8: exclude[0].{key}: belongs under `resources`",
    ]


def test_keys_of_a_trial_and_of_the_report_are_sent_to_their_sections():
    assert problems(HEAD + "epochs: 3\nfixed: {tables: [1]}\n") == [
        "2: epochs: belongs under `fixed`, or under `grid` with a list of values",
        "3: fixed.tables: belongs under `report`",
    ]


@pytest.mark.parametrize(
    ("metrics", "what"),
    [
        ("brier", "'brier' is not a list"),
        ("[e_auroc]", "did you mean 'e_aurc'"),
        ("[top1]", "top1 is measured in every evaluation; leave it out"),
        ("[e_aurc, e_aurc]", "e_aurc is listed twice"),
        ("[[1]]", "unknown metric"),
        (
            "[accuracy]",
            r"accuracy is a column of every report; give the metric of .*test_grid_problems.py:\d+ another name",
        ),
    ],
)
def test_metrics_that_cannot_be_measured_are_refused(tmp_path: Path, metrics: str, what: str) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(f"name: g\nmetrics: {metrics}\ngrid: {{dataset: digits}}\n")
    with METRICS.apart(), pytest.raises(GridError, match=what) as caught:
        metric("accuracy", direction="higher")(lambda probabilities, labels: 1.0)
        load_grid(path)
    assert [problem.line for problem in caught.value.problems] == [2]


def test_a_key_with_a_line_break_stays_on_the_line_of_its_message():
    assert joined("fixed.methods", "0\n𐀀") == "fixed.methods.0\\u000a𐀀"
