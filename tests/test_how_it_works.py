"""docs/how-it-works.md: its queries give what the program says itself."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path
from statistics import fmean

import pytest
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.database import PartRow, open_database
from tests.reports.synthetic import make_database

PAGE = (Path(__file__).parents[1] / "docs/how-it-works.md").read_text(encoding="utf-8")
FAILED, LAST, SECONDS, HOURS, PARTS = QUERIES = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("queries") / "results.db"
    with make_database(path):
        pass
    with open_database(path) as database:
        parts = [PartRow("method", name, 1, name, {}, "0", "trainer/methods/x.py:1") for name in ("pskd", "byot")]
        with database.reading() as connection:
            attempts = [number for (number,) in connection.exec_driver_sql("SELECT id FROM attempts LIMIT 5")]
        for attempt in attempts:
            database.record_parts(parts[: 1 + attempt % 2], attempt)
    return path


@pytest.fixture
def rows(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path)


@pytest.mark.parametrize("number", range(5))
def test_the_command_answers_every_query_as_sqlite_does(number: int, path: Path, rows: sqlite3.Connection):
    query = QUERIES[number].replace("quickstart", "table1")
    done = CliRunner().invoke(app, ["query", query, "--json", "--db", str(path)])
    assert done.exit_code == 0, done.output
    expected = [list(row) for row in rows.execute(query)]
    assert [list(row.values()) for row in json.loads(done.stdout)] == expected
    assert expected


def test_failed_trials_are_listed_with_their_reason(rows: sqlite3.Connection):
    names = [name for (name,) in rows.execute("SELECT name FROM grids")]
    failed = [row for name in names for row in rows.execute(FAILED.replace("quickstart", name))]
    assert failed
    expected = {
        name
        for (name,) in rows.execute(
            "SELECT name FROM grid_trials, trials WHERE trial_id = trials.id AND state = 'failed'"
        )
    }
    assert {name for name, *_ in failed} == expected
    assert all(error_class for _, error_class, *_ in failed)


def test_every_trial_that_is_done_has_its_last_error(rows: sqlite3.Connection):
    last = rows.execute(LAST).fetchall()
    errors: dict[str, tuple[int, float]] = {}
    for name, epoch, error in rows.execute(
        """SELECT name, epoch + 1, top1_error FROM grid_trials, trials, epochs, evaluations
        WHERE grid_trials.trial_id = trials.id AND epochs.trial_id = trials.id AND epoch_id = epochs.id
        AND state = 'done' AND accepted = 1 AND network = 0 AND classifier = 'main' AND split = 'test'"""
    ):
        if name not in errors or errors[name][0] < epoch:
            errors[name] = epoch, error
    assert {name: (epoch, error) for name, epoch, error in last} == errors
    assert len(errors) > 20


def test_seconds_are_those_of_exclusive_epochs(rows: sqlite3.Connection):
    measured: dict[str, list[float]] = {}
    for device, seconds in rows.execute(
        """SELECT device, train_seconds + data_seconds FROM epochs, attempts WHERE attempt_id = attempts.id
        AND accepted = 1 AND timing_quality = 'exclusive'"""
    ):
        measured.setdefault(device, []).append(seconds)
    given = {device: (count, mean) for device, count, mean in rows.execute(SECONDS)}
    assert given == {device: (len(seconds), pytest.approx(fmean(seconds))) for device, seconds in measured.items()}
    assert measured


def test_hours_are_those_of_every_epoch(rows: sqlite3.Connection):
    seconds: dict[str, list[float]] = {}
    for name, *parts in rows.execute(
        """SELECT grids.name, train_seconds, data_seconds, eval_seconds FROM grids, grid_trials, epochs
        WHERE grid_id = grids.id AND grid_trials.trial_id = epochs.trial_id"""
    ):
        seconds.setdefault(name, []).append(sum(parts))
    given = {name: (count, hours) for name, count, hours in rows.execute(HOURS)}
    assert given == {name: (len(each), pytest.approx(sum(each) / 3600)) for name, each in seconds.items()}


def test_parts_are_counted_by_trial(rows: sqlite3.Connection):
    trials: dict[tuple[str, str, int], set[int]] = {}
    for kind, name, version, trial in rows.execute(
        """SELECT kind, name, version, trial_id FROM parts, attempt_parts, attempts
        WHERE part_id = parts.id AND attempt_id = attempts.id"""
    ):
        trials.setdefault((kind, name, version), set()).add(trial)
    assert {tuple(part): count for *part, count in rows.execute(PARTS)} == {
        part: len(each) for part, each in trials.items()
    }
