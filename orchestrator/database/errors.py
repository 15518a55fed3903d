"""Errors of the database, described for a person."""

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

from orchestrator.errors import OrchestrateError
from orchestrator.exit_codes import BUSY, TRY_AGAIN

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
# Codes that a network file system gives while its server is away (EIO, ESTALE).
_TRANSIENT_ON_A_NETWORK = {10, 14}
# Codes of the machine's faults: the same command may succeed later.
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
    # A standby that has not taken over yet. Before its first write a driver does not wait for it but ends.
    "25006",
}
# A server's answers to a login that it will never accept; the driver has no code for them.
_REFUSAL = re.compile(r"FATAL: +(password|role|database|no pg_hba|\S+ authentication|permission)")


class DatabaseError(OrchestrateError):
    """The results database cannot do what was asked; the message names the database, the reason and the remedy."""


class DatabaseAway(DatabaseError):
    """The results database, its server or its disk is unavailable, perhaps only for a time."""

    exit_code = TRY_AGAIN


@dataclass(frozen=True)
class Holder:
    """A process that holds a database: host, pid, begin (UTC) and grid; None where unknown."""

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
    """Another driver holds the database; `holder` names it, as far as it is known."""

    exit_code = BUSY

    def __init__(self, where: str, holder: Holder, *, file: bool = False) -> None:
        only = ". An SQLite file takes one run at a time, and none waits for another; PostgreSQL takes several"
        super().__init__(f"{where} is in use by {holder}. Wait until it ends, or stop that process{only * file}")
        self.holder = holder


def transient(error: Exception, *, network: bool = False) -> bool:
    """Return whether the same transaction may succeed when it is retried: locked, deadlocked or disconnected.

    `network` is true for an SQLite file on a network file system.
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
    """Describe an error of SQLAlchemy or of a database driver as a sentence about the database `where`."""
    message = " ".join(str(_of_driver(error)).split())
    sqlite_code, sqlstate = _codes(error)
    reason = _SQLITE.get(sqlite_code) or _POSTGRESQL.get(sqlstate) or _POSTGRESQL.get(sqlstate[:2])
    if reason == _LATER and _lacks_locks(Path(where)):
        return DatabaseError(f"{where} cannot be locked: {NO_LOCKS}")
    if reason == _DAMAGED:
        reason = f"{reason} {_newest_backup(Path(where))}"
    if reason:
        kind = DatabaseAway if sqlite_code in _MACHINES_FAULT or _passing(sqlstate) else DatabaseError
        return kind(f"{where} {reason} ({message})")
    if _REFUSAL.search(message):
        return DatabaseError(f"{where} cannot be reached; check the URL, and that the server runs ({message})")
    if getattr(error, "connection_invalidated", False) or _unreachable(error) or _passing(sqlstate):
        return DatabaseAway(f"{where} cannot be reached; check the URL, and that the server runs ({message})")
    return DatabaseError(f"{where}: {message}")


@contextmanager
def described(where: str) -> Iterator[None]:
    """Turn the errors of statements and connections into `DatabaseError`."""
    try:
        yield
    except (StatementError, sqlite3.Error) as error:
        raise describe(error, where) from error


def _lacks_locks(path: Path) -> bool:
    """Return whether a database's file system has no locks; SQLite reports that as a lock of another program."""
    try:
        # Not on the file itself: closing it would release the locks of this process.
        with tempfile.TemporaryFile(dir=path.absolute().parent) as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
    return False


def _passing(sqlstate: str) -> bool:
    """Return whether an SQLSTATE is about the server and not about the statement."""
    return sqlstate != "25006" and (sqlstate in _TRANSIENT_POSTGRESQL or sqlstate[:2] in _TRANSIENT_POSTGRESQL)


def _of_driver(error: Exception) -> BaseException:
    return getattr(error, "orig", None) or error


def _codes(error: Exception) -> tuple[int, str]:
    """Return SQLite's primary error code (0 for none) and the SQLSTATE ("" for none)."""
    original = _of_driver(error)
    return getattr(original, "sqlite_errorcode", 0) & 0xFF, getattr(original, "sqlstate", None) or ""


def _newest_backup(path: Path) -> str:
    """Return a sentence with the newest of the copies that migrations have kept beside a file."""
    try:
        names = [each.name for each in path.parent.iterdir() if each.name.startswith(f"{path.name}.backup-")]
    except OSError:
        names = []
    # A name ends in the time of its copy; that of an unfinished copy ends otherwise.
    kept = sorted((name for name in names if name.endswith("Z")), key=lambda name: name.rpartition("-")[2])
    if not kept:
        return "a copy of your own: no migration has kept one beside it"
    return f"the newest backup copy beside it, {path.with_name(kept[-1])}"


def _unreachable(error: Exception) -> bool:
    """Return whether no server was reached: psycopg's error then has no code, as for a refused login."""
    original = _of_driver(error)
    # SQLite gives no code where it cannot decode a text.
    psycopgs = type(original).__name__ == "OperationalError" and not isinstance(original, sqlite3.Error)
    return psycopgs and not any(_codes(error)) and not _REFUSAL.search(str(original))
