"""What can go wrong with the database, told for a person."""

from __future__ import annotations

import errno
import fcntl
import re
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy.exc import StatementError

from orchestrator.exit_codes import BAD_INPUT, BUSY, TRY_AGAIN

_LATER = "is locked by another program (an open sqlite3 shell, a backup?); end it there and run the command again"
NO_LOCKS = "its file system has no locks; put it on a local disk, or use PostgreSQL"
_FULL = "cannot grow: its disk is full. Nothing was half written; make room and run the command again"
_READ_ONLY = "cannot be written: the file, its folder or its disk is read-only"
_CANNOT_OPEN = "cannot be opened: the file or its folder is read-only for this user, or not there any more"
_DAMAGED = "is damaged or not a database; restore it from"

_SQLITE = {
    5: _LATER,  # SQLITE_BUSY
    6: _LATER,  # SQLITE_LOCKED
    8: _READ_ONLY,  # SQLITE_READONLY
    10: "cannot be read or written: the disk reports an error (full, over quota, or failing)",  # SQLITE_IOERR
    11: _DAMAGED,  # SQLITE_CORRUPT
    13: _FULL,  # SQLITE_FULL
    14: _CANNOT_OPEN,  # SQLITE_CANTOPEN
    26: _DAMAGED,  # SQLITE_NOTADB
}
_TRANSIENT_SQLITE = {5, 6}
# What a network file system does while its server is away (EIO, ESTALE).
_TRANSIENT_ON_A_NETWORK = {10, 14}
# What a person cannot mend in the command: the same command may do later.
_MACHINES_FAULT = {5, 6, 10, 13}

# Classes (two characters) and codes of the SQLSTATE: https://www.postgresql.org/docs/current/errcodes-appendix.html
_POSTGRESQL = {
    "53100": _FULL,
    "53300": "has no free connection: raise max_connections on the server, or end other programs",
    "57014": "has stopped a statement that took too long; raise statement_timeout for this role or in the URL",
    "57P03": "is not ready: its server is starting, stopping or taking over",
    "25006": "cannot be written: this server or role is read-only",
    "42501": "cannot be used: this role lacks the right; ask the server's administrator",
    "28": "refuses the login: check user and password (in the URL, PGPASSWORD or ~/.pgpass)",
    "3D": "does not exist on that server; make it with `createdb`",
}
_TRANSIENT_POSTGRESQL = {
    *("40001", "40P01", "55P03", "57P01", "57P02", "57P03", "57P05", "25P03", "53300", "53100", "58030", "08"),
    # A standby that has not taken over yet; before the first write a driver ends with it instead.
    "25006",
}
# What a server says to a login that it will never accept; a driver has no code for it.
_REFUSAL = re.compile(r"FATAL: +(password|role|database|no pg_hba|\S+ authentication|permission)")


class DatabaseError(Exception):
    """The results database cannot do what was asked; the message says which one, why, and what to do."""

    exit_code = BAD_INPUT


class DatabaseAway(DatabaseError):
    """The results database, its server or its disk cannot do now what it could do later."""

    exit_code = TRY_AGAIN


@dataclass(frozen=True)
class Holder:
    """Who holds a database: a process on a host, since when (UTC), for which grid; None where it is not known."""

    host: str | None = None
    pid: int | None = None
    started: datetime | None = None
    grid: str | None = None

    def __str__(self) -> str:
        what = f"`orchestrate` for {self.grid}" if self.grid else "another `orchestrate`"
        process = f", process {self.pid}" if self.pid else ""
        host = f" on {self.host}" if self.host else ""
        since = f", since {self.started:%Y-%m-%d %H:%M:%S} UTC" if self.started else ""
        return what + process + host + since


class Busy(DatabaseError):
    """Another driver holds the database; `holder` says who, as far as it is known."""

    exit_code = BUSY

    def __init__(self, where: str, holder: Holder) -> None:
        super().__init__(f"{where} is in use by {holder}. Wait until it ends, or stop that process")
        self.holder = holder


def transient(error: Exception, *, network: bool = False) -> bool:
    """Return whether the same transaction may succeed when it is tried again: locked, deadlocked or disconnected.

    `network` is true of an SQLite file on a network file system.
    """
    sqlite_code, sqlstate = _codes(error)
    return (
        getattr(error, "connection_invalidated", False)
        or _unreachable(error)
        or sqlite_code in _TRANSIENT_SQLITE
        or (network and sqlite_code in _TRANSIENT_ON_A_NETWORK)
        or sqlstate in _TRANSIENT_POSTGRESQL
        or sqlstate[:2] in _TRANSIENT_POSTGRESQL
    )


def describe(error: Exception, where: str) -> DatabaseError:
    """An error of SQLAlchemy or of a driver as a sentence on the database `where`."""
    said = " ".join(str(_of_driver(error)).split())
    sqlite_code, sqlstate = _codes(error)
    known = _SQLITE.get(sqlite_code) or _POSTGRESQL.get(sqlstate) or _POSTGRESQL.get(sqlstate[:2])
    if known == _LATER and _lacks_locks(Path(where)):
        return DatabaseError(f"{where} cannot be locked: {NO_LOCKS}")
    if known == _DAMAGED:
        known = f"{known} {_newest_backup(Path(where))}"
    if known:
        kind = DatabaseAway if sqlite_code in _MACHINES_FAULT or _passing(sqlstate) else DatabaseError
        return kind(f"{where} {known} ({said})")
    if _REFUSAL.search(said):
        return DatabaseError(f"{where} cannot be reached; check the URL, and that the server runs ({said})")
    if getattr(error, "connection_invalidated", False) or _unreachable(error) or _passing(sqlstate):
        return DatabaseAway(f"{where} cannot be reached; check the URL, and that the server runs ({said})")
    return DatabaseError(f"{where}: {said}")


@contextmanager
def described(where: str) -> Iterator[None]:
    """Turn the errors of statements and connections into `DatabaseError`."""
    try:
        yield
    except (StatementError, sqlite3.Error) as error:
        raise describe(error, where) from error


def _lacks_locks(path: Path) -> bool:
    """Return whether the file system of a database has no locks, which SQLite takes for another program's."""
    try:
        # Not on the file itself: closing it would give up the locks that this process has.
        with tempfile.TemporaryFile(dir=path.absolute().parent) as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
    return False


def _passing(sqlstate: str) -> bool:
    """Return whether an SQLSTATE tells of the server, and not of what was asked."""
    return sqlstate != "25006" and (sqlstate in _TRANSIENT_POSTGRESQL or sqlstate[:2] in _TRANSIENT_POSTGRESQL)


def _of_driver(error: Exception) -> BaseException:
    return getattr(error, "orig", None) or error


def _codes(error: Exception) -> tuple[int, str]:
    """SQLite's primary error code (0 for none) and the SQLSTATE ("" for none)."""
    original = _of_driver(error)
    return getattr(original, "sqlite_errorcode", 0) & 0xFF, getattr(original, "sqlstate", None) or ""


def _newest_backup(path: Path) -> str:
    """The newest of the copies that migrations have kept beside a file, in words."""
    try:
        names = [each.name for each in path.parent.iterdir() if each.name.startswith(f"{path.name}.backup-")]
    except OSError:
        names = []
    # A name ends in the time of its copy; one that was not finished ends otherwise.
    kept = sorted((name for name in names if name.endswith("Z")), key=lambda name: name.rpartition("-")[2])
    if not kept:
        return "a copy of your own: no migration has kept one beside it"
    return f"the newest backup copy beside it, {path.with_name(kept[-1])}"


def _unreachable(error: Exception) -> bool:
    """Return whether no server was found: psycopg gives an error without a code then, as for a refused login."""
    original = _of_driver(error)
    # SQLite gives none where it cannot decode a text.
    psycopgs = type(original).__name__ == "OperationalError" and not isinstance(original, sqlite3.Error)
    return psycopgs and not any(_codes(error)) and not _REFUSAL.search(str(original))
