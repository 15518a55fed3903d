"""Whole copies of a results database, also while a run writes to it, and checks of its pages."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, func, insert, select, text

from orchestrator.database import schema
from orchestrator.database.backends.sqlite import copy_file, sqlite_engine
from orchestrator.database.errors import DatabaseError
from orchestrator.database.models import Attempt, Base, Epoch, Grid, Trial
from orchestrator.database.values import now

if TYPE_CHECKING:
    from orchestrator.records import Living

# How many rows of a server are held in memory at once.
BATCH = 2000
# This table is in copies alone.
COPY_TABLE = "orchestrate_copy"
# How many problems of damaged pages are shown.
SHOWN = 5


@dataclass(frozen=True)
class Copied:
    """A finished copy: its size in bytes and its rows by kind."""

    path: Path
    size: int
    counts: Mapping[str, int]


def back_up_to(engine: Engine, where: str, target: Path, living: Callable[[Connection], Living]) -> Copied:
    """Copy a whole database, as it is at one moment, into a new SQLite file, and check that file's pages.

    A copy made during a run is marked: see `made_during_a_run`. `living` tells which drivers live. Raises DatabaseError
    when the file exists, when it cannot be written, and when the database itself is damaged; no part of a copy stays.
    """
    if os.path.lexists(target):
        raise DatabaseError(f"{target} is there already, and a backup overwrites nothing; name a new file")
    if not target.parent.is_dir():
        raise DatabaseError(
            f"{target} cannot be written: there is no folder {target.absolute().parent}; make it first, or name another"
        )
    # A short name, because the target's may be as long as a name can be.
    partial = target.with_name(f".{os.getpid()}.partial")
    try:
        # First as a plain file: SQLite does not say why it cannot create one.
        partial.touch()
        with engine.connect() as connection:
            lives, taken = living(connection), now()
        if engine.dialect.name == "sqlite":
            copy_file(engine, partial)
        else:
            _copy_rows(engine, partial)
        _mark(partial, where, taken, lives)
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
        raise DatabaseError(
            f"{target} could not be written: {getattr(error, 'strerror', None) or error}; mend that or name another"
        ) from error
    finally:
        for left in (partial, *(partial.with_name(partial.name + end) for end in ("-wal", "-shm", "-journal"))):
            with suppress(OSError):
                left.unlink(missing_ok=True)
    return Copied(target, size, counts)


def _mark(copy: Path, where: str, taken: datetime, lives: Living) -> None:
    """Write into a copy that trials were running, or waited for their turn, when it was made."""
    connection = sqlite3.connect(copy)
    try:
        claims = connection.execute("SELECT DISTINCT driver FROM trials WHERE driver IS NOT NULL").fetchall()
        if any(lives(token) for (token,) in claims):
            with connection:
                connection.execute(f"DROP TABLE IF EXISTS {COPY_TABLE}")
                connection.execute(f"CREATE TABLE {COPY_TABLE} (source TEXT, taken TEXT, attempt INTEGER)")
                connection.execute(
                    f"INSERT INTO {COPY_TABLE} SELECT ?, ?, max(id) FROM attempts",
                    (where, f"{taken:%Y-%m-%d %H:%M:%S}"),
                )
    finally:
        connection.close()


def made_during_a_run(connection: Connection, where: str) -> str | None:
    """Return a warning for a copy that was made during a run and not continued since; None for any other."""
    if connection.dialect.name != "sqlite":
        return None
    exists = text("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = :name")
    if not connection.scalar(exists, {"name": COPY_TABLE}):
        return None
    row = connection.execute(text(f"SELECT source, taken, attempt FROM {COPY_TABLE}")).first()
    newest = connection.scalar(select(func.max(Attempt.id)))
    if row is None or newest != row.attempt:
        return None
    return (
        f"{where} is a copy of {row.source}, made on {row.taken} UTC during a run: the trials that ran then stand in "
        "it as interrupted, and what they did later is not in it. Go on with the original; a run on the copy would "
        "train them a second time"
    )


def _checked(copy: Engine, where: str) -> dict[str, int]:
    """Check the pages of a copy; returns the number of its rows by kind. Raises DatabaseError for damage."""
    tables = {"grid": Grid, "trial": Trial, "attempt": Attempt, "epoch": Epoch}
    with copy.connect() as connection:
        if problems := damage(connection):
            raise DatabaseError(f"{where} is damaged, and so would be its copy ({problems[0]})")
        return {name: connection.scalar(select(func.count()).select_from(table)) or 0 for name, table in tables.items()}


def _take_name(partial: Path, target: Path) -> None:
    """Rename a file; raises where another file has that name."""
    try:
        # Unlike a rename, a link never replaces a file that was created meanwhile.
        os.link(partial, target)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        # A file system without links, as on many USB sticks: an empty file takes the name first.
        target.touch(exist_ok=False)
        os.replace(partial, target)


def damage(connection: Connection) -> list[str]:
    """Return the damage that SQLite's quick_check reports in a file; a server checks its pages itself."""
    if connection.dialect.name != "sqlite":
        return []
    problems = [str(row[0]) for row in connection.execute(text(f"PRAGMA quick_check({SHOWN})"))]
    problems = [" ".join(line.split()) for line in problems if line != "ok"]
    if not problems:
        orphans = connection.execute(text("PRAGMA foreign_key_check")).fetchmany(SHOWN)
        problems = [
            f"{table} row {row} belongs to a row of {parent} that is missing" for table, row, parent, _ in orphans
        ]
    return problems


def _copy_rows(engine: Engine, target: Path) -> None:
    """Copy the rows of a server's database, as of one moment, into a new file."""
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
