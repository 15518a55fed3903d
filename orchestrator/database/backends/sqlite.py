"""A results database in an SQLite file: connections, the journal, backup copies."""

from __future__ import annotations

import errno
import os
import shlex
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import NullPool, QueuePool

from orchestrator.database.errors import DatabaseAway, DatabaseError
from orchestrator.database.values import strict_json
from orchestrator.exit_codes import TRY_AGAIN, of_system
from trainer.paths import folder_refusal

# Timeout, in seconds, of one try at another program's lock. A write is retried, see patience.PAUSES.
BUSY_SECONDS = 8.0

# Network file systems. Write-ahead logging keeps its index in shared memory, which two hosts do not share:
# https://sqlite.org/wal.html ("All processes using a database must be on the same host computer").
_NETWORK = {
    "nfs",
    "nfs4",
    "cifs",
    "smb2",
    "smb3",
    "smbfs",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "glusterfs",
    "afs",
    "orangefs",
    "gfs2",
    "ocfs2",
    "ncpfs",
    "9p",
    "virtiofs",
    "vboxsf",
    "prl_fs",
}
_LOCAL_FUSE = {"fuseblk", "fuse.fuse-overlayfs"}

# Errors of a file or folder that this user may not write.
_READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}

# Longest file name in bytes (Linux), less the longest suffix that SQLite appends.
_NAME_BYTES = 255 - len("-journal")

_MAGIC = b"SQLite format 3\0"


def check_file(path: Path, *, create: bool, readonly: bool) -> None:
    """Raise DatabaseError unless `path` is a database file, or may become one."""
    if len(os.fsencode(path.name)) > _NAME_BYTES:
        raise DatabaseError(
            f"{path}: its name is too long for the files beside it ({path.name[:20]}...-journal); at most "
            f"{_NAME_BYTES} bytes are possible"
        )
    try:
        kind = path.stat().st_mode
    except FileNotFoundError:
        kind = None
    except (OSError, ValueError) as error:
        raise DatabaseError(f"{path} cannot be read: {getattr(error, 'strerror', error)}") from error
    if kind is None:
        if not create or readonly:
            raise DatabaseError(
                f"{path} does not exist; `orchestrate run GRID --db {shlex.quote(str(path))}` makes it, "
                "--db or ORCHESTRATE_DB name another"
            )
        if not path.parent.is_dir():
            raise DatabaseError(f"{path} cannot be made: there is no folder {path.parent}; make it first")
        if refusal := folder_refusal(path.absolute().parent):
            why = "is read-only for this user" if refusal.errno in _READ_ONLY else f"takes no file: {refusal.strerror}"
            refused = DatabaseAway if of_system(refusal) == TRY_AGAIN else DatabaseError
            raise refused(f"{path} cannot be made: folder {path.absolute().parent} {why}")
        return
    if stat.S_ISDIR(kind):
        raise DatabaseError(f"{path} is a folder, not a database; name a file in it, such as {path / 'results.db'}")
    if not stat.S_ISREG(kind):
        raise DatabaseError(f"{path} is not a regular file; name a database file")
    try:
        with path.open("rb") as file:
            start = file.read(len(_MAGIC))
    except OSError as error:
        raise DatabaseError(f"{path} cannot be read: {error.strerror}") from error
    if start and start != _MAGIC:
        raise DatabaseError(f"{path} is not a database (it begins with {start!r}); name another with --db")
    if not readonly and not (_file_writable(path) and _folder_writable(path)):
        raise DatabaseError(
            f"{path} cannot be written: the file or its folder is read-only for this user (a database needs both). "
            f"`orchestrate status --db {shlex.quote(str(path))}` and `report` still read it"
        )


def _configure(connection: sqlite3.Connection, *, readonly: bool) -> None:
    connection.execute("PRAGMA foreign_keys = ON")
    if connection.execute("PRAGMA journal_mode").fetchone() == ("wal",):
        # Safe against killed processes; a power cut may lose the last commits. Durable writes ask for FULL.
        connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA temp_store = MEMORY")
    if readonly:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA cache_size = -65536")


def sqlite_engine(path: Path, *, readonly: bool) -> Engine:
    """Return an engine on an existing file, or for a writer on a new one.

    Transactions are explicit: BEGIN for those that read, BEGIN IMMEDIATE for those with the execution option `write`,
    so that a transaction never fails between its first read and its first write.
    """

    # Once, before any connection: closing a file releases all locks that this process has on it.
    folder_writable = not readonly or _folder_writable(path)
    writable = not readonly or (folder_writable and _file_writable(path))

    def connect() -> sqlite3.Connection:
        mode = "mode=rwc" if not readonly else _reading_mode(path, writable, folder_writable)
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?{mode}",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        try:
            _configure(connection, readonly=readonly)
        except UnicodeDecodeError as error:
            connection.close()
            # Damage in the schema: Python cannot read the message in which SQLite quotes it.
            damaged = sqlite3.DatabaseError(str(error))
            damaged.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise damaged from error
        return connection

    # A reader reconnects each time: whether a log can be used depends on the other processes.
    pool = NullPool if readonly else QueuePool
    engine = create_engine("sqlite://", creator=connect, poolclass=pool, json_serializer=strict_json)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        write = connection.get_execution_options().get("write", False)
        raw: Any = connection.connection.driver_connection
        raw.execute("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def set_journal(engine: Engine, path: Path) -> str | None:
    """Choose the journal for the file's disk; returns the warning to show when it is a network file system.

    On a local disk it is the write-ahead log, where readers and the writer never wait for each other.
    """
    kind = network_filesystem(path)
    wanted = "wal" if kind is None else "delete"
    with engine.connect() as connection:
        raw: Any = connection.connection.driver_connection
        try:
            if raw.execute("PRAGMA journal_mode").fetchone()[0] != wanted:
                raw.execute(f"PRAGMA journal_mode = {wanted.upper()}")
                # The next connection opens the new journal.
                connection.invalidate()
        except sqlite3.OperationalError as error:
            # In use now: both journals are correct, and the next driver tries again.
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
    if kind is None:
        return None
    return (
        f"{path} is on a network file system ({kind}), where SQLite is slower, readers and the driver wait for each "
        "other, and locks are as good as the server's; a local disk or PostgreSQL is better"
    )


def network_filesystem(path: Path, mounts: Path = Path("/proc/mounts")) -> str | None:
    """Return the type of the network file system that holds `path`, or None for a local disk or an unknown one."""
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    real = os.path.realpath(path)
    kind, longest = "", -1
    for line in lines:
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        # The kernel writes blanks in a mount point as octal escapes.
        point = fields[1].replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= longest:  # of mounts over each other the last one counts
            kind, longest = fields[2], len(point)
    remote = kind in _NETWORK or (kind.startswith("fuse") and kind not in _LOCAL_FUSE)
    return kind if remote else None


def back_up(engine: Engine, path: Path, version: int) -> Path:
    """Copy the whole database beside itself, write-ahead log included, and return the copy's path.

    Raises DatabaseError, and leaves no part of a copy, when the disk is full or read-only.
    """
    time = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    copy = path.with_name(f"{path.name}.backup-{version}-{time}")
    partial = copy.with_name(copy.name + ".partial")
    try:
        copy_file(engine, partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.rename(copy)
    except (OSError, sqlite3.Error) as error:
        partial.unlink(missing_ok=True)
        raise DatabaseError(f"{path} is unchanged: its backup copy {copy} could not be written ({error})") from error
    return copy


def copy_file(engine: Engine, target: Path) -> None:
    """Copy a whole database file as it is at one moment, write-ahead log included, while others read and write it."""
    copy = sqlite3.connect(target)
    try:
        with engine.connect() as connection:
            source: Any = connection.connection.driver_connection
            source.backup(copy)
        # A copy that is moved away alone must not need a write-ahead log.
        copy.execute("PRAGMA journal_mode = DELETE")
    finally:
        copy.close()


def lacks_log(path: Path) -> bool:
    """Return whether a file in write-ahead mode lacks its log and lock file, as a copy of the file alone does."""
    beside = (path.with_name(path.name + end) for end in ("-wal", ".lock"))
    with path.open("rb") as file:
        return file.read(20)[18:] == b"\2\2" and not any(other.exists() for other in beside)


def _folder_writable(path: Path) -> bool:
    refusal = folder_refusal(path.absolute().parent)
    return refusal is None or refusal.errno not in _READ_ONLY


def _file_writable(path: Path) -> bool:
    try:
        with path.open("r+b"):
            return True
    except OSError as error:
        return error.errno not in _READ_ONLY


def _reading_mode(path: Path, writable: bool, folder_writable: bool) -> str:
    if writable:
        # As a writer would open it, so that the last process to close it tidies up the log; query_only forbids writes.
        return "mode=rw"
    # In a folder without write permission no log can be made: a file without one is complete, and nobody writes it.
    if not folder_writable and not path.with_name(path.name + "-wal").exists():
        return "mode=ro&immutable=1"
    return "mode=ro"


@contextmanager
def synchronous(connection: Connection) -> Iterator[None]:
    """Commit to the disk, with all earlier commits, and not only to the operating system."""
    raw: Any = connection.connection.driver_connection
    (before,) = raw.execute("PRAGMA synchronous").fetchone()
    raw.execute("PRAGMA synchronous = FULL")
    try:
        yield
    finally:
        raw.execute(f"PRAGMA synchronous = {before}")
