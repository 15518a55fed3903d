"""Published values of anybody's: the same comparison as the papers', and the template that begins a file of them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.database import Database
from orchestrator.tables.references import COLUMNS
from reports import open_results
from reports.gathering import gather
from reports.layouts.shipped import shipped_yaml
from reports.table import Table
from tests.reports.lookup import numbers, one, said
from tests.reports.synthetic import configuration, make_database, trials

TABLE: dict[str, Any] = {"name": "rates", "rows": "learning_rate", "across": "methods", "columns": ["top1", "nll"]}


@pytest.fixture(scope="module")
def rates(tmp_path_factory: pytest.TempPathFactory) -> Database:
    configs = [
        configuration(methods, learning_rate=rate, seed=seed)
        for methods in ([], ["pskd"])
        for rate in (0.01, 0.1)
        for seed in range(3)
    ]
    path = tmp_path_factory.mktemp("references") / "results.db"
    with make_database(path, lambda filler: filler.grid("rates", {"tables": [TABLE]}, trials(configs))) as database:
        yield database


def compared(database: Database, values: list[dict[str, Any]], **more: Any) -> Table:
    """Return the comparison of a table with published values."""
    reference = [{"file": "published.csv", "values": values, **more}]
    tables = gather(database, tables=[{**TABLE, "name": "mine", "reference": reference}], vs_paper=True).tables
    return one(tables, "mine-vs-paper")


def ours(database: Database, place: str) -> float:
    return numbers(one(gather(database).tables, "rates"))[place].value


def test_verdicts_and_differences_are_those_of_the_papers_comparison(rates):
    value = ours(rates, "rates:0.1/pskd/top1")
    table = compared(
        rates,
        [
            {"row": "0.1", "column": "pskd/top1", "printed": f"{value:.2f}", "line": 2},
            {"row": "0.01", "column": "pskd/top1", "printed": f"{value + 30:.2f} ± 0.10", "runs": 3, "std": 0.1},
        ],
        recipe={"epochs": 300, "selection": "best_test"},
    )
    assert [row.key for row in table.rows] == ["0.01/pskd/top1", "0.1/pskd/top1"]
    assert said(table, "0.1/pskd/top1/verdict") == "match"
    assert said(table, "0.01/pskd/top1/verdict") == "differs"
    assert said(table, "0.01/pskd/top1/difference").startswith("\u2212")
    assert "1 match, 1 differs" in table.caption
    assert " CIFAR-100, 300 epochs, network resnet18. Ours" in table.caption


def test_doubts_footnotes_sources_and_other_recipes_are_footnotes(rates):
    place = {"row": "0.1", "column": "pskd/top1", "printed": "20.00"}
    table = compared(
        rates,
        [
            {**place, "source": "Lee 2021", "doubt": "two values", "recipe": {"epochs": 300}},
            {**place, "source": "Kim 2022", "footnote": "other data", "recipe": {"epochs": 200}},
            {**place, "column": "baseline/top1", "source": "Kim 2022", "recipe": {"learning_rate": 0.3}},
        ],
    )
    notes = list(dict(table.footnotes).values())
    assert [row.key for row in table.rows] == ["0.1/baseline/top1", "0.1/pskd/top1", "0.1/pskd/top1-2"]
    assert {"Lee 2021", "Kim 2022", "other data", "the published value is in doubt: two values"} <= set(notes)
    assert "another setting: 300 epochs (published: 200 epochs)" in notes
    # A field of the rows is not one of the whole table.
    assert "another setting: learning rate 0.1 (published: learning rate 0.3)" in notes


def test_one_source_stands_in_the_caption_and_lines_without_a_place_are_named(rates):
    values = [
        {"row": "*", "column": "pskd/top1", "printed": "20.00", "line": 2},
        {"row": "0.7", "column": "pskd/top1", "printed": "20.00", "line": 3},
    ]
    table = compared(rates, values, source="Lee 2021, Table 3")
    assert len(table.rows) == 2
    assert "Published: Lee 2021, Table 3. Where no recipe is given, the settings are not compared." in table.caption
    assert "Not in this table: published.csv, line 3 (0.7/pskd/top1)." in table.caption


def test_minutes_are_read_as_minutes(rates):
    table = {**TABLE, "columns": ["train_time"], "name": "mine"}
    values = [
        {"row": "0.1", "column": "pskd/train_time", "printed": "3"},
        {"row": "0.1", "column": "baseline/train_time", "printed": "3 / 20"},
    ]
    reference = [{"file": "a.csv", "values": values}]
    tables = gather(rates, tables=[{**table, "reference": reference}], vs_paper=True).tables
    published = {row.key: row.entries[0].value for row in one(tables, "mine-vs-paper").rows}
    assert published == {"0.1/pskd/train_time": 180.0, "0.1/baseline/train_time": 200.0}


def test_a_copied_layout_is_compared_as_the_shipped_one(database):
    copied = {**shipped_yaml("table1"), "name": "copied"}
    tables = gather(database, tables=[copied], vs_paper=True).tables
    verdicts = [[row.entries[-1].text for row in one(tables, f"{name}-vs-paper").rows] for name in ("table1", "copied")]
    assert verdicts[0] == verdicts[1] and verdicts[0]


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, list(map(str, arguments)))


GRID = """name: small
fixed: {dataset: digits, width: 8, epochs: 2}
grid: {methods: [baseline, pskd], learning_rate: [0.01, 0.1]}
resources: {gpu: 0, cpu: 1}
report:
  tables:
    - {name: rates, rows: learning_rate, across: methods, columns: [top1, {top1: {p: baseline}}]}
"""


def test_a_template_has_a_line_per_cell_of_a_grid_that_was_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ORCHESTRATE_DB", raising=False)
    Path("grid.yaml").write_text(GRID)
    done = run("reference", "grid.yaml", "--new", "rates")
    assert done.exit_code == 0, done.output
    assert "4 cells of rates" in done.output and not Path("results.db").exists()
    lines = [line for line in Path("published.csv").read_text().splitlines() if not line.startswith("#")]
    rows = list(csv.DictReader(lines))
    assert tuple(rows[0]) == COLUMNS
    assert [(row["row"], row["column"]) for row in rows] == [
        (rate, f"{methods}/top1") for rate in ("0.01", "0.1") for methods in ("baseline", "pskd")
    ]
    assert not any(value for row in rows for name, value in row.items() if name not in ("row", "column"))
    # Unfilled it is already one that the table may name.
    Path("grid.yaml").write_text(GRID.replace("baseline}}]}", "baseline}}], reference: published.csv}"))
    assert run("plan", "grid.yaml").exit_code == 0
    again = run("reference", "grid.yaml", "--new", "rates")
    assert again.exit_code == 2 and "published.csv is there already" in again.output
    other = run("reference", "grid.yaml", "--new", "rate", "--out", "other.csv")
    assert other.exit_code == 2 and "did you mean rates?" in other.output and not Path("other.csv").exists()


def test_a_template_of_a_database_and_of_a_shipped_table(rates, database, tmp_path):
    for where, name, first in ((rates, "rates", "0.01,baseline/top1"), (database, "table1", "resnet18/baseline,top1")):
        out = tmp_path / f"{name}.csv"
        done = run("reference", "--db", where.where, "--new", name, "--out", out)
        assert done.exit_code == 0, done.output
        assert f"\n{first},,," in out.read_text(encoding="utf-8")
    done = run("reference", "--db", database.where, "--new", "losses", "--out", tmp_path / "x.csv")
    assert done.exit_code == 2 and "has no cells to compare" in done.output


def test_a_file_named_from_python_is_read_or_refused(rates, tmp_path, monkeypatch):
    from reports import ReportError

    monkeypatch.chdir(tmp_path)
    Path("mine.csv").write_text("row,column,printed\n0.1,pskd/top1,20.0\n")
    results = open_results(rates.where)
    shown = results.table({**TABLE, "name": "mine-vs-paper", "reference": "mine.csv"})
    assert shown.data.reference[0].value == 20.0
    with pytest.raises(ReportError, match=r"lost.csv: no such file"):
        results.table({**TABLE, "reference": "lost.csv"})
