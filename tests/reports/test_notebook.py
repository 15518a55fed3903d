"""Results in a notebook: the frames are the exported files, and the tables are the report's."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

import orchestrator
from orchestrator.database import Database, DatabaseError, open_database
from orchestrator.records import PartRow
from reports import ReportError, export, open_results, write_report
from reports.notebook import StoredResults
from tests.orchestrator.databases.samples import config, result, start
from tests.reports.synthetic import make_database

# The made-up grids are unfinished, which opening a copy of them tells.
pytestmark = pytest.mark.filterwarnings("ignore:.*holds unfinished attempts")
RELATIONS = ("grids", "trials", "attempts", "epochs", "losses", "evaluations")
METHODS: list[dict[str, Any]] = [{"byot": {}, "pskd": {}}, {}, {"pskd": {"alpha": 0.7}}]


@pytest.fixture(scope="module")
def results(database: Database) -> StoredResults:
    assert database.path is not None
    return orchestrator.open_results(database.path)


def test_frames_are_the_exported_files(results: StoredResults, database: Database, tmp_path: Path):
    export(database, tmp_path, "parquet")
    for name in RELATIONS:
        frame, exported = getattr(results, name), pd.read_parquet(tmp_path / f"{name}.parquet")
        assert len(frame) > 1
        # Behind the exported columns are those that other files have.
        assert_frame_equal(frame[exported.columns.tolist()], exported)


def test_frames_say_what_was_trained_and_by_which_code(tmp_path: Path):
    with open_database(tmp_path / "r.db", create=True) as database:
        trials = [(f"{i:064x}", config("resnet18", "pskd", i) | {"methods": m}, f"t{i}") for i, m in enumerate(METHODS)]
        database.save_grid("g", "g.yaml", "", {}, trials)
        for number, (commit, dirty) in enumerate((("a" * 40, False), ("b" * 40, True))):
            environment = {"commit": commit, "dirty": dirty, "code_digest": f"{number:064x}"}
            attempt = start(database, trials[0][0], environment=environment, device=f"cuda:{number} (H200)")
            database.record_epoch(attempt, result(number), "exclusive")
        start(database, trials[0][0], purpose="time", environment={"commit": "c"})
    results = open_results(tmp_path / "r.db")
    frame = results.trials
    assert frame["methods"].tolist() == ["pskd+byot", "baseline", "pskd[alpha=0.7]"]
    assert frame["hyperparameters"].tolist()[2] == '{"pskd": {"alpha": 0.7}}'
    # The newest training attempt's; a trial that never ran has none.
    assert frame["commit"].tolist()[:1] == ["b" * 40] and frame["commit"].isna().tolist() == [False, True, True]
    assert frame["device"].tolist()[0] == "cuda:1 (H200)" and frame["attempt"].tolist()[0] == 2
    for frame in (results.epochs, results.evaluations):
        assert frame.groupby("epoch")["commit"].first().tolist() == ["a" * 40, "b" * 40]
        assert frame.groupby("epoch")["code_digest"].first().tolist() == ["0" * 64, f"{1:064x}"]
        assert frame.groupby("epoch")["dirty"].first().tolist() == [False, True]
        assert set(frame["methods"]) == {"pskd+byot"} and set(frame["seed"]) == {0}
        assert str(frame["dirty"].dtype) == "boolean" and str(frame["attempt"].dtype) == "Int64"
    assert set(results.epochs["network"]) == {"resnet18"} and set(results.evaluations["network"]) == {0}
    assert results.attempts["purpose"].tolist() == ["train", "train", "time"]
    assert results.trials["data_sha256"].isna().all() and str(results.trials["data_sha256"].dtype) == "str"


def test_parts_stand_beside_the_attempt_that_used_them(tmp_path: Path):
    row = PartRow("method", "pskd", 2, "PS-KD", {}, "d" * 64, "pskd.py:7")
    with open_database(tmp_path / "r.db", create=True) as database:
        database.save_grid("g", "g.yaml", "", {}, [("0" * 64, config("resnet18", "pskd", 0), "t")])
        start(database, "0" * 64)
        database.record_parts([row], start(database, "0" * 64))
    parts = open_results(tmp_path / "r.db").parts
    assert parts.to_dict("records") == [
        {
            **{"key": "0" * 64, "attempt": 2, "kind": "method", "name": "pskd", "version": 2},
            **{"title": "PS-KD", "digest": "d" * 64, "source": "pskd.py:7"},
        }
    ]


def test_columns_have_types(results: StoredResults):
    types = results.evaluations.dtypes
    assert {str(types[name]) for name in ("epoch", "network")} == {"Int64"}
    assert {str(types[name]) for name in ("top1_error", "nll", "ece")} == {"float64"}
    trials = results.trials.dtypes
    assert str(trials["finished"]).startswith("datetime64") and str(trials["seed"]) == "Int64"


def test_tables_are_those_of_a_report(results: StoredResults, database: Database, tmp_path: Path, undrawn: None):
    write_report(database, tmp_path, formats=["md", "tex", "csv"], selection="last", grids=["table1"])
    tables = results.tables(selection="last", grids=["table1"])
    assert {table.name for table in tables} == {path.stem for path in tmp_path.glob("*.csv")} > {"table1"}
    for table in tables:
        assert table.to_markdown() == (tmp_path / f"{table.name}.md").read_text()
        assert table.to_latex() == (tmp_path / f"{table.name}.tex").read_text()
        assert table.frame.to_csv(index=False) == pd.read_csv(tmp_path / f"{table.name}.csv", dtype=str).to_csv(
            index=False
        )


def test_a_table_has_numbers_in_its_frame(results: StoredResults):
    table = results.table(1, selection="last")
    assert table.data == results.table("table1", selection="last").data
    assert [str(table.frame[name].dtype) for name in ("top1", "top1_spread", "top1_n")] == ["float64"] * 2 + ["Int64"]
    values = {row.key: row.entries[0].value for row in table.data.rows}
    assert table.frame.set_index("row")["top1"].dropna().to_dict() == {k: v for k, v in values.items() if v is not None}
    assert results.table(1, selection="best_test").data != table.data
    assert results.table("table1-vs-paper").name == "table1-vs-paper"


def test_a_table_shows_itself(results: StoredResults):
    table = results.table(1)
    page = table._repr_html_()
    assert page.count("<table>") == 1 and "<button" not in page and "<script" not in page
    assert page.count("<tr id=") == len(table.data.rows)
    assert repr(table) == table.to_markdown()


def test_what_is_not_there_is_said(results: StoredResults, tmp_path: Path):
    with pytest.raises(ReportError, match=r"no table 'tabel1'; did you mean table1"):
        results.table("tabel1")
    with pytest.raises(ReportError, match="no table 'table9'"):
        results.table(9)
    with pytest.raises(DatabaseError, match=r"missing\.db"):
        open_results(tmp_path / "missing.db")


def test_every_frame_is_read_anew_and_without_broken_rows(tmp_path: Path):
    with make_database(tmp_path / "results.db"):
        pass
    results = open_results(tmp_path / "results.db")
    count = len(results.trials)
    with sqlite3.connect(tmp_path / "results.db") as rows:
        rows.execute("UPDATE trials SET config = '{' WHERE id = 1")
    rows.close()
    with pytest.warns(UserWarning, match="trials") as warned:
        assert len(results.trials) == count - 1
    # The warning names the line that asked.
    assert {Path(each.filename).name for each in warned} == {Path(__file__).name}
