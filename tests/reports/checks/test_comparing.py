"""`orchestrate compare`, and rows that are one computation: in tables and in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scipy import stats
from sqlalchemy import select, update
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.database import Database, open_database
from orchestrator.database.models import Trial
from reports import compare
from reports.errors import ReportError
from reports.report import gather
from reports.results import load
from tests.reports.lookup import one
from tests.reports.synthetic import configuration, make_database, trials

METHODS = ((), ("pskd",), ("dmfl",), ("pskd", "dmfl"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Four rows of three seeds; with DMFL and without it PS-KD has equal numbers, by their digest."""
    configs = [configuration(methods, seed=seed) for methods in METHODS for seed in range(3)]
    path = tmp_path / "r.db"
    make_database(path, lambda filler: filler.grid("table1", {"tables": [1]}, trials(configs))).close()
    with open_database(path) as database, database.engine.begin() as connection:
        for trial, config in connection.execute(select(Trial.id, Trial.config)).all():
            alike = {"pskd"} <= set(config["methods"])
            digest = f"{config['seed']}{'pskd' if alike else trial}"
            connection.execute(update(Trial).where(Trial.id == trial).values(numbers_sha256=digest))
    return path


@pytest.fixture
def database(file: Path):
    with open_database(file, readonly=True) as opened:
        yield opened


def errors(database: Database, *methods: str) -> list[float]:
    (cell,) = [cell for cell in load(database).cells if set(cell.methods) == set(methods)]
    return [trial.measurements[0, "main"].metrics["top1_error"] for trial in cell.trials]


def test_rows_are_compared_by_the_test_of_the_bold_rule(database: Database) -> None:
    found = compare(database, "table1:resnet18/pskd", "table1:resnet18/baseline")
    expected = stats.ttest_rel(errors(database, "pskd"), errors(database))
    low, high = expected.confidence_interval()
    measured = found["comparison"]
    assert (measured["test"], measured["n"]) == ("paired", 3)
    assert measured["p"] == pytest.approx(expected.pvalue)
    assert measured["difference"] - measured["margin"] == pytest.approx(low)
    assert measured["difference"] + measured["margin"] == pytest.approx(high)
    assert found["fields"] == {"methods": [{"pskd": {}}, {}]}
    assert found["devices"] == [["cuda:0 (NVIDIA A100)"]] * 2
    assert found["same_numbers"] == ""
    assert "t test paired over 3 seeds" in found["text"] and "Fields that differ: methods:" in found["text"]


def test_trials_and_cells_are_named_as_people_name_them(database: Database) -> None:
    (cell,) = [cell for cell in load(database).cells if set(cell.methods) == {"pskd"}]
    (base,) = [cell for cell in load(database).cells if not cell.methods]
    rows = compare(database, "table1:resnet18/pskd/top1", "table1:resnet18/baseline")
    names = [each.trials[0].name.rpartition("/seed")[0] for each in (cell, base)]
    assert compare(database, *names)["comparison"] == rows["comparison"]
    single = compare(database, cell.trials[1].name, base.trials[1].key[:8])
    assert single["first"]["seeds"] == single["second"]["seeds"] == [1]
    assert single["comparison"]["test"] == "unpaired"
    assert "No test" in compare(database, cell.trials[1].name, base.trials[1].name, metric="nll")["text"]


def test_equal_numbers_are_said(database: Database) -> None:
    found = compare(database, "table1:resnet18/pskd", "table1:resnet18/pskd+dmfl")
    assert found["same_numbers"] == "the same numbers in all 6 epochs of 3 seeds"
    assert "Both have the same numbers in all 6 epochs of 3 seeds: this difference changes nothing." in found["text"]


def test_a_table_has_a_footnote_on_rows_that_are_one_computation(database: Database) -> None:
    spec = {"name": "mine", "rows": "methods", "columns": ["top1"]}
    table = one(gather(database, tables=[spec]).tables, "mine")
    notes = dict(table.footnotes)
    marked = {row.key: notes[row.note] for row in table.rows if row.note}
    assert list(marked.values()) == [
        "the same numbers in all 6 epochs of 3 seeds as PS-KD: this difference changes nothing"
    ]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("table1:resnet18/pskt", "table1:resnet18/byot"), "there is no row of table1 'resnet18/pskt'; did you mean"),
        (("nothing", "table1:resnet18/pskd"), "there is no row, cell or trial 'nothing'"),
        (("table1:resnet18/pskd",) * 2, "are the same trials"),
    ],
)
def test_names_that_nothing_has_are_refused(database: Database, names: tuple[str, str], message: str) -> None:
    with pytest.raises(ReportError, match=message):
        compare(database, *names)


def test_the_command_prints_words_or_json(file: Path) -> None:
    arguments = ["compare", "table1:resnet18/pskd", "table1:resnet18/baseline", "--db", str(file)]
    said = CliRunner().invoke(app, arguments)
    assert said.exit_code == 0 and "95 % interval" in said.output
    found = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).output)
    assert found["metric"] == "top1" and found["comparison"]["n"] == 3


def test_an_empty_database_has_no_such_row(tmp_path: Path) -> None:
    open_database(tmp_path / "empty.db", create=True).close()
    said = CliRunner().invoke(app, ["compare", "a", "b", "--db", str(tmp_path / "empty.db")])
    assert said.exit_code == 2 and "there is no row, cell or trial 'a'" in said.output
