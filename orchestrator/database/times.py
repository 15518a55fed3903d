"""Read-only queries of how long epochs took."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, func, select

from orchestrator.database.models import ACCEPTED_EPOCHS, Attempt, Epoch, Trial
from orchestrator.database.queries import per_trial, relations, trials_of
from orchestrator.database.values import in_parts


def clocks(connection: Connection, until: Mapping[int, int]) -> Iterator[Row[Any]]:
    """Return per trial the time of its accepted epochs, given the epoch `until` which the time counts.

    Rows (trial_id, seconds, shared, exclusive): the seconds to the end of that epoch; how many of those epochs were not
    timed exclusively; and the mean seconds of the exclusive epochs after the first (which warms up), None without any.
    """
    for picked in relations(until.items(), ("trial_id", "until")):

        def over(what: Any, *where: Any, picked: Any = picked) -> Any:
            """Return one number over a trial's accepted epochs: by index, without sorting a million rows."""
            accepted = select(what).where(Epoch.trial_id == picked.c.trial_id, ACCEPTED_EPOCHS, *where)
            return accepted.correlate(picked).scalar_subquery()

        counted, exclusive = Epoch.epoch <= picked.c.until, Epoch.timing_quality == "exclusive"
        yield from connection.execute(
            select(
                picked.c.trial_id,
                over(func.sum(Epoch.seconds), counted).label("seconds"),
                over(func.count(), counted, ~exclusive).label("shared"),
                over(func.avg(Epoch.seconds), exclusive, Epoch.epoch > 0).label("exclusive"),
            )
        )


def mean_seconds(connection: Connection, trial_ids: Iterable[int]) -> dict[int, float]:
    """Return per trial the mean seconds of its accepted epochs, of any timing quality."""
    mean = (
        select(func.avg(Epoch.seconds))
        .where(Epoch.trial_id == Trial.id, ACCEPTED_EPOCHS)
        .correlate(Trial)
        .scalar_subquery()
    )
    means: dict[int, float] = {}
    for part in in_parts(trial_ids):
        means |= per_trial(connection, mean, Trial.id.in_(part))
    return means


def timing_passes(connection: Connection, grid_ids: Sequence[int]) -> Sequence[Row[int, float, str]]:
    """Return rows (trial_id, seconds, timing_quality) of every epoch of each trial's newest finished timing pass."""
    newest = (
        select(Attempt.trial_id, func.max(Attempt.number).label("number"))
        .where(Attempt.purpose == "time", Attempt.outcome == "done", Attempt.trial_id.in_(trials_of(grid_ids)))
        .group_by(Attempt.trial_id)
        .subquery()
    )
    return connection.execute(
        select(Epoch.trial_id, Epoch.seconds.label("seconds"), Epoch.timing_quality)
        .join(Attempt, Attempt.id == Epoch.attempt_id)
        .join(newest, and_(newest.c.trial_id == Attempt.trial_id, newest.c.number == Attempt.number))
        .order_by(Epoch.trial_id, Epoch.epoch)
    ).all()
