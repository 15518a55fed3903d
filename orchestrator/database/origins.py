"""Queries and writes of which code and data trained a trial."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, exists, select, update

from orchestrator.database.errors import DatabaseError
from orchestrator.database.grids import alone
from orchestrator.database.models import ACCEPTED_EPOCHS, Attempt, AttemptPart, Epoch, Part, Trial
from orchestrator.database.parts import part_row
from orchestrator.database.values import in_parts
from orchestrator.records import Origin, PartRow


def origins(connection: Connection, wanted: Sequence[int]) -> dict[int, list[Origin]]:
    """Return per trial id the code and data of the attempts that trained its accepted epochs, in order."""
    counts = exists().where(Epoch.attempt_id == Attempt.id, ACCEPTED_EPOCHS)
    query = (
        select(Attempt.id, Attempt.trial_id, Attempt.number, Attempt.environment, Attempt.data_sha256)
        .where(Attempt.purpose == "train", counts)
        .order_by(Attempt.trial_id, Attempt.number)
    )
    uses = (
        select(AttemptPart.attempt_id, Part.__table__)
        .join(Part, Part.id == AttemptPart.part_id)
        .order_by(AttemptPart.attempt_id, Part.kind, Part.name)
    )
    answer: dict[int, list[Origin]] = {}
    for part in in_parts(wanted):
        attempts = connection.execute(query.where(Attempt.trial_id.in_(part))).all()
        used: dict[int, list[PartRow]] = {}
        for row in connection.execute(
            uses.join(Attempt, Attempt.id == AttemptPart.attempt_id).where(Attempt.trial_id.in_(part))
        ):
            used.setdefault(row.attempt_id, []).append(part_row(row))
        for attempt, trial, number, environment, data in attempts:
            trainer = (environment or {}).get("code_digest")
            answer.setdefault(trial, []).append(Origin(number, trainer, data, tuple(used.get(attempt, ()))))
    return answer


def origins_by_key(connection: Connection, keys: Sequence[str]) -> dict[str, list[Origin]]:
    """Return per key of a trial with accepted epochs what `origins` does."""
    ids: dict[int, str] = {}
    for part in in_parts(keys):
        rows = connection.execute(select(Trial.id, Trial.key).where(Trial.key.in_(part)))
        ids.update({trial: key for trial, key in rows})
    return {ids[trial]: listed for trial, listed in origins(connection, list(ids)).items()}


def record_data(connection: Connection, where: str, attempt_id: int, sha256: str) -> None:
    """Store the fingerprint of an attempt's data."""
    done = connection.execute(
        update(Attempt.__table__).where(Attempt.__table__.c.id == attempt_id).values(data_sha256=sha256)
    )
    if not done.rowcount:
        raise DatabaseError(f"{where} has no attempt {attempt_id}")


def retrain(connection: Connection, wanted: Sequence[str]) -> int:
    """Make trials pending that no driver has, without accepted epochs; returns how many.

    Their attempts and epochs stay.
    """
    alone(connection)
    changed = 0
    for part in in_parts(wanted):
        free = select(Trial.id).where(Trial.key.in_(part), Trial.driver.is_(None), Trial.state != "running")
        ids = list(connection.scalars(free.with_for_update()))
        connection.execute(
            update(Epoch.__table__).where(Epoch.trial_id.in_(ids), ACCEPTED_EPOCHS).values(accepted=None)
        )
        connection.execute(
            update(Trial.__table__).where(Trial.id.in_(ids)).values(state="pending", driver=None, finished=None)
        )
        changed += len(ids)
    return changed
