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
from reports.gathering import gather
from reports.loading import load
from tests.reports.lookup import one
from tests.reports.synthetic import Filler, configuration, make_database, trials

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
    comparison = compare(database, "table1:resnet18/pskd", "table1:resnet18/baseline")
    expected = stats.ttest_rel(errors(database, "pskd"), errors(database))
    low, high = expected.confidence_interval()
    measured = comparison["comparison"]
    assert (measured["test"], measured["n"]) == ("paired", 3)
    assert measured["p"] == pytest.approx(expected.pvalue)
    assert measured["difference"] - measured["margin"] == pytest.approx(low)
    assert measured["difference"] + measured["margin"] == pytest.approx(high)
    assert comparison["fields"] == {"methods": [{"pskd": {}}, {}]}
    assert comparison["devices"] == [["cuda:0 (NVIDIA A100)"]] * 2
    assert comparison["same_numbers"] == ""
    assert "t test paired over 3 seeds" in comparison["text"] and "Fields that differ: methods:" in comparison["text"]


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
    comparison = compare(database, "table1:resnet18/pskd", "table1:resnet18/pskd+dmfl")
    assert comparison["same_numbers"] == "the same numbers in all 6 epochs of 3 seeds"
    assert (
        "Both have the same numbers in all 6 epochs of 3 seeds: this difference changes nothing." in comparison["text"]
    )


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


def declared(name: str, **more: object) -> dict[str, object]:
    return {"name": name, "rows": "methods", "columns": ["top1"], "notes": "short", **more}


@pytest.fixture
def two_rules(tmp_path: Path):
    """Two grids of the same networks whose tables select their epochs by different rules."""
    path = tmp_path / "two.db"

    def filling(filler: Filler) -> None:
        for name, rule, rate in (("a", "best_test", 0.1), ("b", "last", 0.2)):
            configs = [configuration(m, seed=seed, learning_rate=rate) for m in METHODS[:2] for seed in range(3)]
            filler.grid(name, {"tables": [declared(f"table{name}")], "selection": rule}, trials(configs))

    make_database(path, filling).close()
    with open_database(path, readonly=True) as opened:
        yield opened


@pytest.mark.parametrize("table", ["tablea", "tableb"])
def test_a_row_is_read_by_the_rule_of_its_table(two_rules: Database, table: str) -> None:
    comparison = compare(two_rules, f"{table}:pskd", f"{table}:baseline")
    rows = {row.key: row.entries[0].value for row in gather(two_rules).table(table).rows}
    assert [comparison[side]["mean"] for side in ("first", "second")] == [rows["pskd"], rows["baseline"]]
    assert comparison["selection"] == {"tablea": "best_test", "tableb": "last"}[table]
    # A trial is read as the other side's table reads it, and two trials as their grid does.
    (one, other) = (comparison[side]["keys"][1] for side in ("first", "second"))
    mixed = compare(two_rules, f"{table}:pskd", other)
    assert (mixed["selection"], mixed["second"]["mean"]) == (
        comparison["selection"],
        compare(two_rules, one, other)["second"]["mean"],
    )
    assert compare(two_rules, one, other)["selection"] == comparison["selection"]


def test_sides_that_are_read_by_different_rules_are_refused(two_rules: Database) -> None:
    with pytest.raises(ReportError, match=r"tablea:pskd \(best_test\) and tableb:pskd \(last\) .* give --selection"):
        compare(two_rules, "tablea:pskd", "tableb:pskd")
    assert compare(two_rules, "tablea:pskd", "tableb:pskd", selection="last")["comparison"]["n"] == 3


@pytest.mark.parametrize("show", ["mean_std", "median_iqr"])
def test_rows_with_differences_from_others_are_compared(database: Database, show: str) -> None:
    gains = [{"top1": {"minus": "baseline", "key": "gain"}}, {"top1": {"p": "baseline", "key": "p"}}]
    spec = declared("gains", columns=["top1", *gains], show=show)
    comparison = compare(database, "gains:pskd", "gains:dmfl", tables=[spec])
    plain = compare(database, "table1:resnet18/pskd", "table1:resnet18/dmfl")
    assert comparison["comparison"] == plain["comparison"] and comparison["first"]["keys"] == plain["first"]["keys"]
    with pytest.raises(ReportError, match="gains:pskd/gain has only differences from other rows"):
        compare(database, "gains:pskd/gain", "gains:dmfl", tables=[spec])


def test_a_row_over_several_configurations_is_refused_with_what_can_be_named(database: Database) -> None:
    spec = declared("over", rows="network", over=["seed", "methods", "heads"])
    with pytest.raises(ReportError, match=r"several configurations .* a comparison takes those of one: name a number"):
        compare(database, "over:resnet18", "table1:resnet18/pskd", tables=[spec])


def test_the_command_prints_words_or_json(file: Path) -> None:
    arguments = ["compare", "table1:resnet18/pskd", "table1:resnet18/baseline", "--db", str(file)]
    outcome = CliRunner().invoke(app, arguments)
    assert outcome.exit_code == 0 and "95 % interval" in outcome.output
    document = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).output)
    assert document["metric"] == "top1" and document["comparison"]["n"] == 3


def test_an_empty_database_has_no_such_row(tmp_path: Path) -> None:
    open_database(tmp_path / "empty.db", create=True).close()
    outcome = CliRunner().invoke(app, ["compare", "a", "b", "--db", str(tmp_path / "empty.db")])
    assert outcome.exit_code == 2 and "there is no row, cell or trial 'a'" in outcome.output
