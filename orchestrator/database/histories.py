"""Read-only queries of the page: all attempts at the trials of grids, and everything measured along their epochs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, select

from orchestrator.database.models import Attempt, Epoch, Evaluation, MetricValue
from orchestrator.database.queries import METRICS, thinned, trials_of


def attempts(connection: Connection, grid_ids: Sequence[int]) -> Sequence[Row[Any]]:
    """Return every attempt at trials of the grids, by trial and number.

    Rows (trial_id, number, purpose, host, device, started, ended, outcome, error_class, error_text, log, commit, dirty,
    engine).
    """
    names = ["trial_id", "number", "purpose", "host", "device", "started", "ended"]
    names += ["outcome", "error_class", "error_text", "log"]
    environment = Attempt.environment
    columns: list[Any] = [getattr(Attempt, name) for name in names]
    columns += [environment[name].as_string().label(name) for name in ("commit", "engine")]
    columns.append(environment["dirty"].as_boolean().label("dirty"))
    return connection.execute(
        select(*columns).where(Attempt.trial_id.in_(trials_of(grid_ids))).order_by(Attempt.trial_id, Attempt.number)
    ).all()


def epochs(connection: Connection, last_epochs: Mapping[int, int], every: int) -> Iterator[Row[Any]]:
    """Return accepted epochs of trials, given the last one of each, with their evaluations, by trial and epoch.

    Of a trial these are its last epoch and, counting back from there, one epoch in `every`. Rows (trial_id, epoch,
    seconds, learning_rate, losses, network, split, then `METRICS`): a row per network and split of the main classifier,
    with None for both where an epoch was not evaluated. `seconds` are those from the trial's start to the epoch's end,
    pauses left out.
    """
    for few in thinned(last_epochs, every):
        columns: list[Any] = [few.c[name] for name in ("trial_id", "epoch", "seconds")]
        columns += [Epoch.learning_rate, Epoch.losses]
        columns += [Evaluation.network, Evaluation.split, *(getattr(Evaluation, name) for name in METRICS)]
        yield from connection.execute(
            select(*columns)
            .select_from(few)
            .join(Epoch, Epoch.id == few.c.id)
            .outerjoin(Evaluation, and_(Evaluation.epoch_id == few.c.id, Evaluation.classifier == "main"))
            .order_by(few.c.trial_id, few.c.epoch, Evaluation.network, Evaluation.split)
        )


def own_metrics(connection: Connection, last_epochs: Mapping[int, int], every: int) -> Iterator[Row[Any]]:
    """Return rows (trial_id, epoch, network, split, metric, value) of users' own metrics, of the epochs of `epochs`."""
    for few in thinned(last_epochs, every):
        yield from connection.execute(
            select(
                *(few.c.trial_id, few.c.epoch, Evaluation.network, Evaluation.split),
                *(MetricValue.metric, MetricValue.value),
            )
            .select_from(few)
            .join(Evaluation, and_(Evaluation.epoch_id == few.c.id, Evaluation.classifier == "main"))
            .join(MetricValue, MetricValue.evaluation_id == Evaluation.id)
            .order_by(few.c.trial_id, few.c.epoch, Evaluation.network, Evaluation.split, MetricValue.metric)
        )
