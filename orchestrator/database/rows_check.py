"""Find rows of a file that no version of this program writes, and leave them out of what is read."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import JSON, DateTime, Engine, Float, Integer, LargeBinary, Table, event

from orchestrator.database.models import (
    Attempt,
    AttemptPart,
    Base,
    Epoch,
    Evaluation,
    Grid,
    GridTrial,
    LabelSet,
    Look,
    MetricValue,
    Outcome,
    Part,
    Trial,
)

# With more broken rows than this in a table the file itself is broken.
MOST = 500
SMALL: tuple[type[Base], ...] = (Grid, Trial, GridTrial, Attempt, Part, AttemptPart, Look)
LARGE: tuple[type[Base], ...] = (Epoch, Evaluation, MetricValue, Outcome, LabelSet)

_OF_TRIALS = ("trials", "grid_trials", "epochs", "evaluations", "metric_values", "outcomes")

# Conditions that readers rely on beyond the type of a column.
_CONTENT = {
    ("trials", "state"): "IN ('pending', 'running', 'done', 'failed')",
    ("trials", "config"): "-> '$.epochs' > 0 AND json_type({0}, '$.epochs') = 'integer' AND "
    "json_type({0}, '$.network') = 'text' AND json_type({0}, '$.methods') = 'object' AND "
    "json_type({0}, '$.seed') = 'integer'",
    ("outcomes", "correct"): "IS NOT NULL AND length({0}) = "
    "(SELECT (measured.images + 7) / 8 FROM main.evaluations measured WHERE measured.id = evaluation_id)",
    ("attempts", "environment"): "IS NOT NULL AND "
    "(purpose != 'canary' OR outcome IS NOT 'done' OR json_type({0}, '$.canary') = 'object')",
}


@dataclass(frozen=True)
class Broken:
    """A row that cannot be read: its table, its name, the column, and the trial, grid or part that it belongs to."""

    table: str
    row: str
    column: str
    value: str
    owner: int

    def __str__(self) -> str:
        return f"table {self.table}, {self.row}: {self.column} is {self.value}"


def broken_rows(engine: Engine, models: Sequence[type[Base]]) -> list[Broken]:
    """Return the rows of a file's tables whose values are not of their columns' kind, at most `MOST` of a table."""
    broken: list[Broken] = []
    with engine.connect() as connection:
        raw: Any = connection.connection.driver_connection
        raw.create_function("is_text", 1, _is_text, deterministic=True)
        # Undecodable bytes are shown as escapes.
        raw.text_factory = lambda value: value.decode("utf-8", "backslashreplace")
        try:
            for model in models:
                broken += _broken(raw, model.__table__)
        finally:
            raw.text_factory = str
            connection.invalidate()
    return broken


def leave_out(engine: Engine, broken: Sequence[Broken]) -> None:
    """Let every connection of a reader see the tables without the broken rows, and without what belongs to them."""
    ids = {
        table: sorted({each.owner for each in broken if each.table == table})
        for table in ("grids", "attempts", "parts", "looks")
    }
    # A trial with a broken epoch is left out whole: its numbers would be wrong.
    of_trials = {each.owner for each in broken if each.table in _OF_TRIALS}
    lists = {name: ", ".join(map(str, numbers)) or "NULL" for name, numbers in {**ids, "trials": of_trials}.items()}
    conditions = {
        "grids": f"id NOT IN ({lists['grids']})",
        "trials": f"id NOT IN ({lists['trials']})",
        "grid_trials": f"trial_id NOT IN ({lists['trials']}) AND grid_id NOT IN ({lists['grids']})",
        "attempts": f"id NOT IN ({lists['attempts']}) AND trial_id NOT IN ({lists['trials']})",
        "parts": f"id NOT IN ({lists['parts']})",
        "looks": f"id NOT IN ({lists['looks']}) AND grid_id NOT IN ({lists['grids']})",
    }

    @event.listens_for(engine, "connect")
    def hide(raw: sqlite3.Connection, record: object) -> None:
        raw.execute("PRAGMA query_only = OFF")
        for table, condition in conditions.items():
            condition = condition.replace("(NULL)", "(SELECT NULL WHERE 0)")
            # Without a schema, the name means the temporary view.
            raw.execute(f"CREATE TEMP VIEW {table} AS SELECT * FROM main.{table} WHERE {condition}")
        raw.execute("PRAGMA query_only = ON")


def _broken(raw: sqlite3.Connection, table: Table) -> list[Broken]:
    kinds = {column.name: _right(table, column) for column in table.columns}
    names, owner = _described(table)
    statement = (
        f"SELECT {owner}, {', '.join(names)}, "
        + ", ".join(f"({right})" for right in kinds.values())
        + f" FROM main.{table.name} WHERE NOT ("
        + " AND ".join(f"ifnull({right}, 0)" for right in kinds.values())
        + f") LIMIT {MOST}"
    )
    broken = []
    for number, *rest in raw.execute(statement).fetchall():
        label = ", ".join(f"{name} {_shown(value)}" for name, value in zip(names, rest, strict=False))
        verdicts = rest[len(names) :]
        column = next(name for name, right in zip(kinds, verdicts, strict=True) if not right)
        where = " AND ".join(f"{name} IS ?" for name in names)
        row = raw.execute(f"SELECT {column} FROM main.{table.name} WHERE {where}", rest[: len(names)]).fetchone()
        # The names above may come from an index that is damaged, and then they lead to no row.
        value = _shown(row[0]) if row else "(its index and its table differ)"
        broken.append(Broken(table.name, label, column, value, number if isinstance(number, int) else -1))
    return broken


def _right(table: Table, column: Any) -> str:
    """Return the SQL condition that a value fits its column."""
    name = column.name
    if isinstance(column.type, JSON):
        # Only CASE promises that what is no JSON is not looked into.
        right = f"CASE WHEN typeof({name}) = 'text' AND json_valid({name}) THEN json_type({name}) = 'object' ELSE 0 END"
        if table.name in ("grids", "trials", "attempts", "parts"):
            right += f" AND is_text(CAST({name} AS BLOB))"
    elif isinstance(column.type, DateTime):
        right = f"typeof({name}) = 'text' AND date({name}, '+0 days') = substr({name}, 1, 10) AND {name} >= '0001' "
        right += f"AND {name} GLOB '????-??-?? ??:??:*' AND datetime({name}) IS NOT NULL"
    elif isinstance(column.type, LargeBinary):
        right = f"typeof({name}) = 'blob'"
    elif isinstance(column.type, Integer):
        right = f"typeof({name}) = 'integer'"
    elif isinstance(column.type, Float):
        right = f"typeof({name}) IN ('real', 'integer')"
    else:
        right = f"typeof({name}) = 'text'"
        if table.name not in ("epochs", "evaluations", "metric_values", "outcomes"):
            right += f" AND is_text(CAST({name} AS BLOB))"
    for key in column.foreign_keys:
        parent = key.column.table.name
        right += f" AND {name} IN (SELECT parent.id FROM main.{parent} parent)"
    if more := _CONTENT.get((table.name, name)):
        right = f"CASE WHEN {right} THEN {name} {more.format(name)} ELSE 0 END"
    return f"({name} IS NULL OR ({right}))" if column.nullable else f"({right})"


def _described(table: Table) -> tuple[list[str], str]:
    """Return the columns that name a row for a person, and the expression for its grid, trial, attempt or part."""
    if table.name == "grid_trials":
        return ["grid_id", "trial_id"], "trial_id"
    if table.name == "epochs":
        return ["id", "trial_id", "epoch"], "trial_id"
    if table.name == "evaluations":
        return ["id", "epoch_id"], "(SELECT trial_id FROM main.epochs WHERE epochs.id = evaluations.epoch_id)"
    if table.name == "metric_values":
        return ["evaluation_id", "metric"], _trial_of("metric_values")
    if table.name == "outcomes":
        return ["evaluation_id"], _trial_of("outcomes")
    if table.name == "label_sets":
        return ["sha256"], "-1"
    if table.name == "looks":
        return ["id", "row_name"], "id"
    if table.name == "attempt_parts":
        return ["attempt_id", "part_id"], "attempt_id"
    return ["id", {"grids": "name", "trials": "key", "attempts": "trial_id", "parts": "name"}[table.name]], "id"


def _trial_of(table: str) -> str:
    """Return the expression for the trial of a row that belongs to an evaluation."""
    trial = "SELECT trial_id FROM main.epochs JOIN main.evaluations ON evaluations.epoch_id = epochs.id"
    return f"({trial} WHERE evaluations.id = {table}.evaluation_id)"


def _is_text(value: bytes | None) -> bool:
    try:
        (value or b"").decode()
    except UnicodeDecodeError:
        return False
    return True


def _shown(value: object) -> str:
    if value is None:
        return "NULL"
    text = value if isinstance(value, str) else repr(value)
    text = text.encode("unicode_escape").decode() if not text.isprintable() else text
    # A trial's key is shown whole.
    return text if len(text) <= 64 else f"{text[:61]}..."
