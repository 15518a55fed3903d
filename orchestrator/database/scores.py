"""Read how good trials are: on the validation images, by which a tuning decides, and on the test images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from sqlalchemy import Connection, and_, func, select

from orchestrator.database import queries
from orchestrator.database.models import (
    ACCEPTED_EPOCHS,
    Attempt,
    Epoch,
    Evaluation,
    Grid,
    GridTrial,
    MetricValue,
    Trial,
)
from orchestrator.database.values import in_parts
from orchestrator.records import DrawRow, averaged_epochs, draw_of

# Columns of evaluations by the name of their metric; the others have the metric's own name.
_ERRORS = {"top1": "top1_error", "top5": "top5_error"}
_COLUMNS = {**_ERRORS, "accuracy": "top1_error", "auroc": "ood_auroc"}


def validation_scores(connection: Connection, wanted: Sequence[str], metric: str, selection: str) -> dict[str, float]:
    """Return the metric of trials that are done, by key, on the validation split at the epochs that a rule selects.

    It is that of the first network's main classifier; `selection` is best_val (the first epoch with the lowest top-1
    error), last, or mean_last_K. A trial without such a value, or with one that is no finite number, is left out.
    """
    column = _ERRORS.get(metric, metric)
    own = column not in Evaluation.__table__.columns
    value: Any = MetricValue.value if own else getattr(Evaluation, column)
    query = (
        select(Trial.key, Evaluation.top1_error, value)
        .join(Epoch, Epoch.trial_id == Trial.id)
        .join(Evaluation, Evaluation.epoch_id == Epoch.id)
        .where(
            Trial.state == "done",
            ACCEPTED_EPOCHS,
            Evaluation.network == 0,
            Evaluation.classifier == "main",
            Evaluation.split == "validation",
        )
        .order_by(Trial.id, Epoch.epoch)
    )
    if own:
        measured = and_(MetricValue.evaluation_id == Evaluation.id, MetricValue.metric == metric)
        query = query.outerjoin(MetricValue, measured)
    rows: dict[str, list[tuple[float, float | None]]] = {}
    for part in in_parts(wanted):
        for key, top1, measured_value in connection.execute(query.where(Trial.key.in_(part))):
            rows.setdefault(key, []).append((top1, measured_value))
    scores = {key: _selected(epochs, selection) for key, epochs in rows.items()}
    return {key: score for key, score in scores.items() if score is not None and math.isfinite(score)}


def draws(connection: Connection, grid: str, metric: str, selection: str) -> dict[str, dict[int, DrawRow]]:
    """Return the draws of a grid by row and number, with their scores as in `validation_scores`."""
    rows = connection.execute(
        select(GridTrial.name, Trial.key, Trial.state, Trial.config)
        .join(Trial, Trial.id == GridTrial.trial_id)
        .join(Grid, Grid.id == GridTrial.grid_id)
        .where(Grid.name == grid)
        .order_by(GridTrial.position)
    ).all()
    drawn = [(draw, *row) for row in rows if (draw := draw_of(row.name)) is not None]
    keys = [key for _, _, key, _, _ in drawn]
    scores = validation_scores(connection, keys, metric, selection)
    failures: dict[str, str | None] = {}
    for part in in_parts(keys):
        failed = (
            select(Trial.key, Attempt.error_class)
            .join(Attempt, Attempt.trial_id == Trial.id)
            .where(Trial.key.in_(part), Trial.state == "failed")
            .where(Attempt.purpose == "train", Attempt.outcome == "failed")
        )
        failures.update({key: error_class for key, error_class in connection.execute(failed.order_by(Attempt.id))})
    answer: dict[str, dict[int, DrawRow]] = {}
    for (row, number), name, key, state, config in drawn:
        one = DrawRow(key, name, state, config["seed"], scores.get(key), failures.get(key))
        answer.setdefault(row, {})[number] = one
    return answer


def _selected(epochs: Sequence[tuple[float, float | None]], selection: str) -> float | None:
    """Return the value at the selected ones of a trial's epochs (top-1 error and value); None where one is missing."""
    if selection == "best_val":
        picked = [min(epochs, key=lambda epoch: epoch[0])]
    else:
        count = averaged_epochs(selection) or 1
        picked = list(epochs[-count:]) if len(epochs) >= count else []
    values = [value for _, value in picked if value is not None]
    return fmean(values) if values and len(values) == len(picked) else None


def scores_on_test(
    connection: Connection, wanted: Sequence[str], metric: str, selection: str
) -> dict[str, tuple[float, int]]:
    """Return the metric of trials that are done, by key, as tables have it, and the number of test images.

    It is that of the first network's main classifier on the test split at the epochs that a rule selects: best_test or
    best_val (the first epoch with the lowest top-1 error there), last, or mean_last_K. A trial without a finite value
    is left out.
    """
    ids: dict[int, str] = {}
    for part in in_parts(wanted):
        ids |= connection.execute(select(Trial.id, Trial.key).where(Trial.key.in_(part), Trial.state == "done")).all()
    count = averaged_epochs(selection) or 1
    if selection in ("best_test", "best_val"):
        ends = queries.best_epochs(connection, ids, "test" if selection == "best_test" else "validation")
    else:
        newest = select(Epoch.trial_id, func.max(Epoch.epoch)).where(ACCEPTED_EPOCHS)
        ends = {}
        for trials in in_parts(ids):
            rows = connection.execute(newest.where(Epoch.trial_id.in_(trials)).group_by(Epoch.trial_id))
            ends |= {trial: last for trial, last in rows if last + 1 >= count}
    picks = [queries.Pick(trial, 0, end - count + 1, end) for trial, end in ends.items()]
    column = _COLUMNS.get(metric, metric)
    if column in queries.METRICS:
        values = {
            row.trial_id: (getattr(row, column), row.images)
            for row in queries.measurements(connection, picks)
            if row.classifier == "main" and row.epochs == count
        }
    else:
        values = {
            row.trial_id: (row.value, 0)
            for row in queries.own_measurements(connection, picks)
            if row.classifier == "main" and row.metric == metric and row.epochs == count
        }
    return {
        ids[trial]: (100 - value if metric == "accuracy" else value, images)
        for trial, (value, images) in values.items()
        if value is not None and math.isfinite(value)
    }
