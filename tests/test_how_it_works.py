"""docs/how-it-works.md: its queries give what the program says itself."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from statistics import fmean

import pytest

from tests.reports.synthetic import make_database

PAGE = (Path(__file__).parents[1] / "docs/how-it-works.md").read_text(encoding="utf-8")
FAILED, LAST, SECONDS = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> sqlite3.Connection:
    path = tmp_path_factory.mktemp("queries") / "results.db"
    with make_database(path):
        pass
    return sqlite3.connect(path)


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
