"""Outcomes per image in the database: which are kept, and that they go where their trials go."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import select, text

from orchestrator.database import Database, DatabaseError, driver_lock, open_database
from orchestrator.database.models import Epoch, Evaluation, Outcome
from tests.orchestrator.databases.samples import count, outcomes, result, save, start
from trainer.results import EpochResult, Metrics, Outcomes
from trainer.results import Evaluation as Measured


def kept(database: Database) -> list[tuple[int, int]]:
    """The epochs and networks whose outcomes are kept."""
    rows = (
        select(Epoch.epoch, Evaluation.network)
        .join(Evaluation, Evaluation.epoch_id == Epoch.id)
        .join(Outcome, Outcome.evaluation_id == Evaluation.id)
        .order_by(Epoch.epoch, Evaluation.network)
    )
    with database.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(rows)]


def record(database: Database, attempt: int, epoch: int, error: float, **more: object) -> None:
    database.record_epoch(attempt, result(epoch, error=error, outcomes=outcomes(error), **more), "exclusive")


def test_the_best_and_the_newest_epoch_are_kept(location: str) -> None:
    with open_database(location, create=True) as database, driver_lock(database, grid="g"):
        (key,) = save(database, epochs=5)
        attempt = start(database, key)
        for epoch, (error, expected) in enumerate(
            [(40.0, [0]), (30.0, [1]), (35.0, [1, 2]), (30.0, [1, 3]), (20.0, [4])]
        ):
            record(database, attempt, epoch, error)
            assert kept(database) == [(each, 0) for each in expected]


def test_the_best_epoch_of_the_validation_images_and_of_each_network_is_kept(location: str) -> None:
    tests, validations = [(30, 40), (20, 35), (25, 30), (28, 33)], [(12, 9), (11, 8), (9, 7), (10, 8)]
    with open_database(location, create=True) as database, driver_lock(database, grid="g"):
        (key,) = save(database, epochs=4)
        attempt = start(database, key)
        for epoch, (test, validation) in enumerate(zip(tests, validations, strict=True)):
            evaluations = [
                Measured(network, "main", Metrics(float(error), 1, 1, 1, 1), 10_000, split, outcomes=images)
                for network in (0, 1)
                for split, error, images in (
                    ("test", test[network], outcomes(test[network])),
                    ("validation", validation[network], None),
                )
            ]
            database.record_epoch(attempt, result(epoch, evaluations=evaluations), "exclusive")
    with open_database(location) as database:
        # Network 0: best on test 1, on validation 2, newest 3. Network 1: best on both 2, newest 3.
        assert kept(database) == [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1)]


def test_what_a_later_attempt_trained_again_does_not_count(location: str) -> None:
    with open_database(location, create=True) as database, driver_lock(database, grid="g"):
        (key,) = save(database, epochs=3)
        first = start(database, key)
        for epoch, error in enumerate((30.0, 10.0)):
            record(database, first, epoch, error)
        database.finish_attempt(first, "interrupted", trial_state="pending")
        second = start(database, key)
        record(database, second, 0, 30.0, restored=True)
        record(database, second, 1, 25.0)
        record(database, second, 2, 28.0)
        assert kept(database) == [(1, 0), (2, 0)]
        assert count(database, "outcomes") == 2
        with database.engine.connect() as connection:
            accepted = "SELECT min(accepted) FROM epochs JOIN evaluations v ON v.epoch_id = epochs.id "
            assert connection.scalar(text(accepted + "JOIN outcomes o ON o.evaluation_id = v.id")) == 1


def test_a_restored_epoch_that_the_database_missed_brings_its_outcomes(location: str) -> None:
    with open_database(location, create=True) as database, driver_lock(database, grid="g"):
        (key,) = save(database, epochs=2)
        attempt = start(database, key)
        record(database, attempt, 0, 30.0, restored=True)
        assert kept(database) == [(0, 0)]


def test_timing_passes_keep_none(location: str) -> None:
    with open_database(location, create=True) as database, driver_lock(database, grid="g"):
        (key,) = save(database)
        record(database, start(database, key, purpose="time"), 0, 30.0)
        assert count(database, "outcomes") == 0


def test_bits_that_do_not_fit_are_refused(location: str) -> None:
    with open_database(location, create=True) as database, driver_lock(database, grid="g"):
        (key,) = save(database)
        attempt = start(database, key)
        with pytest.raises(DatabaseError, match="1 bytes of outcomes do not fit 10000 images"):
            database.record_epoch(attempt, result(0, outcomes=Outcomes("1a", "AA==")), "exclusive")
        assert count(database, "epochs") == 0


def test_labels_are_kept_once_and_only_with_probabilities(location: str) -> None:
    with open_database(location, create=True) as database, driver_lock(database, grid="g"):
        one, two, three = save(database, 3)
        for key, probabilities in ((one, False), (two, True), (three, True)):
            images = outcomes(30.0, probabilities=probabilities)
            database.record_epoch(start(database, key), result(0, error=30.0, outcomes=images), "exclusive")
            assert count(database, "label_sets") == probabilities
        with database.engine.connect() as connection:
            sizes = "SELECT length(correct), probabilities IS NOT NULL FROM outcomes ORDER BY evaluation_id"
            assert [(size, bool(there)) for size, there in connection.execute(text(sizes))] == [
                (1250, False),
                (1250, True),
                (1250, True),
            ]


def test_one_computation_has_one_digest(location: str) -> None:
    with open_database(location, create=True) as database, driver_lock(database, grid="g"):
        one, two, three = save(database, 3, epochs=2)
        for key, last in ((one, 20.0), (two, 20.0), (three, 20.000000000000004)):
            attempt = start(database, key)
            for epoch, error in enumerate((30.0, last)):
                database.record_epoch(attempt, result(epoch, error=error), "exclusive")
            database.finish_attempt(attempt, "done", trial_state="done")
        with database.engine.connect() as connection:
            digests = list(connection.scalars(text("SELECT numbers_sha256 FROM trials ORDER BY id")))
        assert digests[0] == digests[1] != digests[2]


def trained(path: str | Path, seeds: range) -> Database:
    database = open_database(path, create=True)
    with driver_lock(database, grid="g"):
        for key in save(database, len(seeds), start=seeds.start, epochs=1):
            attempt = start(database, key)
            images = outcomes(30.0, probabilities=True)
            database.record_epoch(attempt, result(0, error=30.0, outcomes=images), "exclusive")
            database.finish_attempt(attempt, "done", trial_state="done")
    return database


def test_merged_databases_have_the_outcomes_of_both(tmp_path: Path) -> None:
    with trained(tmp_path / "one.db", range(2)) as one, trained(tmp_path / "two.db", range(1, 4)) as two:
        assert one.add(two).shared == 1
        assert (count(one, "outcomes"), count(one, "label_sets")) == (4, 1)
        assert one.damage() == [] and one.broken_rows() == []
        with one.engine.connect() as connection:
            assert connection.scalar(text("SELECT count(numbers_sha256) FROM trials")) == 4


def test_copies_have_them_and_forgetting_takes_them(tmp_path: Path) -> None:
    with trained(tmp_path / "one.db", range(2)) as database:
        database.back_up(tmp_path / "copy.db")
        database.forget("table1", trials=True)
        assert count(database, "outcomes") == 0
    with open_database(tmp_path / "copy.db") as copy:
        assert count(copy, "outcomes") == 2


@pytest.mark.parametrize(
    ("change", "column"),
    [("correct = x'00'", "correct"), ("correct = 'text'", "correct"), ("labels_sha256 = x'ff'", "labels_sha256")],
)
def test_a_damaged_row_is_named(tmp_path: Path, change: str, column: str) -> None:
    with trained(tmp_path / "one.db", range(2)) as database:
        with database.engine.begin() as connection:
            connection.execute(text(f"UPDATE outcomes SET {change} WHERE evaluation_id = 1"))
        (line,) = database.broken_rows()
        assert line.startswith(f"table outcomes, evaluation_id 1: {column} is ")


def test_results_without_outcomes_are_read_as_before() -> None:
    values = result(0).to_dict()
    for evaluation in values["evaluations"]:
        del evaluation["outcomes"]
    assert EpochResult.from_dict(values) == result(0)
    assert EpochResult.from_dict(result(0, outcomes=outcomes()).to_dict()) == result(0, outcomes=outcomes())
