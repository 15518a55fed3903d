"""The driver's lock: one driver per SQLite file, one per grid on PostgreSQL; it ends with its process."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shlex
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection

from orchestrator.database.backends.postgresql import advisory_locks
from orchestrator.database.errors import NO_LOCKS, Busy, DatabaseError, Holder
from orchestrator.records import Living

# Locks of this process. POSIX locks belong to a process, not to an open file: a second lock of this process would
# succeed, and closing it would free both.
_held: dict[str, Holder] = {}


# C's struct flock on 64-bit Linux: type, whence, start, length, pid.
_FLOCK = "hhqqi0q"


@contextmanager
def file_lock(path: Path, holder: Holder) -> Iterator[None]:
    """Lock `<database file>.lock`, which names the holder; raises Busy when another process has locked it."""
    lock = os.path.realpath(path) + ".lock"
    if lock in _held:
        raise Busy(str(path), _held[lock], file=True)
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except PermissionError as error:
        raise DatabaseError(
            f"{path} cannot be locked: {lock} cannot be opened ({error.strerror}); whoever it belongs to can give the "
            f"right: chmod --reference {shlex.quote(path.name)} {shlex.quote(os.path.basename(lock))}"
        ) from error
    except OSError as error:
        raise DatabaseError(f"{path} cannot be locked: {lock} cannot be opened ({error.strerror})") from error
    try:
        # Every user who may write the database may lock it, whatever the umask of its first user.
        with suppress(OSError):
            os.fchmod(descriptor, stat.S_IMODE(os.stat(path).st_mode) & 0o666)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise Busy(str(path), _read_holder(descriptor), file=True) from None
            raise DatabaseError(f"{path} cannot be locked: {NO_LOCKS} ({error.strerror})") from error
        _held[lock] = holder
        try:
            _write_holder(descriptor, path, holder)
            yield
            os.ftruncate(descriptor, 0)
        finally:
            del _held[lock]
    finally:
        # Never unlinked: a process that waits with the old file open would lock a file that others no longer see.
        os.close(descriptor)


def living_drivers(connection: Connection, path: Path | None) -> Living:
    """Return which drivers of the database live, by their locks; `path` is that of an SQLite file."""
    if path is None:
        held = advisory_locks(connection)
        return lambda token: token in held
    locked = _is_locked(path)
    # The living driver released the claims of earlier drivers when it began.
    return lambda token: locked


def _is_locked(path: Path) -> bool:
    """Return whether any process holds a database file's lock, True where unknown; disturbs no driver."""
    lock = os.path.realpath(path) + ".lock"
    # Opening and closing the file here would free the lock that this process has.
    if lock in _held:
        return True
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        question = struct.pack(_FLOCK, fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
        answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, question)
        return bool(struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK)
    except OSError:
        return True
    finally:
        os.close(descriptor)


def _write_holder(descriptor: int, path: Path, holder: Holder) -> None:
    started = holder.started and holder.started.isoformat()
    facts = {"host": holder.host, "pid": holder.pid, "started": started, "grid": holder.grid}
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(facts).encode(), 0)
    except OSError as error:
        raise DatabaseError(f"{path} cannot be locked: its lock file cannot be written ({error.strerror})") from error


def _read_holder(descriptor: int) -> Holder:
    """Return the facts about the holder; unknown ones where the holder has not written them yet."""
    try:
        facts = json.loads(os.pread(descriptor, 4096, 0))
        return Holder(facts["host"], facts["pid"], datetime.fromisoformat(facts["started"]), facts["grid"])
    except (ValueError, KeyError, TypeError):
        return Holder()
