"""Read-only questions that reports ask; selection and sums happen in SQL, so that a million epochs are no obstacle."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    Connection,
    Integer,
    Row,
    Select,
    and_,
    case,
    cast,
    column,
    distinct,
    func,
    literal_column,
    or_,
    select,
    text,
    values,
)

from orchestrator.database.models import ACCEPTED, MAIN_TEST, Attempt, Epoch, Evaluation, Grid, GridTrial, Trial

METRICS = ("top1_error", "top5_error", "nll", "ece", "aurc", "ood_auroc")
EVERY_NETWORK = -1
# SQLite takes 32,766 parameters in a statement; a pick needs four.
_CHUNK = 8000
# More epochs than any training has, so that (error, epoch) fit into one integer; errors count in 1e-10 percent.
_EPOCHS, _ERROR_STEPS = 1_000_000, 1e10

_SECONDS = Epoch.train_seconds + Epoch.eval_seconds + Epoch.data_seconds
# The condition of the partial index, literally: SQLite does not match a bound parameter.
_ACCEPTED = text(f"epochs.{ACCEPTED}")


class Pick(NamedTuple):
    """The accepted epochs `first` to `last` of a trial, for one network or for `EVERY_NETWORK`."""

    trial_id: int
    network: int
    first: int
    last: int


def grids(connection: Connection) -> Sequence[Row[Any]]:
    """Rows (id, name, report), oldest first."""
    return connection.execute(select(Grid.id, Grid.name, Grid.report).order_by(Grid.id)).all()


def members(connection: Connection, grid_ids: Sequence[int]) -> Sequence[Row[Any]]:
    """Rows (grid_id, trial_id, name) in the grids' own order."""
    chosen = select(GridTrial.grid_id, GridTrial.trial_id, GridTrial.name)
    return connection.execute(
        chosen.where(GridTrial.grid_id.in_(grid_ids)).order_by(GridTrial.grid_id, GridTrial.position)
    ).all()


def trials(connection: Connection, grid_ids: Sequence[int]) -> Sequence[Row[Any]]:
    """Rows (id, key, config, state) of every trial of the grids, once each."""
    return connection.execute(
        select(Trial.id, Trial.key, Trial.config, Trial.state).where(Trial.id.in_(_trials_of(grid_ids)))
    ).all()


def last_attempts(connection: Connection, grid_ids: Sequence[int]) -> dict[int, Row[Any]]:
    """Per trial, (trial_id, error_class, parameters) of its newest training attempt."""
    rows = connection.execute(
        select(Attempt.trial_id, Attempt.error_class, Attempt.parameters)
        .where(Attempt.purpose == "train", Attempt.trial_id.in_(_trials_of(grid_ids)))
        .order_by(Attempt.trial_id, Attempt.number)
    )
    return {row.trial_id: row for row in rows}


def last_epochs(connection: Connection, grid_ids: Sequence[int] | None) -> dict[int, int]:
    """Per trial, its newest accepted epoch; of every trial when `grid_ids` is None."""
    newest = select(Epoch.trial_id, func.max(Epoch.epoch)).where(_ACCEPTED).group_by(Epoch.trial_id)
    if grid_ids is not None:
        newest = newest.where(Epoch.trial_id.in_(_trials_of(grid_ids)))
    return dict(connection.execute(newest).tuples().all())


def best_epochs(
    connection: Connection,
    split: str,
    *,
    network: int = 0,
    grid_ids: Sequence[int] | None = None,
    trial_ids: Iterable[int] | None = None,
) -> dict[int, int]:
    """Per trial, the first epoch with the lowest top-1 error of one network's main classifier on a split.

    Of every trial when both `grid_ids` and `trial_ids` are None.
    """
    # The lowest error and, among equal ones, the first epoch are the minimum of one number: an aggregate in one
    # pass, where a window function would sort every epoch. NaN (PostgreSQL) fails the comparison.
    code = cast(func.round(Evaluation.top1_error * _ERROR_STEPS), BigInteger) * _EPOCHS + Epoch.epoch
    best = (
        select(Epoch.trial_id, func.min(code))
        .join_from(Evaluation, Epoch, Epoch.id == Evaluation.epoch_id)
        .where(_ACCEPTED, _main(network, split), Evaluation.top1_error <= 100)
        .group_by(Epoch.trial_id)
    )
    if grid_ids is not None:
        best = best.where(Epoch.trial_id.in_(_trials_of(grid_ids)))
    if trial_ids is None:
        return {trial: found % _EPOCHS for trial, found in connection.execute(best).tuples()}
    return {
        trial: found % _EPOCHS
        for some in _chunks(trial_ids)
        for trial, found in connection.execute(best.where(Epoch.trial_id.in_(some))).tuples()
    }


def measurements(connection: Connection, picks: Iterable[Pick]) -> Iterator[Row[Any]]:
    """Rows (trial_id, network, classifier, images, then `METRICS`) on the test split, averaged over the picked epochs.

    `epochs` counts how many were there.
    """
    metrics = [func.avg(getattr(Evaluation, name)).label(name) for name in METRICS]
    for some in _chunks(picks):
        picked = _relation("picks", some, Pick._fields)
        yield from connection.execute(
            select(
                Epoch.trial_id,
                Evaluation.network,
                Evaluation.classifier,
                func.min(Evaluation.images).label("images"),
                func.count(distinct(Epoch.epoch)).label("epochs"),
                *metrics,
            )
            .select_from(picked)
            .join(
                Epoch,
                and_(Epoch.trial_id == picked.c.trial_id, Epoch.epoch.between(picked.c.first, picked.c.last)),
            )
            .join(Evaluation, Evaluation.epoch_id == Epoch.id)
            .where(
                _ACCEPTED,
                Evaluation.split == "test",
                or_(picked.c.network == EVERY_NETWORK, picked.c.network == Evaluation.network),
            )
            .group_by(Epoch.trial_id, Evaluation.network, Evaluation.classifier)
        )


def clocks(connection: Connection, until: Mapping[int, int]) -> Iterator[Row[Any]]:
    """Per trial, what its accepted epochs took, given the epoch `until` which its time counts.

    Rows (trial_id, seconds, shared, exclusive_epochs, exclusive_seconds, epochs, epoch_seconds): the seconds up to
    and with that epoch and how many of its epochs were not timed exclusively; then the number and mean seconds of
    the exclusive epochs after the first (which warms up), and of all epochs.
    """
    for some in _chunks(until.items()):
        picked = _relation("picks", some, ("trial_id", "until"))
        counted = Epoch.epoch <= picked.c.until
        shared = Epoch.timing_quality != "exclusive"
        steady = and_(Epoch.timing_quality == "exclusive", Epoch.epoch > 0)
        yield from connection.execute(
            select(
                Epoch.trial_id,
                func.sum(case((counted, _SECONDS))).label("seconds"),
                func.count(case((and_(counted, shared), 1))).label("shared"),
                func.count(case((steady, 1))).label("exclusive_epochs"),
                func.avg(case((steady, _SECONDS))).label("exclusive_seconds"),
                func.count().label("epochs"),
                func.avg(_SECONDS).label("epoch_seconds"),
            )
            .select_from(picked)
            .join(Epoch, Epoch.trial_id == picked.c.trial_id)
            .where(_ACCEPTED)
            .group_by(Epoch.trial_id)
        )


def timing_passes(connection: Connection, grid_ids: Sequence[int]) -> Sequence[Row[Any]]:
    """Rows (trial_id, seconds, timing_quality) of every epoch of each trial's newest finished timing pass."""
    newest = (
        select(Attempt.trial_id, func.max(Attempt.number).label("number"))
        .where(Attempt.purpose == "time", Attempt.outcome == "done", Attempt.trial_id.in_(_trials_of(grid_ids)))
        .group_by(Attempt.trial_id)
        .subquery()
    )
    return connection.execute(
        select(Epoch.trial_id, _SECONDS.label("seconds"), Epoch.timing_quality)
        .join(Attempt, Attempt.id == Epoch.attempt_id)
        .join(newest, and_(newest.c.trial_id == Attempt.trial_id, newest.c.number == Attempt.number))
        .order_by(Epoch.trial_id, Epoch.epoch)
    ).all()


def losses(connection: Connection, epochs: Iterable[tuple[int, int]]) -> Iterator[Row[Any]]:
    """Rows (trial_id, epoch, losses) for the given accepted (trial, epoch) pairs."""
    for some in _chunks(epochs):
        picked = _relation("picks", some, ("trial_id", "epoch"))
        yield from connection.execute(
            select(Epoch.trial_id, Epoch.epoch, Epoch.losses)
            .select_from(picked)
            .join(Epoch, and_(Epoch.trial_id == picked.c.trial_id, Epoch.epoch == picked.c.epoch))
            .where(_ACCEPTED)
        )


def curves(connection: Connection, trial_ids: Iterable[int]) -> Iterator[Row[Any]]:
    """Rows (trial_id, epoch, top1_error) of the first network's main classifier on the test split, in order."""
    for some in _chunks(trial_ids):
        yield from connection.execute(
            select(Epoch.trial_id, Epoch.epoch, Evaluation.top1_error)
            .join(Evaluation, Evaluation.epoch_id == Epoch.id)
            .where(_ACCEPTED, _main(0, "test"), Epoch.trial_id.in_(some))
            .order_by(Epoch.trial_id, Epoch.epoch)
        )


def attempts(connection: Connection, keys: Iterable[str]) -> Sequence[Row[Any]]:
    """Rows (key, number, purpose, host, device, device_uuid, environment, started, ended, outcome, log), in order."""
    return connection.execute(
        select(
            Trial.key,
            Attempt.number,
            Attempt.purpose,
            Attempt.host,
            Attempt.device,
            Attempt.device_uuid,
            Attempt.environment,
            Attempt.started,
            Attempt.ended,
            Attempt.outcome,
            Attempt.log,
        )
        .join(Attempt, Attempt.trial_id == Trial.id)
        .where(Trial.key.in_(list(keys)))
        .order_by(Trial.key, Attempt.number)
    ).all()


def export_statements() -> dict[str, Select[Any]]:
    """One statement per tidy file: trials, accepted epochs, their losses, and their evaluations."""
    evaluations = [column for column in Evaluation.__table__.columns if column.name not in ("id", "epoch_id")]
    epochs = [
        column
        for column in Epoch.__table__.columns
        if column.name not in ("id", "trial_id", "attempt_id", "accepted", "epoch", "losses")
    ]
    return {
        "trials": select(Trial.key, Trial.state, Trial.finished, Trial.config).order_by(Trial.id),
        "epochs": select(Trial.key, Epoch.epoch, *epochs)
        .join(Epoch, Epoch.trial_id == Trial.id)
        .where(_ACCEPTED)
        .order_by(Epoch.trial_id, Epoch.epoch),
        "losses": select(Trial.key, Epoch.epoch, Epoch.losses)
        .join(Epoch, Epoch.trial_id == Trial.id)
        .where(_ACCEPTED)
        .order_by(Epoch.trial_id, Epoch.epoch),
        "evaluations": select(Trial.key, Epoch.epoch, *evaluations)
        .join(Epoch, Epoch.trial_id == Trial.id)
        .join(Evaluation, Evaluation.epoch_id == Epoch.id)
        .where(_ACCEPTED)
        .order_by(Epoch.trial_id, Epoch.epoch, Evaluation.id),
    }


def _trials_of(grid_ids: Sequence[int]) -> Select[tuple[int]]:
    return select(GridTrial.trial_id).where(GridTrial.grid_id.in_(grid_ids))


def _main(network: int, split: str) -> Any:
    if network == 0 and split == "test":
        return text(MAIN_TEST)
    return and_(Evaluation.network == network, Evaluation.classifier == "main", Evaluation.split == split)


def _relation(name: str, rows: Sequence[tuple[int, ...]], names: Sequence[str]) -> Any:
    """Rows of integers as a table to join with; literal, since they are our own numbers and may be many."""
    columns = [column(each, Integer) for each in names]
    return values(*columns, name=name).data([tuple(literal_column(str(int(v))) for v in row) for row in rows]).cte()


def _chunks(rows: Iterable[Any]) -> Iterator[list[Any]]:
    rows = iter(rows)
    while some := list(islice(rows, _CHUNK)):
        yield some
