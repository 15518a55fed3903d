"""Values in a form that both databases can store."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import CursorResult

T = TypeVar("T")

# Parameters of one statement: SQLite before 3.32 binds at most 999.
BOUND = 900


def now() -> datetime:
    """Return the present time in UTC, naive as in the tables."""
    return datetime.now(UTC).replace(tzinfo=None)


def strict_json(value: Any) -> str:
    """Return JSON that every reader accepts; raises ValueError for NaN and infinities."""
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def storable(value: Any) -> Any:
    """Return a copy of plain data that strict JSON and PostgreSQL accept.

    A number that is not finite becomes None; NUL and undecodable bytes in a string (of a command line, of a path)
    become backslash escapes.
    """
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {clean(str(key)): storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [storable(item) for item in value]
    return value


def clean(value: str, length: int | None = None) -> str:
    """Return a string without NUL and lone surrogates, of at most `length` characters."""
    if "\0" in value or not value.isprintable():
        value = value.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()
    return value if length is None else value[:length]


def new_id(inserted: CursorResult[Any]) -> int:
    """Return the id of the one inserted row."""
    key = inserted.inserted_primary_key
    assert key is not None
    return int(key[0])


def in_parts(values: Iterable[T], most: int = BOUND) -> Iterator[list[T]]:
    """Split values into parts that one statement can bind."""
    values = iter(values)
    while part := list(islice(values, most)):
        yield part
