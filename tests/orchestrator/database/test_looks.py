"""Looks of sequential seeds in the database: each is written once, and goes and comes with its grid."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.database import Database, DatabaseError, looks, open_database
from orchestrator.records import LookRow
from tests.orchestrator.databases.samples import count, save

RULE = {"start": 3, "step": 2, "most": 5}
FIRST = LookRow("table1", "a" * 64, "b" * 64, "r18/pskd", "r18/baseline", 1, 3, 3, -0.5, 0.04, 0.001, False, RULE)
SECOND = replace(FIRST, look=2, seeds=5, shared=4, p=None, difference=None, separated=True)


def test_a_look_is_written_once(database: Database) -> None:
    with pytest.raises(DatabaseError, match="no grid table1"):
        database.record_looks([FIRST])
    save(database, 1)
    save(database, 1, grid="other")
    database.record_looks([FIRST])
    # A second driver comes to the same look, or the answer to a commit was lost.
    database.record_looks([replace(FIRST, p=0.9), SECOND, replace(FIRST, grid="other")])
    assert database.looks("table1") == [FIRST, SECOND]
    assert len(database.looks()) == 3 and database.looks("none") == []
    # A grid that is stored anew keeps its looks.
    save(database, 2)
    assert database.looks("table1") == [FIRST, SECOND]
    database.forget("table1")
    assert [row.grid for row in database.looks()] == ["other"]


def test_two_drivers_come_to_the_same_look_at_once(database: Database) -> None:
    save(database, 1)
    with ThreadPoolExecutor() as other, database.engine.begin() as connection:
        looks.record(connection, "here", [FIRST])
        second = other.submit(database.record_looks, [replace(FIRST, p=0.9), SECOND])
        # The second waits for the first, whose row it does not see yet.
        wait([second], timeout=1)
        connection.commit()
        second.result()
    assert database.looks("table1") == [FIRST, SECOND]


NEW = replace(FIRST, baseline_key="d" * 64)
OTHER_ROW = replace(FIRST, row_key="c" * 64)


@pytest.mark.parametrize(
    ("had", "given", "merged"),
    [
        # Of another baseline: new. Of the same pair: the source has come further, or less far.
        ([FIRST], [NEW], [FIRST, NEW]),
        ([FIRST], [FIRST, SECOND], [FIRST, SECOND]),
        ([FIRST, SECOND], [FIRST], [FIRST, SECOND]),
        # The source saw other results, other rows, or had another rule, so that its looks are none of this grid.
        ([FIRST], [replace(FIRST, difference=-0.9), SECOND], None),
        ([FIRST], [FIRST, OTHER_ROW], None),
        ([FIRST], [replace(NEW, rule=RULE | {"most": 9})], None),
    ],
)
def test_merging_takes_looks_that_go_on_from_those_that_are_there(
    tmp_path: Path, had: list[LookRow], given: list[LookRow], merged: list[LookRow] | None
) -> None:
    for name, rows in (("a.db", had), ("b.db", given)):
        with open_database(tmp_path / name, create=True) as database:
            save(database, 1)
            database.record_looks(rows)
    command = ["merge", *(str(tmp_path / name) for name in ("c.db", "a.db", "b.db"))]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    with open_database(tmp_path / "c.db", readonly=True) as database:
        assert database.looks() == (merged or had)
    assert ("looks of the grid table1" in done.output) == (merged is None)


def test_a_broken_look_is_named_and_left_out(tmp_path: Path) -> None:
    with open_database(tmp_path / "a.db", create=True) as database:
        save(database, 1)
        database.record_looks([FIRST, SECOND])
        with database.engine.connect() as connection:
            connection.exec_driver_sql("UPDATE looks SET level = 'much' WHERE look = 1")
            connection.commit()
    with open_database(tmp_path / "a.db", readonly=True) as database:
        (line,) = database.leave_out_broken(numbers=False)
        assert "table looks" in line and "level is much" in line
        assert database.looks() == [SECOND] and count(database, "looks") == 1
