"""Writes of attempts and epochs; each function that takes a connection is one transaction's work."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    ColumnClause,
    Connection,
    and_,
    bindparam,
    func,
    insert,
    literal_column,
    select,
    update,
)

from orchestrator.database import outcomes
from orchestrator.database.claims import taker
from orchestrator.database.errors import Busy, DatabaseError
from orchestrator.database.models import Attempt, Epoch, Evaluation, MetricValue, Trial
from orchestrator.database.values import clean, new_id, now, storable

if TYPE_CHECKING:
    from orchestrator.failures import Failure
    from orchestrator.records import AttemptFacts
    from trainer.results import EpochResult

PURPOSES = ("train", "time", "canary")
OUTCOMES = ("done", "failed", "interrupted")
STATES = ("done", "failed", "pending")

trials, attempts, epochs, evaluations = (model.__table__ for model in (Trial, Attempt, Epoch, Evaluation))
_one: ColumnClause[Any] = literal_column("1")

# Finds an epoch's trial, and whether the epoch is stored already, in one query over four indexes.
_own, _accepted = epochs.alias("own"), epochs.alias("accepted")
_PLACE = (
    select(
        attempts.c.trial_id,
        attempts.c.number,
        attempts.c.purpose,
        attempts.c.outcome,
        attempts.c.parameters,
        trials.c.key,
        _own.c.id.label("own_id"),
        _accepted.c.id.label("accepted_id"),
    )
    .join_from(attempts, trials, trials.c.id == attempts.c.trial_id)
    .outerjoin(_own, and_(_own.c.attempt_id == attempts.c.id, _own.c.epoch == bindparam("epoch")))
    .outerjoin(
        _accepted,
        and_(
            _accepted.c.trial_id == attempts.c.trial_id,
            _accepted.c.epoch == bindparam("epoch"),
            _accepted.c.accepted == _one,
        ),
    )
    .where(attempts.c.id == bindparam("attempt"))
)
_SUPERSEDE = (
    update(epochs)
    .where(
        epochs.c.trial_id == bindparam("trial"),
        epochs.c.accepted == _one,
        epochs.c.epoch >= bindparam("first"),
        epochs.c.attempt_id < bindparam("attempt"),
    )
    .values(accepted=None)
)
_INSERT_EPOCH = insert(epochs)
_INSERT_EVALUATION = insert(evaluations)
_INSERT_METRIC_VALUE = insert(MetricValue.__table__)
_SET_PARAMETERS = update(attempts).where(attempts.c.id == bindparam("attempt")).values(parameters=bindparam("count"))


def attempt_row(facts: AttemptFacts, purpose: str, driver: int | None, at: datetime | None) -> dict[str, Any]:
    """Return the columns of a new attempt, cut to the columns' lengths."""
    if purpose not in PURPOSES:
        raise ValueError(f"purpose {purpose!r} is none of {', '.join(PURPOSES)}")
    fitting = {
        name: None if value is None else clean(value, getattr(attempts.c[name].type, "length", None))
        for name in ("host", "device", "device_uuid", "log")
        for value in (getattr(facts, name),)
    }
    return {
        "purpose": purpose,
        "pid": facts.pid,
        "environment": storable(dict(facts.environment)),
        "driver": driver,
        "started": at or now(),
        **fitting,
    }


def start(connection: Connection, where: str, key: str, row: Mapping[str, Any]) -> int:
    """Insert an attempt; a training attempt makes its trial running."""
    columns = (trials.c.id, trials.c.state, trials.c.driver)
    trial = connection.execute(select(*columns).where(trials.c.key == key).with_for_update()).first()
    if trial is None:
        raise DatabaseError(f"{where} has no trial with the key {key}; save its grid first")
    if row["purpose"] == "train":
        if trial.state not in ("pending", "running"):
            raise DatabaseError(f"{where}: trial {key} is {trial.state} and is not trained again")
        if trial.driver not in (None, row["driver"]):
            raise Busy(where, taker(connection, trial.driver))
        connection.execute(
            update(attempts)
            .where(attempts.c.trial_id == trial.id, attempts.c.purpose == "train", attempts.c.outcome.is_(None))
            .values(outcome="lost", ended=row["started"])
        )
        change = {"state": "running", "driver": row["driver"]}
        connection.execute(update(trials).where(trials.c.id == trial.id).values(**change))
    last = connection.scalar(select(func.max(attempts.c.number)).where(attempts.c.trial_id == trial.id))
    inserted = connection.execute(insert(attempts).values(trial_id=trial.id, number=(last or 0) + 1, **row))
    return new_id(inserted)


def change_environment(connection: Connection, where: str, attempt_id: int, changes: Mapping[str, Any]) -> None:
    """Update values of an attempt's environment."""
    attempt = connection.execute(
        select(attempts.c.environment).where(attempts.c.id == attempt_id).with_for_update()
    ).first()
    if attempt is None:
        raise DatabaseError(f"{where} has no attempt {attempt_id}")
    environment = storable({**(attempt.environment or {}), **changes})
    connection.execute(update(attempts).where(attempts.c.id == attempt_id).values(environment=environment))


def epoch_rows(
    where: str, attempt_id: int, result: EpochResult, timing_quality: str, at: datetime | None = None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the columns of an epoch and of its evaluations, without the ids of their parents."""
    rows = []
    for evaluation in result.evaluations:
        metrics = evaluation.metrics
        row = {
            "network": evaluation.network,
            "classifier": evaluation.classifier,
            "split": evaluation.split,
            "images": evaluation.images,
            "top1_error": metrics.top1_error,
            "top5_error": metrics.top5_error,
            "nll": metrics.nll,
            "ece": metrics.ece,
            "aurc": metrics.aurc,
            "ood_auroc": evaluation.ood_auroc,
        }
        for name, value in (row | evaluation.own_metrics).items():
            if value != value:
                raise DatabaseError(
                    f"{where}: epoch {result.epoch + 1} of attempt {attempt_id} is not recorded, because {name} of "
                    f"{evaluation.classifier} on {evaluation.split} is NaN; the training has diverged"
                )
        rows.append(row)
    epoch = {
        "attempt_id": attempt_id,
        "epoch": result.epoch,
        "learning_rate": result.learning_rate,
        "train_seconds": result.train_seconds,
        "eval_seconds": result.eval_seconds,
        "data_seconds": result.data_seconds,
        "images": result.images,
        "losses": {name: value if math.isfinite(value) else None for name, value in result.losses.items()},
        "peak_memory_bytes": result.peak_memory_bytes,
        "timing_quality": "unknown" if result.restored else timing_quality,
        "recorded": at or now(),
    }
    return epoch, rows


def record(
    connection: Connection,
    where: str,
    epoch: Mapping[str, Any],
    evaluation_rows: Iterable[Mapping[str, Any]],
    result: EpochResult,
) -> None:
    """Insert an epoch unless it is stored already, and update which rows of its trial are accepted."""
    attempt_id = epoch["attempt_id"]
    place = connection.execute(_PLACE, {"attempt": attempt_id, "epoch": result.epoch}).first()
    if place is None:
        raise DatabaseError(f"{where} has no attempt {attempt_id}")
    trains = place.purpose == "train"
    if place.own_id is not None or (trains and result.restored and place.accepted_id is not None):
        return
    if place.outcome is not None:
        raise DatabaseError(
            f"{where}: attempt {place.number} of trial {place.key} has ended ({place.outcome}); "
            f"its epoch {result.epoch + 1} is not recorded"
        )
    if trains and not result.restored and place.number > 1:
        connection.execute(_SUPERSEDE, {"trial": place.trial_id, "first": result.epoch, "attempt": attempt_id})
    inserted = connection.execute(
        _INSERT_EPOCH, {**epoch, "trial_id": place.trial_id, "accepted": 1 if trains else None}
    )
    epoch_id = new_id(inserted)
    rows = [{**row, "epoch_id": epoch_id} for row in evaluation_rows]
    if rows:
        connection.execute(_INSERT_EVALUATION, rows)
    # Most trainings have none.
    if measured := {
        (each.network, each.classifier, each.split): each.own_metrics for each in result.evaluations if each.own_metrics
    }:
        record_own_metrics(connection, epoch_id, measured)
    if trains:
        outcomes.record(connection, where, place.trial_id, epoch_id, result)
    if result.parameters and place.parameters != result.parameters:
        connection.execute(_SET_PARAMETERS, {"attempt": attempt_id, "count": result.parameters})


def record_own_metrics(
    connection: Connection, epoch_id: int, measured: Mapping[tuple[int, str, str], Mapping[str, float]]
) -> None:
    """Insert the values of users' own metrics after an epoch, by network, classifier and split."""
    place = (evaluations.c.network, evaluations.c.classifier, evaluations.c.split)
    rows = connection.execute(select(evaluations.c.id, *place).where(evaluations.c.epoch_id == epoch_id))
    ids = {tuple(rest): evaluation_id for evaluation_id, *rest in rows}
    connection.execute(
        _INSERT_METRIC_VALUE,
        [
            {"evaluation_id": ids[where], "metric": name, "value": value}
            for where, values in measured.items()
            for name, value in values.items()
        ],
    )


def attempt_end(
    outcome: str, failure: Failure | None, trial_state: str | None, at: datetime | None = None
) -> dict[str, Any]:
    """Return the columns that end an attempt."""
    if outcome not in OUTCOMES:
        raise ValueError(f"outcome {outcome!r} is none of {', '.join(OUTCOMES)}")
    if trial_state is not None and trial_state not in STATES:
        raise ValueError(f"trial state {trial_state!r} is none of {', '.join(STATES)}")
    if (outcome == "done") != (trial_state == "done") and trial_state is not None:
        raise ValueError(f"an attempt that is {outcome} does not leave its trial {trial_state}")
    end = {"outcome": outcome, "ended": at or now()}
    if failure is not None:
        end |= {
            "error_class": failure.error_class,
            "error_text": clean(failure.text),
            "fingerprint": failure.fingerprint,
        }
    return end


def finish(
    connection: Connection, where: str, attempt_id: int, end: Mapping[str, Any], trial_state: str | None
) -> None:
    """End an open attempt, and set its trial's state."""
    attempt = connection.execute(
        select(attempts.c.trial_id, attempts.c.purpose, attempts.c.outcome).where(attempts.c.id == attempt_id)
    ).first()
    if attempt is None:
        raise DatabaseError(f"{where} has no attempt {attempt_id}")
    if attempt.outcome is not None:
        return
    connection.execute(update(attempts).where(attempts.c.id == attempt_id).values(**end))
    if attempt.purpose != "train":
        return
    if trial_state == "done":
        outcomes.store_numbers(connection, attempt.trial_id)
    if trial_state is None:
        raise ValueError("a training attempt leaves its trial done, failed or pending")
    change: dict[str, Any] = {"state": trial_state}
    if trial_state != "pending":
        change |= {"finished": end["ended"], "driver": None}
    connection.execute(update(trials).where(trials.c.id == attempt.trial_id, trials.c.state != "done").values(**change))
