"""Whole copies of a results database, also while a run writes to it, and checks of its pages."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, func, insert, select, text

from orchestrator.database import schema
from orchestrator.database.errors import DatabaseError
from orchestrator.database.models import Attempt, Base, Epoch, Grid, Trial
from orchestrator.database.sqlite import copy_file, sqlite_engine

# Rows of a server that are held in memory at once.
BATCH = 2000
# Of many damaged pages, enough to know what it is.
SHOWN = 5


@dataclass(frozen=True)
class Copied:
    """A copy that was made: its size in bytes and its rows by kind."""

    path: Path
    size: int
    counts: Mapping[str, int]


def back_up_to(engine: Engine, where: str, target: Path) -> Copied:
    """Copy a whole database, as it is at one moment, into a new SQLite file, and check that file's pages.

    Raises DatabaseError when there is a file of that name, when it cannot be written, and when the database itself
    is damaged; no part of a copy stays.
    """
    if os.path.lexists(target):
        raise DatabaseError(f"{target} is there already, and a backup overwrites nothing; name a new file")
    # A short name, because that of the target may be as long as a name can be.
    partial = target.with_name(f".{os.getpid()}.partial")
    try:
        if engine.dialect.name == "sqlite":
            copy_file(engine, partial)
        else:
            _copy_rows(engine, partial)
        copy = sqlite_engine(partial, readonly=True)
        try:
            counts = _checked(copy, where)
        finally:
            copy.dispose()
        with partial.open("rb") as file:
            os.fsync(file.fileno())
            size = os.fstat(file.fileno()).st_size
        _take_name(partial, target)
    except (OSError, sqlite3.Error) as error:
        raise DatabaseError(f"{target} could not be written: {getattr(error, 'strerror', None) or error}") from error
    finally:
        for left in (partial, *(partial.with_name(partial.name + end) for end in ("-wal", "-shm", "-journal"))):
            with suppress(OSError):
                left.unlink(missing_ok=True)
    return Copied(target, size, counts)


def _checked(copy: Engine, where: str) -> dict[str, int]:
    """Check the pages of a copy; return how many rows it has of each kind. Raises DatabaseError for damage."""
    tables = {"grid": Grid, "trial": Trial, "attempt": Attempt, "epoch": Epoch}
    with copy.connect() as connection:
        if problems := damage(connection):
            raise DatabaseError(f"{where} is damaged, and so would be its copy ({problems[0]})")
        return {name: connection.scalar(select(func.count()).select_from(table)) or 0 for name, table in tables.items()}


def _take_name(partial: Path, target: Path) -> None:
    """Give a file its name, which no other file may have."""
    try:
        # Unlike a rename, a link replaces nothing that has come there meanwhile.
        os.link(partial, target)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        # A file system without links, as on many sticks: the name is taken by an empty file first.
        target.touch(exist_ok=False)
        os.replace(partial, target)


def damage(connection: Connection) -> list[str]:
    """Return what SQLite's quick_check finds wrong with a file's pages, rows and references; a server checks itself."""
    if connection.dialect.name != "sqlite":
        return []
    found = [str(row[0]) for row in connection.execute(text(f"PRAGMA quick_check({SHOWN})"))]
    found = [" ".join(line.split()) for line in found if line != "ok"]
    if not found:
        orphans = connection.execute(text("PRAGMA foreign_key_check")).fetchmany(SHOWN)
        found = [f"{table} row {row} belongs to a row of {parent} that is missing" for table, row, parent, _ in orphans]
    return found


def _copy_rows(engine: Engine, target: Path) -> None:
    """Copy the rows of a server's database, all of one moment, into a new file."""
    copy = sqlite_engine(target, readonly=False)
    try:
        with (
            engine.connect().execution_options(isolation_level="REPEATABLE READ") as source,
            copy.connect().execution_options(write=True) as made,
            made.begin(),
        ):
            schema.create(made)
            for table in Base.metadata.sorted_tables:
                rows: Any = source.execution_options(stream_results=True, yield_per=BATCH).execute(select(table))
                for part in rows.mappings().partitions(BATCH):
                    made.execute(insert(table), [dict(row) for row in part])
    finally:
        copy.dispose()
