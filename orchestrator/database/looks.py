"""The looks of sequential seeds: what was decided of a pair of rows, and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module

from sqlalchemy import Connection, select

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
    # In one statement: another driver may come to the same look at the same time.
    insert = import_module(f"sqlalchemy.dialects.{connection.dialect.name}").insert
    for row in rows:
        grid_id = connection.scalar(select(Grid.id).where(Grid.name == row.grid))
        if grid_id is None:
            raise DatabaseError(f"{where} has no grid {row.grid}, whose seeds are decided; run it again")
        values = asdict(row) | {"grid_id": grid_id, "separated": int(row.separated), "recorded": now()}
        del values["grid"]
        names = {name: clean(values[name]) for name in ("row_name", "baseline_name")}
        connection.execute(insert(Look.__table__).values(values | names).on_conflict_do_nothing())
