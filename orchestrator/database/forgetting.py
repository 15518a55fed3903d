"""Remove a grid, and on request the trials that no other grid has, with everything recorded of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Table, delete, func, select, text

from orchestrator.database.errors import DatabaseError
from orchestrator.database.grids import alone
from orchestrator.database.models import Attempt, Base, Epoch, Evaluation, Grid, GridTrial, Look, Trial
from orchestrator.database.values import in_parts
from orchestrator.records import Extent


def extent(connection: Connection, where: str, name: str) -> Extent:
    """Return what a grid has, and what of it no other grid has; raises DatabaseError for an unknown grid."""
    grid_id = connection.scalar(select(Grid.id).where(Grid.name == name))
    if grid_id is None:
        names = ", ".join(connection.scalars(select(Grid.name).order_by(Grid.name))) or "none"
        raise DatabaseError(f"no grid named {name!r} in {where} (it holds: {names})")
    trials, own = _trials(connection, grid_id)
    counts = dict.fromkeys(("attempts", "epochs", "evaluations"), 0)
    places: set[tuple[str | None, str | None]] = set()
    checkpoints = Attempt.environment[("places", "--checkpoints")].as_string()
    for part in in_parts(own):
        attempts = select(Attempt.id).where(Attempt.trial_id.in_(part))
        epochs = select(Epoch.id).where(Epoch.attempt_id.in_(attempts))
        counts["attempts"] += connection.scalar(select(func.count()).select_from(attempts.subquery())) or 0
        counts["epochs"] += connection.scalar(select(func.count()).select_from(epochs.subquery())) or 0
        evaluations = select(func.count()).where(Evaluation.epoch_id.in_(epochs))
        counts["evaluations"] += connection.scalar(evaluations) or 0
        trained = select(checkpoints, Attempt.host).where(Attempt.trial_id.in_(part), Attempt.purpose == "train")
        places.update((folder, host) for folder, host in connection.execute(trained.distinct()))
    return Extent(
        trials=trials,
        keys=tuple(own.values()),
        places=tuple(sorted(places, key=lambda place: (place[0] or "", place[1] or ""))),
        **counts,
    )


def forget(connection: Connection, name: str, trials: bool) -> set[str]:
    """Remove a grid; with `trials`, also its trials that no other grid and no driver has; returns the keys of these."""
    alone(connection)
    grid_id = connection.scalar(select(Grid.id).where(Grid.name == name))
    if grid_id is None:
        return set()
    _, own = _trials(connection, grid_id)
    connection.execute(delete(GridTrial.__table__).where(GridTrial.grid_id == grid_id))
    connection.execute(delete(Look.__table__).where(Look.grid_id == grid_id))
    connection.execute(delete(Grid.__table__).where(Grid.id == grid_id))
    if not trials:
        return set()
    with _indexed(connection):
        for part in in_parts(own):
            for table, condition in _with_children(Trial.__table__, Trial.__table__.c.id.in_(part)):
                connection.execute(delete(table).where(condition))
    return set(own.values())


@contextmanager
def _indexed(connection: Connection) -> Iterator[None]:
    """Have an index of epochs by trial: without one, SQLite looks through all of them for every trial that goes."""
    if connection.dialect.name != "sqlite":
        yield
        return
    connection.execute(text("CREATE INDEX orchestrate_forgetting ON epochs (trial_id)"))
    yield
    connection.execute(text("DROP INDEX orchestrate_forgetting"))


def _trials(connection: Connection, grid_id: int) -> tuple[int, dict[int, str]]:
    """Return the number of a grid's trials, and the keys by id of those that no other grid and no driver has."""
    listed = select(GridTrial.trial_id).where(GridTrial.grid_id == grid_id)
    elsewhere = select(GridTrial.trial_id).where(GridTrial.grid_id != grid_id)
    own = select(Trial.id, Trial.key).where(Trial.id.in_(listed), Trial.id.not_in(elsewhere), Trial.driver.is_(None))
    number = connection.scalar(select(func.count()).select_from(listed.subquery())) or 0
    return number, {trial_id: key for trial_id, key in connection.execute(own)}


def _with_children(table: Table, condition: Any) -> Iterator[tuple[Table, Any]]:
    """Yield a table's rows that meet a condition, after the rows of other tables that refer to them."""
    for child in Base.metadata.sorted_tables:
        for key in child.foreign_keys:
            if key.column.table is table:
                yield from _with_children(child, key.parent.in_(select(key.column).where(condition)))
    yield table, condition
