"""The duties of every results database, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from orchestrator.database import Database, DatabaseError, Driver, PartRow, open_database
from orchestrator.database.models import Epoch, Evaluation, MetricValue, Trial
from orchestrator.failures import Failure
from tests.orchestrator.databases.samples import accepted, count, result, save, start, trials_of
from trainer.results import Evaluation as Evaluated
from trainer.results import Metrics

DRIVERS = [Driver(token, "node1", token) for token in (11, 12)]


# Grids and trials


def test_a_grid_keeps_its_order_and_its_report(database: Database) -> None:
    trials = trials_of(5)
    before = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=1)
    database.save_grid("table1", "grids/table1.yaml", "name: table1", {"tables": [1, 2]}, trials[::-1])

    (grid,) = database.grids()
    assert (grid.name, grid.source, grid.report, grid.trials) == ("table1", "grids/table1.yaml", {"tables": [1, 2]}, 5)
    assert before < grid.created == grid.updated < before + timedelta(minutes=5)
    assert database.grid_keys("table1") == [(key, name) for key, _, name in trials[::-1]]
    assert database.grid_keys("other") == []


def test_saving_a_grid_again_replaces_its_list_and_keeps_what_is_known(database: Database) -> None:
    first = save(database, 3)
    attempt = start(database, first[0])
    database.record_epoch(attempt, result(0), "exclusive")
    database.finish_attempt(attempt, "done", trial_state="done")

    again = [trials_of(1, start=9)[0], trials_of(1)[0]]
    database.save_grid("table1", "elsewhere.yaml", "", {}, again)

    (grid,) = database.grids()
    assert (grid.source, grid.report, grid.trials) == ("elsewhere.yaml", {}, 2)
    assert grid.created < grid.updated
    assert [key for key, _ in database.grid_keys("table1")] == [key for key, _, _ in again]
    states = database.states([*first, again[0][0]])
    assert [states[key].state for key in first] == ["done", "pending", "pending"]
    assert states[again[0][0]].state == "pending"
    assert count(database, "trials") == 4


def test_grids_share_trials(database: Database) -> None:
    keys = save(database, 2, grid="table1")
    assert save(database, 3, grid="table3")[:2] == keys
    assert count(database, "trials") == 3
    assert [(grid.name, grid.trials) for grid in database.grids()] == [("table1", 2), ("table3", 3)]


def test_a_field_that_a_later_version_added_joins_the_stored_configuration(database: Database) -> None:
    (key,) = save(database)
    config = trials_of(1)[0][1]
    database.save_grid("table1", "", "", {}, [(key, {**config, "momentum": 0.9}, "a")])
    assert database.progress("table1")[0].config == {**config, "momentum": 0.9}
    save(database)
    assert database.progress("table1")[0].config == {**config, "momentum": 0.9}


@pytest.mark.parametrize(
    ("grid", "trials", "message"),
    [
        ("table1", [("a", {}, "x"), ("a", {}, "y")], "2 trials with the key a"),
        ("table1", [("a", {}, "x"), ("b", {}, "x")], "2 trials with the name x"),
        ("n" * 201, [("a", {}, "x")], "the grid's name has 201 characters, 200 fit"),
        ("table1", [("a", {}, "x" * 301)], "a trial's name has 301 characters, 300 fit"),
    ],
)
def test_a_grid_that_cannot_be_stored_is_refused_whole(
    database: Database, grid: str, trials: list, message: str
) -> None:
    with pytest.raises(DatabaseError, match=message):
        database.save_grid(grid, "", "", {}, trials)
    assert database.grids() == [] and count(database, "trials") == 0


NAMES = ["a/../b", "'); DROP TABLE trials; --", 'quo"te', "日本語 ünï", "%s :key ?", "x" * 200, " ", "back\\slash"]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_data(database: Database, name: str) -> None:
    database.save_grid(name, name, name, {name: name}, [(name[:64], {"epochs": 1, name: name}, name)])
    assert [(grid.name, grid.source, grid.report) for grid in database.grids()] == [(name, name, {name: name})]
    assert database.grid_keys(name) == [(name[:64], name)]
    assert database.progress(name)[0].config == {"epochs": 1, name: name}
    assert database.states([name[:64]])[name[:64]].state == "pending"


def test_what_a_database_cannot_hold_is_escaped(database: Database) -> None:
    (key,) = save(database)
    attempt = start(database, key, host="h" * 300, log="/bad\udcff", environment={"argv": ["a\0b", math.nan]})
    database.finish_attempt(attempt, "failed", failure=Failure("code", "\0\udcff", "f"), trial_state="failed")
    (row,) = database.attempts(key)
    assert row.host == "h" * 255
    assert row.log == "/bad\\udcff"
    assert row.environment == {"argv": ["a\\x00b", None]}
    assert row.error_text == "\\x00\\udcff"


def test_more_trials_than_a_statement_has_parameters(database: Database) -> None:
    # SQLite takes 32,766 at most, PostgreSQL 65,535: a trial's row has more than one.
    trials = trials_of(40_000) if "sqlite" in str(database.engine.url) else trials_of(5_000)
    database.save_grid("large", "", "", {}, trials)
    keys = [key for key, _, _ in trials]
    assert [key for key, _ in database.grid_keys("large")] == keys
    states = database.states([*keys, "unknown"])
    assert len(states) == len(keys) and {row.state for row in states.values()} == {"pending"}
    chosen = keys[::10]
    assert database.claim(chosen, DRIVERS[0]) == set(chosen)
    database.release(DRIVERS[0])
    assert database.claim(chosen, DRIVERS[1]) == set(chosen)


# Claims


def stored(database: Database, keys: list[str]) -> list[tuple[str, int | None]]:
    """State and driver of each trial as they stand in its row, whether or not that driver lives."""
    with database.reading() as connection:
        rows = {
            key: (state, token)
            for key, state, token in connection.execute(select(Trial.key, Trial.state, Trial.driver))
        }
    return [rows[key] for key in keys]


def test_a_trial_is_claimed_once(database: Database) -> None:
    keys = save(database, 4)
    assert database.claim([*keys[:2], "unknown"], DRIVERS[0]) == set(keys[:2])
    assert database.claim(keys[:2], DRIVERS[0]) == set(keys[:2])
    assert database.claim(keys, DRIVERS[1]) == set(keys[2:])
    assert stored(database, keys) == [("pending", 11), ("pending", 11), ("pending", 12), ("pending", 12)]
    database.release(DRIVERS[0])
    assert database.claim(keys, DRIVERS[1]) == set(keys)


def test_only_pending_trials_are_claimed(database: Database) -> None:
    done, failed, running, pending = save(database, 4)
    database.finish_attempt(start(database, done), "done", trial_state="done")
    database.finish_attempt(start(database, failed), "failed", trial_state="failed")
    start(database, running)
    assert database.claim([done, failed, running, pending], DRIVERS[0]) == {pending}


def test_retry_takes_failed_trials_alone(database: Database) -> None:
    done, failed, other, pending = save(database, 4)
    database.finish_attempt(start(database, done), "done", trial_state="done")
    for key in (failed, other):
        database.finish_attempt(
            start(database, key), "failed", failure=Failure("code", "boom", "f"), trial_state="failed"
        )
    assert database.retry([done, failed, pending]) == 1
    states = database.states([done, failed, other, pending])
    assert [row.state for row in states.values()] == ["done", "pending", "failed", "pending"]
    assert database.retry([done, failed, pending]) == 0
    assert database.claim([failed], DRIVERS[0]) == {failed}


def test_release_gives_back_what_runs(database: Database, driver: Driver) -> None:
    running, claimed, done, foreign = save(database, 4)
    database.claim([running, claimed, done], driver)
    database.claim([foreign], DRIVERS[0])
    first = start(database, running)
    database.record_epoch(first, result(0), "exclusive")
    database.finish_attempt(start(database, done), "done", trial_state="done")
    start(database, done, purpose="time")
    database.release(driver)

    assert stored(database, [running, claimed, done, foreign]) == [
        ("pending", None),
        ("pending", None),
        ("done", None),
        ("pending", 11),
    ]
    assert database.states([running])[running].epochs == 1
    assert [row.outcome for row in database.attempts(running)] == ["interrupted"]
    assert [row.outcome for row in database.attempts(done)] == ["done", "interrupted"]


def test_only_the_holder_of_the_lock_may_call_others_dead(database: Database) -> None:
    with pytest.raises(DatabaseError, match="only the holder of the driver's lock"):
        database.release_stale()


# Attempts


def test_an_attempt_keeps_what_it_was_told(database: Database, driver: Driver) -> None:
    (key,) = save(database)
    attempt = start(database, key)
    (row,) = database.attempts(key)
    assert (row.id, row.number, row.purpose, row.driver) == (attempt, 1, "train", driver.token)
    assert (row.host, row.device, row.device_uuid, row.pid) == ("node1", "cuda:0 (H200)", "GPU-1", 4711)
    assert row.environment == {"commit": "abc", "dirty": False, "versions": {"torch": "2.11"}}
    assert (row.outcome, row.ended, row.epochs, row.log) == (None, None, 0, "/logs/1.log")
    assert database.states([key])[key].state == "running"

    database.change_environment(attempt, {"commit": "def", "engine": "launched"})
    (row,) = database.attempts(key)
    changed = {"commit": "def", "dirty": False, "versions": {"torch": "2.11"}, "engine": "launched"}
    assert row.environment == changed
    with pytest.raises(DatabaseError, match="has no attempt 4711"):
        database.change_environment(4711, {})

    database.record_epoch(attempt, result(0), "exclusive")
    failure = Failure("diverged", "NaN\ntraceback", "f" * 16)
    database.finish_attempt(attempt, "failed", failure=failure, trial_state="failed")
    (row,) = database.attempts(key)
    assert (row.outcome, row.error_class, row.error_text) == ("failed", "diverged", "NaN\ntraceback")
    assert (row.fingerprint, row.parameters, row.epochs) == ("f" * 16, 11_000_000, 1)
    assert row.started <= row.ended
    state = database.states([key])[key]
    assert (state.state, state.epochs, state.attempts) == ("failed", 1, 1)
    assert (state.error_class, state.error, state.last_ended) == ("diverged", "NaN", row.ended)


def test_attempts_count_up_whatever_their_purpose(database: Database) -> None:
    (key,) = save(database)
    database.finish_attempt(start(database, key, purpose="time"), "done", trial_state="done")
    assert database.states([key])[key].state == "pending"
    database.finish_attempt(start(database, key), "failed", trial_state="pending")
    database.finish_attempt(start(database, key), "done", trial_state="done")
    database.finish_attempt(start(database, key, purpose="canary"), "failed")
    rows = database.attempts(key)
    assert [(row.number, row.purpose) for row in rows] == [(1, "time"), (2, "train"), (3, "train"), (4, "canary")]
    state = database.states([key])[key]
    assert (state.state, state.attempts) == ("done", 2)


def test_a_trial_that_ended_is_not_trained_again(database: Database) -> None:
    done, failed = save(database, 2)
    database.finish_attempt(start(database, done), "done", trial_state="done")
    database.finish_attempt(start(database, failed), "failed", trial_state="failed")
    with pytest.raises(DatabaseError, match=f"{done} is done and is not trained again"):
        start(database, done)
    with pytest.raises(DatabaseError, match="is failed"):
        start(database, failed)
    with pytest.raises(DatabaseError, match="no trial with the key unknown"):
        start(database, "unknown")
    assert len(database.attempts(done)) == 1


def test_a_trial_has_one_open_attempt(database: Database) -> None:
    (key,) = save(database)
    first = start(database, key)
    timing = start(database, key, purpose="time")
    start(database, key)
    assert [row.outcome for row in database.attempts(key)] == ["lost", None, None]
    with pytest.raises(DatabaseError, match=r"attempt 1 of trial .* has ended \(lost\)"):
        database.record_epoch(first, result(0), "exclusive")
    database.record_epoch(timing, result(0), "exclusive")


def test_the_first_end_of_an_attempt_stands(database: Database) -> None:
    (key,) = save(database)
    attempt = start(database, key)
    database.finish_attempt(attempt, "done", trial_state="done")
    ended = database.attempts(key)
    database.finish_attempt(attempt, "failed", failure=Failure("code", "late", "f"), trial_state="failed")
    database.finish_attempt(attempt, "interrupted", trial_state="pending")
    assert database.attempts(key) == ended
    assert database.states([key])[key].state == "done"


def test_ends_that_make_no_sense_are_refused(database: Database) -> None:
    (key,) = save(database)
    attempt = start(database, key)
    for outcome, state in (
        ("finished", "done"),
        ("done", "ended"),
        ("failed", "done"),
        ("done", "failed"),
        ("done", None),
    ):
        with pytest.raises(ValueError, match=r"none of|leaves? its trial"):
            database.finish_attempt(attempt, outcome, trial_state=state)
    with pytest.raises(ValueError, match="none of train, time, canary"):
        start(database, key, purpose="play")
    with pytest.raises(DatabaseError, match="no attempt 999"):
        database.finish_attempt(999, "done", trial_state="done")
    assert database.attempts(key)[0].outcome is None


# Epochs


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    metrics=st.lists(st.floats(allow_nan=False), min_size=5, max_size=5),
    ood=st.none() | st.floats(0, 100),
    seconds=st.lists(st.floats(0, 1e6), min_size=3, max_size=3),
    losses=st.dictionaries(st.text(st.characters(codec="utf-8", exclude_characters="\0")), st.floats()),
    memory=st.none() | st.integers(0, 2**62),
)
def test_numbers_come_back_bit_for_bit(
    database: Database, metrics: list, ood: float | None, seconds: list, losses: dict, memory: int | None
) -> None:
    (key,) = save(database, start=count(database, "trials"))
    attempt = start(database, key)
    train, evaluate, data = seconds
    evaluation = Evaluated(1, "ensemble", Metrics(*metrics), images=7, split="validation", ood_auroc=ood)
    database.record_epoch(
        attempt,
        result(
            3,
            evaluations=[evaluation],
            losses=losses,
            peak_memory_bytes=memory,
            train_seconds=train,
            eval_seconds=evaluate,
            data_seconds=data,
        ),
        "packed",
    )
    epochs, evaluations = Epoch.__table__, Evaluation.__table__
    with database.engine.connect() as connection:
        epoch = connection.execute(select(epochs).where(epochs.c.attempt_id == attempt)).one()
        row = connection.execute(select(evaluations).where(evaluations.c.epoch_id == epoch.id)).one()
    assert (epoch.epoch, epoch.accepted, epoch.learning_rate, epoch.images) == (3, 1, 0.1, 50_000)
    assert (epoch.train_seconds, epoch.eval_seconds, epoch.data_seconds) == (train, evaluate, data)
    assert (epoch.timing_quality, epoch.peak_memory_bytes) == ("packed", memory)
    assert epoch.losses == {name: value if math.isfinite(value) else None for name, value in losses.items()}
    assert [row.top1_error, row.top5_error, row.nll, row.ece, row.aurc] == metrics
    assert (row.network, row.classifier, row.split, row.images, row.ood_auroc) == (1, "ensemble", "validation", 7, ood)


def test_a_metric_that_is_not_a_number_is_refused(database: Database) -> None:
    (key,) = save(database)
    attempt = start(database, key)
    bad = Evaluated(0, "head1", Metrics(1.0, 1.0, math.nan, 1.0, 1.0), images=1)
    with pytest.raises(DatabaseError, match=f"epoch 3 of attempt {attempt} .* nll of head1 on test is NaN"):
        database.record_epoch(attempt, result(2, evaluations=[*result(2).evaluations, bad]), "exclusive")
    assert count(database, "epochs") == 0


def own_values(database: Database) -> dict[tuple[int, str, str], float]:
    """Return every stored own value by epoch, classifier and metric."""
    query = (
        select(Epoch.epoch, Evaluation.classifier, MetricValue.metric, MetricValue.value)
        .join(Evaluation, Evaluation.id == MetricValue.evaluation_id)
        .join(Epoch, Epoch.id == Evaluation.epoch_id)
    )
    with database.engine.connect() as connection:
        return {(epoch, classifier, metric): value for epoch, classifier, metric, value in connection.execute(query)}


def test_own_metrics_come_back_bit_for_bit(database: Database) -> None:
    (key,) = save(database)
    attempt = start(database, key)
    values = {"brier": 0.1 + 0.2, "a b": -1e-300}
    ordinary = result(0, heads=2)
    with_brier = [replace(each, own_metrics={"brier": rank / 3}) for rank, each in enumerate(ordinary.evaluations)]
    database.record_epoch(
        attempt, replace(ordinary, evaluations=[*with_brier[:2], ordinary.evaluations[2]]), "exclusive"
    )
    database.record_epoch(attempt, result(1, own=values), "exclusive")
    database.record_epoch(attempt, result(1, own=values), "exclusive")
    assert own_values(database) == {
        (0, "main", "brier"): 0.0,
        (0, "head1", "brier"): 1 / 3,
        **{(1, each, name): value for each in ("main", "head1") for name, value in values.items()},
    }
    with pytest.raises(DatabaseError, match="because brier of main on test is NaN"):
        database.record_epoch(attempt, result(2, own={"brier": math.nan}), "exclusive")
    assert count(database, "epochs") == 2


def test_parts_are_stored_once_and_their_titles_follow(database: Database) -> None:
    first, second = save(database, 2)
    network = PartRow("network", "tiny", 1, "Tiny", {"stages": 2}, "ab" * 32, "/home/ann/parts.py:9")
    metric = PartRow("metric", "brier", 1, "Brier score", {"direction": "lower", "digits": 3}, "cd" * 32, "m.py:3")
    database.record_parts([network, metric])
    attempt = start(database, first)
    for _ in range(2):
        database.record_parts([network, metric], attempt)
    assert database.parts() == [network, metric]
    assert (count(database, "parts"), count(database, "attempt_parts")) == (2, 2)

    renamed = replace(network, title="Tiny\0 net", source="/home/bob/parts.py:9")
    changed, newer = replace(network, digest="ef" * 32), replace(metric, version=2)
    database.record_parts([renamed, changed, newer], start(database, second))
    assert database.parts() == [replace(renamed, title="Tiny\\x00 net"), metric, changed, newer]
    assert count(database, "attempt_parts") == 5

    with pytest.raises(DatabaseError, match="has no attempt 99"):
        database.record_parts([metric], 99)
    with pytest.raises(DatabaseError, match="the name of a metric has 201 characters, 200 fit: mmm"):
        database.record_parts([replace(metric, name="m" * 201)])
    assert len(database.parts()) == 4


def test_done_trials_without_a_metric_are_counted(database: Database) -> None:
    both, late, without, running, new = keys = save(database, 5)
    for key, values in ((both, ({"a": 1.0, "b": 2.0},) * 2), (late, ({"a": 1.0}, {})), (without, ({}, {}))):
        attempt = start(database, key)
        for epoch, own in enumerate(values):
            database.record_epoch(attempt, result(epoch, own=own), "exclusive")
        database.finish_attempt(attempt, "done", trial_state="done")
    start(database, running)
    assert database.unmeasured(keys, ["a", "b"]) == {"a": 2, "b": 2}
    assert database.unmeasured([both, new], ["a", "c"]) == {"a": 0, "c": 1}


def test_an_epoch_is_stored_wholly_or_not_at_all(database: Database) -> None:
    (key,) = save(database)
    attempt = start(database, key)
    twice = result(0).evaluations * 2
    with pytest.raises(DatabaseError, match=r"(?i)unique"):
        database.record_epoch(attempt, result(0, evaluations=twice), "exclusive")
    assert (count(database, "epochs"), count(database, "evaluations")) == (0, 0)
    database.record_epoch(attempt, result(0), "exclusive")
    assert (count(database, "epochs"), count(database, "evaluations")) == (1, 2)


def test_an_epoch_that_is_told_twice_is_stored_once(database: Database) -> None:
    (key,) = save(database)
    attempt = start(database, key)
    for error in (20.0, 30.0):
        database.record_epoch(attempt, result(0, error=error), "exclusive")
    database.finish_attempt(attempt, "done", trial_state="done")
    database.record_epoch(attempt, result(0, error=40.0), "exclusive")
    assert (count(database, "epochs"), count(database, "evaluations")) == (1, 2)
    assert database.progress("table1")[0].best_top1_error == 20.0


def test_a_resumed_trial_shows_no_epoch_twice(database: Database) -> None:
    (key,) = save(database)
    first = start(database, key)
    for epoch in range(4):
        database.record_epoch(first, result(epoch), "exclusive")
    database.finish_attempt(first, "interrupted", trial_state="pending")
    second = start(database, key)
    database.record_epoch(second, result(1, restored=True), "exclusive")
    assert accepted(database, key) == {0: 1, 1: 1, 2: 1, 3: 1}
    database.record_epoch(second, result(2), "exclusive")
    # Epoch 3 belongs to a run that has been left behind.
    assert accepted(database, key) == {0: 1, 1: 1, 2: 2}
    database.record_epoch(second, result(3), "exclusive")
    assert accepted(database, key) == {0: 1, 1: 1, 2: 2, 3: 2}
    assert count(database, "epochs") == 6
    assert [row.epochs for row in database.attempts(key)] == [4, 2]


def test_an_epoch_that_only_the_checkpoint_knew_is_recovered(database: Database) -> None:
    (key,) = save(database)
    first = start(database, key)
    database.record_epoch(first, result(0), "exclusive")
    database.finish_attempt(first, "interrupted", trial_state="pending")
    second = start(database, key)
    for epoch in range(2):
        database.record_epoch(second, result(epoch, restored=True), "exclusive")
    assert accepted(database, key) == {0: 1, 1: 2}
    with database.engine.connect() as connection:
        qualities = connection.scalars(select(Epoch.timing_quality).order_by(Epoch.epoch)).all()
    assert qualities == ["exclusive", "unknown"]


@pytest.mark.parametrize("purpose", ["time", "canary"])
def test_a_timing_pass_counts_for_nothing_else(database: Database, purpose: str) -> None:
    (key,) = save(database)
    first = start(database, key)
    database.record_epoch(first, result(0, error=30.0), "packed")
    database.finish_attempt(first, "done", trial_state="done")
    before = database.progress("table1")
    timing = start(database, key, purpose=purpose)
    for epoch in range(2):
        database.record_epoch(timing, result(epoch, error=1.0, restored=epoch == 1), "exclusive")
    database.finish_attempt(timing, "failed", failure=Failure("code", "x", "f"), trial_state="failed")
    assert accepted(database, key) == {0: 1}
    assert count(database, "epochs") == 3
    assert database.progress("table1") == before
    assert database.states([key])[key].error is None
    assert database.failures() == []


def test_an_unknown_attempt_records_nothing(database: Database) -> None:
    with pytest.raises(DatabaseError, match="no attempt 5"):
        database.record_epoch(5, result(0), "exclusive")


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_killed_every_epoch_counts_once(database: Database, data: st.DataObject) -> None:
    """A trainer with checkpoints is killed at random, and some of its last messages are lost."""
    epochs = data.draw(st.integers(1, 6), label="epochs")
    (key,) = save(database, start=count(database, "trials"))
    trained_by: dict[int, int] = {}
    checkpoint = 0
    for number in range(1, 8):
        attempt = start(database, key)
        last = number == 7
        stop = epochs if last else data.draw(st.integers(checkpoint, epochs), label="killed before epoch")
        # What the checkpoint holds is told again, so that a message that was lost is made up for.
        for epoch in range(checkpoint):
            database.record_epoch(attempt, result(epoch, restored=True), "exclusive")
            trained_by.setdefault(epoch, number)
        for epoch in range(checkpoint, stop):
            heard = last or epoch < stop - 1 or data.draw(st.booleans(), label="last message heard")
            if heard:
                for _ in range(data.draw(st.integers(1, 2), label="told how often")):
                    database.record_epoch(attempt, result(epoch, error=float(number)), "exclusive")
                trained_by = {e: by for e, by in trained_by.items() if e < epoch} | {epoch: number}
            assert accepted(database, key) == trained_by
        checkpoint = data.draw(st.integers(checkpoint, stop), label="checkpoint")
        if not last:
            database.finish_attempt(attempt, "interrupted", trial_state="pending")
    database.finish_attempt(attempt, "done", trial_state="done")
    assert sorted(accepted(database, key)) == list(range(epochs))
    state = database.states([key])[key]
    assert (state.state, state.epochs, state.attempts) == ("done", epochs, 7)


# Questions


def test_progress_tells_last_best_and_mean(database: Database) -> None:
    keys = save(database, 3, epochs=5)
    attempt = start(database, keys[1])
    for epoch, error in enumerate((40.0, 20.0, 30.0)):
        database.record_epoch(attempt, result(epoch, error=error, train_seconds=epoch, eval_seconds=0.9), "exclusive")
    idle, running, _ = database.progress("table1")
    assert (idle.trial_name, idle.key, idle.state, idle.epochs_done) == ("resnet18/seed0", keys[0], "pending", 0)
    assert (idle.last_top1_error, idle.best_top1_error, idle.seconds_per_epoch) == (None, None, None)
    assert (idle.started, idle.host, idle.device) == (None, None, None)
    assert (running.state, running.epochs_done, running.epochs_total) == ("running", 3, 5)
    assert (running.last_top1_error, running.best_top1_error, running.seconds_per_epoch) == (30.0, 20.0, 2.0)
    assert (running.host, running.device, running.error_class) == ("node1", "cuda:0 (H200)", None)
    assert running.started == database.attempts(keys[1])[0].started
    assert running.config["seed"] == 1


def test_progress_reads_the_first_networks_main_test_classifier(database: Database) -> None:
    (key,) = save(database)
    attempt = start(database, key)
    metrics = {error: Metrics(error, 1.0, 1.0, 1.0, 1.0) for error in (1.0, 2.0, 3.0, 50.0)}
    evaluations = [
        Evaluated(1, "main", metrics[1.0], images=1),
        Evaluated(0, "head1", metrics[2.0], images=1),
        Evaluated(0, "main", metrics[3.0], images=1, split="validation"),
        Evaluated(0, "main", metrics[50.0], images=1),
    ]
    database.record_epoch(attempt, result(0, evaluations=evaluations), "exclusive")
    database.record_epoch(attempt, result(1, evaluations=[]), "exclusive")
    (row,) = database.progress("table1")
    assert (row.epochs_done, row.last_top1_error, row.best_top1_error) == (2, 50.0, 50.0)


def test_progress_follows_what_changes(database: Database) -> None:
    """The answer for finished trials is remembered; for all others it must not be."""
    keys = save(database, 2)
    save(database, 1, grid="table3")
    attempts = [start(database, key) for key in keys]
    for epoch in range(3):
        for attempt in attempts:
            database.record_epoch(attempt, result(epoch), "exclusive")
        assert [row.epochs_done for row in database.progress("table1")] == [epoch + 1] * 2
        if epoch == 1:
            database.finish_attempt(attempts.pop(0), "done", trial_state="done")
            attempts.append(start(database, keys[0], purpose="time"))
            assert [row.epochs_done for row in database.progress("table1")] == [2, 2]
            break
    database.record_epoch(attempts[0], result(2), "exclusive")
    assert [row.epochs_done for row in database.progress("table1")] == [2, 3]
    everything = database.progress()
    assert [(row.trial_name, row.epochs_done) for row in everything] == [
        ("resnet18/seed0", 2),
        ("resnet18/seed1", 3),
        ("resnet18/seed0", 2),
    ]
    assert database.progress("unknown") == []


def test_what_training_and_canaries_measured(database: Database) -> None:
    keys = save(database, 4)
    first = start(database, keys[0])
    database.record_epoch(first, result(0, train_seconds=7.0), "exclusive")
    database.record_epoch(first, result(1, train_seconds=90.0), "exclusive")
    second = start(database, keys[0], device="cpu")
    database.record_epoch(second, result(1, train_seconds=9.0, peak_memory_bytes=2**34), "packed")
    timing = start(database, keys[1], purpose="time")
    database.record_epoch(timing, result(0), "exclusive")
    facts = {"seconds_per_epoch": 3.5, "peak_memory_bytes": None, "checkpoint_bytes": 900}
    for seconds in (5.0, 3.5):
        canary = start(
            database, keys[2], purpose="canary", environment={"canary": {**facts, "seconds_per_epoch": seconds}}
        )
        database.finish_attempt(canary, "done")
    failed = start(database, keys[3], purpose="canary", environment={})
    database.finish_attempt(failed, "failed", failure=Failure("code", "x", "f"))

    trained, canary = database.measured()
    assert (trained.key, trained.purpose, trained.device, trained.peak_memory_bytes) == (keys[0], "train", "cpu", 2**34)
    assert trained.seconds_per_epoch == pytest.approx(8.0 + 0.6)
    assert (trained.config, trained.checkpoint_bytes) == (trials_of(1)[0][1], None)
    assert (canary.key, canary.purpose, canary.seconds_per_epoch) == (keys[2], "canary", 3.5)
    assert (canary.peak_memory_bytes, canary.checkpoint_bytes) == (None, 900)
    assert database.measured(["canary"]) == [canary]
    assert [state.state for state in database.states(keys).values()] == ["running", "pending", "pending", "pending"]


def test_failures_are_grouped_by_cause(database: Database) -> None:
    keys = save(database, 6)
    save(database, 1, grid="table3")

    def fail(key: str, text: str, fingerprint: str | None, log: str) -> None:
        attempt = start(database, key, log=log)
        database.finish_attempt(attempt, "failed", failure=Failure("code", text, fingerprint), trial_state="failed")

    fail(keys[0], "old", "gone", "/old.log")
    database.retry([keys[0]])
    fail(keys[1], "no such op\nline 1", "aa", "/1.log")
    fail(keys[0], "no such op\nline 2", "aa", "/0.log")
    fail(keys[2], "disk", None, "/2.log")
    fail(keys[3], "disk\nmore", None, "/3.log")
    fail(keys[4], "other", None, "/4.log")
    database.finish_attempt(
        start(database, keys[5]), "failed", failure=Failure("code", "free", "f"), trial_state="pending"
    )

    rows = database.failures("table1")
    assert [(row.fingerprint, row.error, row.count) for row in rows] == [
        ("aa", "no such op", 2),
        (None, "disk", 2),
        (None, "other", 1),
    ]
    first = rows[0]
    assert first.trial_names == ("resnet18/seed0", "resnet18/seed1") and first.keys == tuple(keys[:2])
    assert (first.key, first.host, first.log) == (keys[0], "node1", "/0.log")
    assert (first.log, first.error_text, first.error_class) == ("/0.log", "no such op\nline 2", "code")
    assert [row.count for row in database.failures()] == [2, 2, 1]
    assert [row.keys for row in database.failures("table3")] == [(keys[0],)]


# Reading only


def test_a_reader_reads_and_never_writes(database: Database, location: str) -> None:
    (key,) = save(database)
    attempt = start(database, key)
    with open_database(location, readonly=True) as reader:
        database.record_epoch(attempt, result(0), "exclusive")
        assert reader.progress("table1")[0].epochs_done == 1
        assert reader.grids() == database.grids()
        for write in (
            lambda: reader.save_grid("x", "", "", {}, []),
            lambda: reader.claim([key], DRIVERS[0]),
            lambda: reader.record_epoch(attempt, result(1), "exclusive"),
            lambda: reader.finish_attempt(attempt, "done", trial_state="done"),
        ):
            with pytest.raises(DatabaseError, match="opened for reading"):
                write()
        with pytest.raises(Exception, match=r"(?i)read-?only"), reader.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE trials SET state = 'done'")
    assert database.states([key])[key].state == "running"


def test_a_reader_in_the_middle_of_reading_does_not_stop_the_driver(database: Database, location: str) -> None:
    (key,) = save(database)
    attempt = start(database, key)
    with open_database(location, readonly=True) as reader, reader.engine.connect() as connection:
        rows = connection.execute(select(Epoch.id))
        for epoch in range(3):
            database.record_epoch(attempt, result(epoch), "exclusive")
        database.finish_attempt(attempt, "done", trial_state="done")
        rows.all()
    assert database.states([key])[key].state == "done"
