"""Writes of grids and their trials; each function is one transaction's work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import BigInteger, Connection, func, insert, literal, select, update

from orchestrator.database.backends.postgresql import BULK
from orchestrator.database.errors import DatabaseError
from orchestrator.database.models import Grid, GridTrial, Trial
from orchestrator.database.values import clean, in_parts, new_id, now, storable
from orchestrator.records import GridRow


def alone(connection: Connection) -> None:
    """Serialise bulk transactions; SQLite has one writer at a time anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(literal(BULK, BigInteger))))


def check(where: str, name: str, trials: Sequence[tuple[str, Mapping[str, Any], str]]) -> None:
    """Raise DatabaseError for names that do not fit, and for duplicate trials or names."""
    named = [("the grid's name", name, Grid)] + [("a trial's name", trial, GridTrial) for _, _, trial in trials]
    for what, value, model in named:
        longest: int = getattr(model.__table__.c.name.type, "length")  # noqa: B009
        if len(value) > longest:
            raise DatabaseError(f"{where}: {what} has {len(value)} characters, {longest} fit: {value[:60]}...")
    for what, values in (("key", [key for key, _, _ in trials]), ("name", [trial for _, _, trial in trials])):
        if len(set(values)) < len(values):
            ((value, times),) = Counter(values).most_common(1)
            raise DatabaseError(f"{where}: grid {name} has {times} trials with the {what} {value}; leave one")


def save(
    connection: Connection,
    name: str,
    source: str,
    file_text: str,
    report: Mapping[str, Any],
    trials: Sequence[tuple[str, Mapping[str, Any], str]],
) -> None:
    """Insert or replace a grid; insert the trials that are new."""
    alone(connection)
    time = now()
    ids = _save_trials(connection, {key: config for key, config, _ in trials}, time)
    values = {
        "source": clean(source),
        "text": clean(file_text),
        "report": storable(dict(report)),
        "updated": time,
    }
    grid_id = connection.scalar(select(Grid.id).where(Grid.name == name))
    if grid_id is None:
        grid_id = new_id(connection.execute(insert(Grid).values(name=clean(name), created=time, **values)))
    else:
        connection.execute(update(Grid).where(Grid.id == grid_id).values(**values))
        connection.execute(GridTrial.__table__.delete().where(GridTrial.grid_id == grid_id))
    if trials:
        connection.execute(
            insert(GridTrial.__table__),
            [
                {"grid_id": grid_id, "trial_id": ids[key], "position": position, "name": clean(trial)}
                for position, (key, _, trial) in enumerate(trials)
            ],
        )


def _save_trials(connection: Connection, configs: Mapping[str, Mapping[str, Any]], time: Any) -> dict[str, int]:
    """Return the id of every key, after inserting the new ones."""
    ids: dict[str, int] = {}
    for part in in_parts(configs):
        stored_rows = connection.execute(select(Trial.key, Trial.id, Trial.config).where(Trial.key.in_(part))).all()
        for key, trial_id, stored in stored_rows:
            # A later version of the program added a field; it has its default here, because the key is the same.
            completed = {**configs[key], **stored}
            if len(completed) > len(stored):
                connection.execute(update(Trial).where(Trial.id == trial_id).values(config=completed))
            ids[key] = trial_id
    new = [key for key in configs if key not in ids]
    if new:
        connection.execute(
            insert(Trial.__table__),
            [{"key": key, "config": dict(configs[key]), "state": "pending", "created": time} for key in new],
        )
    for part in in_parts(new):
        ids.update(connection.execute(select(Trial.key, Trial.id).where(Trial.key.in_(part))).all())
    return ids


def all_grids(connection: Connection) -> list[GridRow]:
    """Return every grid by name."""
    count = select(func.count()).where(GridTrial.grid_id == Grid.id).scalar_subquery()
    rows = connection.execute(
        select(Grid.name, Grid.source, Grid.report, count, Grid.created, Grid.updated).order_by(Grid.name)
    )
    return [GridRow(*row) for row in rows]


def keys(connection: Connection, name: str) -> list[tuple[str, str]]:
    """Return the (key, name) of a grid's trials in order."""
    rows = connection.execute(
        select(Trial.key, GridTrial.name)
        .join(GridTrial, GridTrial.trial_id == Trial.id)
        .join(Grid, Grid.id == GridTrial.grid_id)
        .where(Grid.name == name)
        .order_by(GridTrial.position)
    )
    return [(key, trial) for key, trial in rows]


def retry(connection: Connection, wanted: Sequence[str]) -> int:
    """Make failed trials pending; returns how many."""
    alone(connection)
    changed = 0
    for part in in_parts(wanted):
        result = connection.execute(
            update(Trial.__table__)
            .where(Trial.key.in_(part), Trial.state == "failed")
            .values(state="pending", driver=None, finished=None)
        )
        changed += result.rowcount
    return changed
