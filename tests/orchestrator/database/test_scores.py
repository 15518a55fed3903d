"""Draws are scored on validation images at the epochs of a rule, on SQLite and on PostgreSQL."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from orchestrator.database import Database
from orchestrator.database.scores import draws
from orchestrator.failures import Failure
from orchestrator.records import Score
from tests.orchestrator.databases.samples import config, result, start
from trainer.results import Evaluation, Metrics

# Top-1 error and NLL on the validation images, and on the test images, of three epochs.
VALIDATION = [(30.0, 1.5), (20.0, 1.2), (20.0, 0.9)]
TEST = [(1.0, 0.1), (50.0, 5.0), (50.0, 5.0)]


def trial(database: Database, name: str, epochs: Sequence[tuple[float, float]], state: str = "done") -> None:
    """Train a trial that was saved, with these errors and NLLs on the validation images."""
    key = name.rjust(64, "0")
    attempt = start(database, key)
    for epoch, (error, nll) in enumerate(epochs):
        splits = {"validation": (error, nll), "test": TEST[epoch]}
        evaluations = [
            Evaluation(
                0, classifier, Metrics(error + worse, 1.0, nll, 3.0, 60.0), 20, split, own_metrics={"own": nll * 10}
            )
            for split, (error, nll) in splits.items()
            for classifier, worse in (("main", 0.0), ("head1", -15.0))
        ]
        database.record_epoch(attempt, replace(result(epoch), evaluations=evaluations), "exclusive")
    failure = Failure("diverged", "not finite\nmore", "f") if state == "failed" else None
    if state != "running":
        database.finish_attempt(attempt, state, failure=failure, trial_state=state)


@pytest.fixture
def filled(database: Database) -> Database:
    """Draws that are done, done without a finite value, failed and running, and one that nobody has begun."""
    names = {
        "a": "net/draw0",
        "b": "net/draw1",
        "c": "net/draw2",
        "d": "net/draw3",
        "e": "net/draw10",
        "f": "net/seed0",
    }
    trials = [
        (key.rjust(64, "0"), config("net", "baseline", 100 + place, epochs=3), name)
        for place, (key, name) in enumerate(names.items())
    ]
    database.save_grid("tuned", "tuned.yaml", "", {}, trials)
    trial(database, "a", VALIDATION)
    trial(database, "b", [(20.0, math.inf)] * 3)
    trial(database, "c", VALIDATION[:1], "failed")
    trial(database, "d", VALIDATION[:2], "running")
    trial(database, "f", VALIDATION)
    return database


@pytest.mark.parametrize(
    ("metric", "selection", "expected"),
    [
        # The first epoch with the lowest validation error, whatever the test images say.
        ("top1", "best_val", 20.0),
        ("nll", "best_val", 1.2),
        ("own", "best_val", 12.0),
        ("top1", "last", 20.0),
        ("nll", "last", 0.9),
        ("nll", "mean_last_2", 1.05),
        ("top1", "mean_last_3", 70 / 3),
        ("top1", "mean_last_4", None),
        ("unmeasured", "last", None),
    ],
)
def test_a_draw_is_scored_by_its_rule(filled: Database, metric: str, selection: str, expected: float | None) -> None:
    (score,) = filled.scores(["a".rjust(64, "0")], metric, selection).values()
    assert score.state == "done" and score.value == (None if expected is None else pytest.approx(expected))


def test_draws_that_failed_or_are_under_way_have_no_score(filled: Database) -> None:
    scores = filled.scores([key.rjust(64, "0") for key in "bcdez"], "nll", "last")
    assert {key[-1]: score for key, score in scores.items()} == {
        "b": Score("done", None, "no finite value on the validation images"),
        "c": Score("failed", None, "diverged: not finite"),
        "d": Score("open"),
        "e": Score("open"),
    }


def test_the_draws_of_a_grid_are_found_by_row_and_number(filled: Database) -> None:
    with filled.reading() as connection:
        by_row = draws(connection, "tuned", "top1", "best_val")
        assert draws(connection, "other", "top1", "best_val") == {}
    assert list(by_row) == ["net"] and list(by_row["net"]) == [0, 1, 2, 3, 10]
    rows = by_row["net"]
    assert [(rows[number].state, rows[number].score, rows[number].error_class) for number in (0, 2, 10)] == [
        ("done", 20.0, None),
        ("failed", None, "diverged"),
        ("pending", None, None),
    ]
