"""Read-only queries of the reports; SQL selects and sums, so that a million epochs are no obstacle."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

# Re-exported for the reports, which import no SQLAlchemy.
from sqlalchemy import Connection as Connection
from sqlalchemy import (
    Integer,
    Row,
    Select,
    Subquery,
    and_,
    bindparam,
    column,
    distinct,
    func,
    literal_column,
    or_,
    select,
    text,
    values,
)
from sqlalchemy.orm import aliased

from orchestrator.database.models import (
    ACCEPTED,
    ACCEPTED_EPOCHS,
    MAIN_TEST,
    Attempt,
    Epoch,
    Evaluation,
    Grid,
    GridTrial,
    MetricValue,
    Outcome,
    Part,
    Trial,
)
from orchestrator.database.values import in_parts

METRICS = ("top1_error", "top5_error", "nll", "ece", "aurc", "ood_auroc")
EVERY_NETWORK = -1
# Rows of a table in a statement: literals, so the bound of parameters is not theirs.
_ROWS = 8000

_EPOCHS = func.count(distinct(Epoch.epoch)).label("epochs")


class Pick(NamedTuple):
    """Accepted epochs `first` to `last` of a trial, for one network or for `EVERY_NETWORK`."""

    trial_id: int
    network: int
    first: int
    last: int


def grids(connection: Connection) -> Sequence[Row[int, str, dict[str, Any]]]:
    """Return rows (id, name, report), oldest first."""
    return connection.execute(select(Grid.id, Grid.name, Grid.report).order_by(Grid.id)).all()


def members(connection: Connection, grid_ids: Sequence[int]) -> Sequence[Row[int, int, str]]:
    """Return rows (grid_id, trial_id, name) in the grids' own order."""
    chosen = select(GridTrial.grid_id, GridTrial.trial_id, GridTrial.name)
    return connection.execute(
        chosen.where(GridTrial.grid_id.in_(grid_ids)).order_by(GridTrial.grid_id, GridTrial.position)
    ).all()


def trials(connection: Connection, grid_ids: Sequence[int]) -> Sequence[Row[Any]]:
    """Return rows (id, key, config, state, driver, numbers_sha256) of every trial of the grids, once each."""
    columns = (Trial.id, Trial.key, Trial.config, Trial.state, Trial.driver, Trial.numbers_sha256)
    return connection.execute(select(*columns).where(Trial.id.in_(trials_of(grid_ids)))).all()


def last_attempts(connection: Connection, grid_ids: Sequence[int]) -> dict[int, Row[int, str | None, int | None]]:
    """Return per trial (trial_id, error_class, parameters) of its newest training attempt."""
    rows = connection.execute(
        select(Attempt.trial_id, Attempt.error_class, Attempt.parameters)
        .where(Attempt.purpose == "train", Attempt.trial_id.in_(trials_of(grid_ids)))
        .order_by(Attempt.trial_id, Attempt.number)
    )
    return {row.trial_id: row for row in rows}


def last_epochs(connection: Connection, grid_ids: Sequence[int]) -> dict[int, int]:
    """Return per trial that has begun its newest accepted epoch."""
    newest = (
        select(func.max(Epoch.epoch))
        .where(Epoch.trial_id == Trial.id, ACCEPTED_EPOCHS)
        .correlate(Trial)
        .scalar_subquery()
    )
    return per_trial(connection, newest, Trial.id.in_(trials_of(grid_ids)))


def compiled_epochs(connection: Connection, grid_ids: Sequence[int]) -> dict[int, int]:
    """Return per trial with any the number of its accepted epochs that an attempt with compiled networks trained."""
    engine = Attempt.environment["engine"].as_string()
    chosen = select(Attempt.id, Attempt.trial_id).where(
        Attempt.purpose == "train", engine == "compiled", Attempt.trial_id.in_(trials_of(grid_ids))
    )
    attempts = chosen.subquery()
    # By attempt: an index has its epochs in order, and most databases have no such attempt.
    rows = connection.execute(
        select(attempts.c.trial_id, func.count())
        .join(Epoch, Epoch.attempt_id == attempts.c.id)
        .where(ACCEPTED_EPOCHS)
        .group_by(attempts.c.trial_id)
    )
    return {trial: count for trial, count in rows}


def best_epochs(
    connection: Connection, trial_ids: Iterable[int], split: str = "test", network: int = 0
) -> dict[int, int]:
    """Return per trial the first epoch with the lowest top-1 error of one network's main classifier on a split.

    A trial without such an evaluation is left out.
    """
    indexed, main = "", "network = :network AND classifier = 'main' AND split = :split"
    if network == 0 and split == "test":
        # Without statistics SQLite would read the row of every evaluation, though this index covers the query.
        indexed = "INDEXED BY ix_evaluations_main_test" if connection.dialect.name == "sqlite" else ""
        main = MAIN_TEST
    # Per trial: sorting a million epochs at once takes twice as long. NaN (PostgreSQL) fails the comparison.
    statement = text(
        f"""SELECT trials.id, (
            SELECT epochs.epoch FROM epochs JOIN evaluations {indexed} ON evaluations.epoch_id = epochs.id
            WHERE epochs.trial_id = trials.id AND epochs.{ACCEPTED} AND {main} AND top1_error <= 100
            ORDER BY top1_error, epochs.epoch LIMIT 1
        ) FROM trials WHERE trials.id IN :trials"""
    ).bindparams(bindparam("trials", expanding=True))
    given = {} if main == MAIN_TEST else {"network": network, "split": split}
    best: dict[int, int] = {}
    for part in in_parts(trial_ids):
        rows = connection.execute(statement, {"trials": part, **given})
        best |= {trial: epoch for trial, epoch in rows if epoch is not None}
    return best


def per_trial(connection: Connection, answer: Any, where: Any) -> dict[int, Any]:
    """Return per trial the value of a subquery, where it has one."""
    rows = connection.execute(select(Trial.id, answer.label("answer")).where(where))
    return {trial: value for trial, value in rows if value is not None}


def measurements(connection: Connection, picks: Iterable[Pick]) -> Iterator[Row[Any]]:
    """Return rows (trial_id, network, classifier, images, then `METRICS`): test metrics, mean of the picked epochs.

    `epochs` is the number of epochs in the average.
    """
    metrics = [func.avg(getattr(Evaluation, name)).label(name) for name in METRICS]
    images = func.min(Evaluation.images).label("images")
    for picked in relations(picks, Pick._fields):
        yield from connection.execute(_averages(picked, images, _EPOCHS, *metrics))


def own_measurements(connection: Connection, picks: Iterable[Pick]) -> Iterator[Row[Any]]:
    """Return rows (trial_id, network, classifier, metric, value, epochs) of users' own metrics, as `measurements`."""
    value = func.avg(MetricValue.value).label("value")
    for picked in relations(picks, Pick._fields):
        averages = _averages(picked, MetricValue.metric, value, _EPOCHS)
        yield from connection.execute(
            averages.join(MetricValue, MetricValue.evaluation_id == Evaluation.id).group_by(MetricValue.metric)
        )


def _averages(picked: Any, *answers: Any) -> Select[Any]:
    """Return a statement with answers over the picked epochs of each classifier on the test split."""
    groups = (Epoch.trial_id, Evaluation.network, Evaluation.classifier)
    of_trial = and_(Epoch.trial_id == picked.c.trial_id, Epoch.epoch.between(picked.c.first, picked.c.last))
    return (
        select(*groups, *answers)
        .select_from(picked)
        .join(Epoch, of_trial)
        .join(Evaluation, Evaluation.epoch_id == Epoch.id)
        .where(
            ACCEPTED_EPOCHS,
            Evaluation.split == "test",
            or_(picked.c.network == EVERY_NETWORK, picked.c.network == Evaluation.network),
        )
        .group_by(*groups)
    )


def outcomes(connection: Connection, picks: Iterable[Pick]) -> Iterator[Row[int, int, int, bytes, str]]:
    """Return rows (trial_id, network, images, correct, labels_sha256): which test images are right at picked epochs."""
    for picked in relations(picks, Pick._fields):
        yield from connection.execute(
            select(Epoch.trial_id, Evaluation.network, Evaluation.images, Outcome.correct, Outcome.labels_sha256)
            .select_from(picked)
            .join(Epoch, and_(Epoch.trial_id == picked.c.trial_id, Epoch.epoch == picked.c.last))
            .join(Evaluation, Evaluation.epoch_id == Epoch.id)
            .join(Outcome, Outcome.evaluation_id == Evaluation.id)
            .where(
                ACCEPTED_EPOCHS,
                Evaluation.split == "test",
                Evaluation.classifier == "main",
                or_(picked.c.network == EVERY_NETWORK, picked.c.network == Evaluation.network),
            )
        )


def own_metrics(connection: Connection) -> list[str]:
    """Return the names of users' own metrics, in alphabetical order."""
    named = select(Part.name).where(Part.kind == "metric").distinct().order_by(Part.name)
    return list(connection.scalars(named))


def losses(connection: Connection, epochs: Iterable[tuple[int, int]]) -> Iterator[Row[int, int, dict[str, Any]]]:
    """Return rows (trial_id, epoch, losses) for the given accepted (trial, epoch) pairs."""
    for picked in relations(epochs, ("trial_id", "epoch")):
        yield from connection.execute(
            select(Epoch.trial_id, Epoch.epoch, Epoch.losses)
            .select_from(picked)
            .join(Epoch, and_(Epoch.trial_id == picked.c.trial_id, Epoch.epoch == picked.c.epoch))
            .where(ACCEPTED_EPOCHS)
        )


def curves(
    connection: Connection,
    last_epochs: Mapping[int, int],
    every: int = 1,
    *,
    metric: str = "top1_error",
    network: int = 0,
    classifier: str = "main",
    split: str = "test",
) -> Iterator[Row[int, int, float, float]]:
    """Return rows (trial_id, epoch, seconds, value) of a metric after accepted epochs, in order.

    A trial's rows are its last epoch and, counting back from there, one epoch in `every`; an epoch without the metric
    has none. `seconds` are those of training, evaluation and data to the end of the epoch, pauses left out. `metric` is
    a column of the evaluations or a user's own.
    """
    for clock in thinned(last_epochs, every):
        value = getattr(Evaluation, metric) if metric in METRICS else MetricValue.value
        statement = (
            select(clock.c.trial_id, clock.c.epoch, clock.c.seconds, value)
            .select_from(clock)
            .join(Evaluation, Evaluation.epoch_id == clock.c.id)
            .where(Evaluation.network == network, Evaluation.classifier == classifier, Evaluation.split == split)
            .where(value.is_not(None))
            .order_by(clock.c.trial_id, clock.c.epoch)
        )
        if metric not in METRICS:
            own = and_(MetricValue.evaluation_id == Evaluation.id, MetricValue.metric == metric)
            statement = statement.join(MetricValue, own)
        yield from connection.execute(statement)


def thinned(last_epochs: Mapping[int, int], every: int) -> Iterator[Subquery]:
    """Return tables of accepted epochs (id, trial_id, epoch, seconds), which together have those of all the trials.

    Of a trial these are the epoch that is given as its last and, counting from there, one epoch in `every`. `seconds`
    are those of training, evaluation and data from the trial's start to the end of the epoch, pauses left out.
    """
    for picked in relations(last_epochs.items(), ("trial_id", "last")):
        order: Any = {"partition_by": Epoch.trial_id, "order_by": Epoch.epoch}
        few = (
            select(Epoch.id, Epoch.trial_id, Epoch.epoch, func.lag(Epoch.epoch, 1, -1).over(**order).label("before"))
            .select_from(picked)
            .join(Epoch, Epoch.trial_id == picked.c.trial_id)
            .where(ACCEPTED_EPOCHS, (picked.c.last - Epoch.epoch) % every == 0)
            .subquery()
        )
        # The epochs between are added up by index: a window over all of them would sort a million rows.
        earlier = aliased(Epoch, name="earlier")
        seconds = (
            select(func.sum(earlier.seconds))
            .where(
                earlier.trial_id == few.c.trial_id,
                text(f"earlier.{ACCEPTED}"),
                earlier.epoch > few.c.before,
                earlier.epoch <= few.c.epoch,
            )
            .correlate(few)
            .scalar_subquery()
        )
        parts = select(few.c.id, few.c.trial_id, few.c.epoch, seconds.label("seconds")).subquery()
        summed = func.sum(parts.c.seconds).over(partition_by=parts.c.trial_id, order_by=parts.c.epoch)
        yield select(parts.c.id, parts.c.trial_id, parts.c.epoch, summed.label("seconds")).subquery()


def attempts(connection: Connection, keys: Iterable[str]) -> Sequence[Row[Any]]:
    """Return the attempts of the trials, in order.

    Rows (key, number, purpose, host, device, device_uuid, environment, started, ended, outcome, log).
    """
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


def trials_of(grid_ids: Sequence[int]) -> Select[int]:
    """Return a query of the ids of the grids' trials."""
    return select(GridTrial.trial_id).where(GridTrial.grid_id.in_(grid_ids))


def relations(rows: Iterable[tuple[int, ...]], names: Sequence[str]) -> Iterator[Any]:
    """Return rows of integers as tables to join with; as literals: there may be many, and no user wrote them."""
    columns = [column(each, Integer) for each in names]
    for part in in_parts(rows, _ROWS):
        table = values(*columns, name="picks")
        yield table.data([tuple(literal_column(str(int(v))) for v in row) for row in part]).cte()
