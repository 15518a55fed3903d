"""The looks of sequential seeds: what was decided of a pair of rows, and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import Connection, insert, select

from orchestrator.database.errors import DatabaseError
from orchestrator.database.models import Grid, Look
from orchestrator.database.values import clean, now
from orchestrator.records import LookRow


def looks(connection: Connection, grid: str | None) -> list[LookRow]:
    """Return the looks of a grid, or of all, pair by pair in their order."""
    columns = [getattr(Look, name) for name in LookRow.__dataclass_fields__ if name not in ("grid", "separated")]
    statement = (
        select(Grid.name.label("grid"), Look.separated, *columns)
        .join(Grid, Grid.id == Look.grid_id)
        .order_by(Look.grid_id, Look.id)
    )
    rows = connection.execute(statement if grid is None else statement.where(Grid.name == grid))
    return [LookRow(**{**row._mapping, "separated": bool(row.separated)}) for row in rows]


def record(connection: Connection, where: str, rows: Sequence[LookRow]) -> None:
    """Store looks; one that is there already stays as it is."""
    for row in rows:
        grid_id = connection.scalar(select(Grid.id).where(Grid.name == row.grid))
        if grid_id is None:
            raise DatabaseError(f"{where} has no grid {row.grid}, whose seeds are decided; run it again")
        place = {"grid_id": grid_id, "row_key": row.row_key, "baseline_key": row.baseline_key, "look": row.look}
        if connection.scalar(select(Look.id).filter_by(**place)) is None:
            values = asdict(row) | place | {"separated": int(row.separated), "recorded": now()}
            del values["grid"]
            names = {name: clean(values[name]) for name in ("row_name", "baseline_name")}
            connection.execute(insert(Look.__table__).values(values | names))
