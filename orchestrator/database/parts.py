"""Methods, networks, data sets and metrics as the driver records them: titles, facts, and the digest of their code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from orchestrator.database.errors import DatabaseError
from orchestrator.database.grids import alone
from orchestrator.database.models import (
    ACCEPTED_EPOCHS,
    Attempt,
    AttemptPart,
    Epoch,
    Evaluation,
    MetricValue,
    Part,
    Trial,
)
from orchestrator.database.values import clean, in_parts, new_id, storable
from orchestrator.records import PartRow

parts, attempt_parts = Part.__table__, AttemptPart.__table__
NAME: int = getattr(parts.c.name.type, "length")  # noqa: B009


def check(where: str, given: Sequence[PartRow]) -> None:
    """Raise DatabaseError for a name that does not fit."""
    for part in given:
        if len(part.name) > NAME:
            raise DatabaseError(
                f"{where}: the name of a {part.kind} has {len(part.name)} characters, {NAME} fit: {part.name[:60]}..."
            )


def record(connection: Connection, where: str, given: Sequence[PartRow], attempt_id: int | None) -> None:
    """Insert or update parts and, with an attempt, record that it uses them."""
    # Two drivers that insert one part would disturb each other.
    alone(connection)
    if attempt_id is not None and connection.scalar(select(Attempt.id).where(Attempt.id == attempt_id)) is None:
        raise DatabaseError(f"{where} has no attempt {attempt_id}")
    linked: set[int] = set()
    if attempt_id is not None:
        linked = set(connection.scalars(select(attempt_parts.c.part_id).where(AttemptPart.attempt_id == attempt_id)))
    for part in given:
        identity = {"kind": part.kind, "name": part.name, "version": part.version, "digest": part.digest}
        printed = {"title": clean(part.title), "facts": storable(dict(part.facts)), "source": clean(part.source)}
        stored = connection.execute(select(parts).filter_by(**identity)).first()
        if stored is None:
            part_id = new_id(connection.execute(insert(parts).values(**identity, **printed)))
        else:
            part_id = stored.id
            if any(stored._mapping[name] != value for name, value in printed.items()):
                connection.execute(update(parts).where(parts.c.id == part_id).values(**printed))
        if attempt_id is not None and part_id not in linked:
            connection.execute(insert(attempt_parts).values(attempt_id=attempt_id, part_id=part_id))
            linked.add(part_id)


def parts_by_id(connection: Connection) -> dict[int, PartRow]:
    """Return the parts of the database by their ids, in the order in which they were first recorded."""
    return {row.id: part_row(row) for row in connection.execute(select(parts).order_by(parts.c.id))}


def part_row(row: Row[Any]) -> PartRow:
    """Return the record of a row that has the columns of the table of parts."""
    return PartRow(row.kind, row.name, row.version, row.title, row.facts, row.digest, row.source)


def unmeasured(connection: Connection, keys: Sequence[str], metric: str) -> int:
    """Return how many of these trials are done without a value of an own metric after their last epoch."""
    last = (
        select(func.max(Epoch.epoch))
        .where(Epoch.trial_id == Trial.id, ACCEPTED_EPOCHS)
        .correlate(Trial)
        .scalar_subquery()
    )
    value = (
        select(MetricValue.value)
        .join(Evaluation, Evaluation.id == MetricValue.evaluation_id)
        .join(Epoch, Epoch.id == Evaluation.epoch_id)
        .where(Epoch.trial_id == Trial.id, ACCEPTED_EPOCHS, Epoch.epoch == last, MetricValue.metric == metric)
        .correlate(Trial)
    )
    query = select(func.count()).select_from(Trial).where(Trial.state == "done", ~value.exists())
    return sum(connection.scalar(query.where(Trial.key.in_(part))) or 0 for part in in_parts(keys))
