"""Tables in a grid file: read with it, checked against its cells, every problem with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.grid import load_grid
from orchestrator.grid.declarations import load_declared
from orchestrator.grid.problems import GridError

HEAD = """name: rates
fixed: {dataset: digits, width: 8}
grid:
  methods: [baseline, pskd, byot]
  learning_rate: [0.01, 0.1]
  seed: [0, 1]
report:
  tables:
"""
GOOD = "    - {name: rates, rows: learning_rate, across: methods, columns: [top1, {ece: {digits: 1}}]}\n"


def load(folder: Path, tables: str, **files: str):
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    (folder / "grid.yaml").write_text(HEAD + tables)
    return load_grid(folder / "grid.yaml")


def problems(folder: Path, tables: str, **files: str) -> list[str]:
    with pytest.raises(GridError) as caught:
        load(folder, tables, **files)
    return [str(problem).removeprefix(f"{folder}/").removeprefix("grid.yaml:") for problem in caught.value.problems]


def test_a_table_is_stored_with_the_grid_also_from_a_file_beside_it(tmp_path):
    grid = load(tmp_path, f"    - 1\n{GOOD}    - mine.yaml\n", mine="rows: [methods, learning_rate]\ncolumns: [top1]\n")
    assert grid.report["tables"] == [
        1,
        {"name": "rates", "rows": "learning_rate", "across": "methods", "columns": ["top1", {"ece": {"digits": 1}}]},
        {"name": "mine", "rows": ["methods", "learning_rate"], "columns": ["top1"]},
    ]
    assert grid.report["axes"] == ["methods", "learning_rate", "seed"]


def test_every_problem_of_every_table_has_its_line(tmp_path):
    tables = """    - name: rates
      rows: learning_rte
      acros: methods
      columns: [top1, {ece: {digit: 1}}, topp]
      show: mean
    - {name: a b, rows: methods, columns: [top1], bold: {rule: nois, correction: holmes}}
    - {name: table1, rows: [methods, learning_rate], columns: [top1]}
    - lost.yaml
    - 9
"""
    listed = problems(tmp_path, tables, mine="rows: methods\ncolumns: [tpo1]\n")
    beginnings = [
        "10: report.tables[0].rows: unknown field 'learning_rte'; did you mean 'learning_rate'?",
        "11: report.tables[0].acros: unknown key 'acros'; did you mean 'across'?",
        "12: report.tables[0].columns[1].ece.digit: unknown option 'digit'; did you mean 'digits'?",
        "12: report.tables[0].columns[2]: unknown metric 'topp'; did you mean 'top",
        "13: report.tables[0].show: unknown value 'mean'; did you mean 'mean_std'?",
        "14: report.tables[1].name: 'a b' cannot name a file",
        "14: report.tables[1].bold.rule: unknown value 'nois'; did you mean 'noise'?",
        "14: report.tables[1].bold.correction: unknown value 'holmes'",
        "15: report.tables[2].name: table1 is the name of a file that every report may have",
        "17: report.tables: 9 is not one of them (allowed: 1, 2, 3, 4",
    ]
    for beginning in beginnings:
        assert any(line.startswith(beginning) for line in listed), (beginning, listed)
    assert any(line.startswith("lost.yaml: no such file") for line in listed)
    assert len(listed) == len(beginnings) + 1


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            "{name: a, rows: methods, columns: [top1]}",
            "9: report.tables[0].rows: learning_rate varies (0.01, 0.1) and has no place: put it into rows, groups or "
            "across; or keep one value with where: {learning_rate: 0.01}; or average it with over: [seed, "
            "learning_rate]",
        ),
        (
            "{name: a, rows: methods, columns: [top1], where: {learning_rate: 0.2}}",
            "9: report.tables[0].where.learning_rate: no trial has 0.2; did you mean '0.1'? (there are: 0.01, 0.1)",
        ),
        (
            "{name: a, rows: learning_rate, across: methods, columns: [{top1: {minus: baselin}}]}",
            "9: report.tables[0].columns[0].top1.minus: nothing here is 'baselin'; did you mean 'baseline'? (there "
            "are: 0.01, 0.1, baseline, pskd, byot)",
        ),
        (
            "{name: a, rows: learning_rate, across: methods, columns: [top1], order: {methods: [pskdd]}}",
            "9: report.tables[0].order.methods: no trial has 'pskdd'; did you mean 'pskd'?",
        ),
        (
            "{name: a, rows: methods, across: methods, columns: [top1]}",
            "9: report.tables[0].across: methods is in rows or groups as well; leave one out",
        ),
    ],
)
def test_what_a_table_leaves_open_is_a_problem_of_the_plan(tmp_path, table, message):
    assert problems(tmp_path, f"    - {table}\n") == [message]


def test_problems_of_a_file_beside_the_grid_have_its_name_and_lines(tmp_path):
    listed = problems(tmp_path, "    - mine.yaml\n", mine="# mine\nrows: methods\ncolumns: [top1]\n")
    assert [line[:42] for line in listed] == ["mine.yaml:2: rows: learning_rate varies (0"]
    with pytest.raises(GridError, match=r"mine.yaml:2: columns\[0\]: unknown metric 'tpo1'"):
        (tmp_path / "mine.yaml").write_text("rows: methods\ncolumns: [tpo1]\n")
        load_declared("table", [tmp_path / "mine.yaml"])


def test_methods_and_hyperparameters_that_are_nowhere_are_named(tmp_path):
    tables = """    - name: mine
      across: learning_rate
      columns: [top1]
      rows:
        - {methods: basline}
        - {methods: {pskd: {alfa: 0.5}}}
        - {methods: [byot, pskdd]}
        - {methods: cskd+byot}
    - {name: other, rows: [methods.pskd.alhpa, methods, learning_rate], columns: [top1]}
  figures:
    - {name: f, x: methods.pskd.alfa, y: nll, lines: methods, panels: learning_rate}
"""
    # A method that no trial has yet (cskd) may have a row.
    listed = [problem.partition("? (")[0] for problem in problems(tmp_path, tables)]
    assert listed == [
        "13: report.tables[0].rows[0].methods: unknown method 'basline'; did you mean 'baseline'",
        "14: report.tables[0].rows[1].methods: unknown hyperparameter of pskd 'alfa'; did you mean 'alpha'",
        "15: report.tables[0].rows[2].methods: unknown method 'pskdd'; did you mean 'pskd'",
        "17: report.tables[1].rows: unknown hyperparameter of pskd 'alhpa'; did you mean 'alpha'",
        "19: report.figures[0].x: unknown hyperparameter of pskd 'alfa'; did you mean 'alpha'",
    ]


def test_heads_that_follow_from_the_methods_need_no_place(tmp_path):
    table = "{name: a, rows: [methods, learning_rate], columns: [top1], where: {methods: [baseline, byot]}}"
    assert {trial.config.heads for trial in load(tmp_path, f"    - {table}\n").trials} == {"none", "bottleneck"}


def test_two_tables_of_one_name_are_refused(tmp_path):
    assert problems(tmp_path, GOOD + GOOD) == ["10: report.tables[1].name: rates is the name of another table"]


def test_a_table_with_seeds_as_rows_counts_every_seed(tmp_path):
    table = "{name: a, rows: [methods, seed], columns: [top1], where: {learning_rate: 0.1, seed: 1}}"
    assert len(load(tmp_path, f"    - {table}\n").trials) == 12
