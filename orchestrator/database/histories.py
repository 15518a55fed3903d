"""Read-only queries of the page: all attempts at the trials of grids, and everything measured along their epochs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Subquery, and_, func, select, text

from orchestrator.database.models import ACCEPTED, Attempt, Epoch, Evaluation, MetricValue
from orchestrator.database.queries import METRICS, trials_of


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


def epochs(connection: Connection, grid_ids: Sequence[int], every: int) -> Iterator[Row[Any]]:
    """Return the accepted epochs of the grids' trials with their evaluations, by trial and epoch.

    Of a trial these are its last epoch and, counting back from there, one epoch in `every`. Rows (trial_id, epoch,
    seconds, learning_rate, losses, network, split, then `METRICS`): a row per network and split of the main classifier,
    with None for both where an epoch was not evaluated. `seconds` are those from the trial's start to the epoch's end,
    pauses left out.
    """
    thinned = _thinned(grid_ids)
    columns: list[Any] = [thinned.c[name] for name in ("trial_id", "epoch", "seconds")]
    columns += [Epoch.learning_rate, Epoch.losses]
    columns += [Evaluation.network, Evaluation.split, *(getattr(Evaluation, name) for name in METRICS)]
    yield from connection.execute(
        select(*columns)
        .select_from(thinned)
        .join(Epoch, Epoch.id == thinned.c.id)
        .outerjoin(Evaluation, and_(Evaluation.epoch_id == thinned.c.id, Evaluation.classifier == "main"))
        .where((thinned.c.last - thinned.c.epoch) % every == 0)
        .order_by(thinned.c.trial_id, thinned.c.epoch, Evaluation.network, Evaluation.split)
    )


def own_metrics(connection: Connection, grid_ids: Sequence[int], every: int) -> Iterator[Row[Any]]:
    """Return rows (trial_id, epoch, network, split, metric, value) of users' own metrics, of the epochs of `epochs`."""
    thinned = _thinned(grid_ids)
    yield from connection.execute(
        select(
            *(thinned.c.trial_id, thinned.c.epoch, Evaluation.network, Evaluation.split),
            *(MetricValue.metric, MetricValue.value),
        )
        .select_from(thinned)
        .join(Evaluation, and_(Evaluation.epoch_id == thinned.c.id, Evaluation.classifier == "main"))
        .join(MetricValue, MetricValue.evaluation_id == Evaluation.id)
        .where((thinned.c.last - thinned.c.epoch) % every == 0)
        .order_by(thinned.c.trial_id, thinned.c.epoch, Evaluation.network, Evaluation.split, MetricValue.metric)
    )


def _thinned(grid_ids: Sequence[int]) -> Subquery:
    """Return the accepted epochs with the seconds until their end, and with the `last` epoch of their trial."""
    return (
        select(
            *(Epoch.id, Epoch.trial_id, Epoch.epoch),
            func.sum(Epoch.seconds).over(partition_by=Epoch.trial_id, order_by=Epoch.epoch).label("seconds"),
            func.max(Epoch.epoch).over(partition_by=Epoch.trial_id).label("last"),
        )
        .where(text(f"epochs.{ACCEPTED}"), Epoch.trial_id.in_(trials_of(grid_ids)))
        .subquery()
    )
