"""A results database on a PostgreSQL server: connections, and locks that the server frees with their connection."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.database.errors import Busy, DatabaseError, Holder
from orchestrator.database.values import now, strict_json

# In seconds (idle, interval) and probes: a server notices a vanished host within a minute, and frees its locks. The
# default takes hours.
_KEEPALIVES = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
CONNECT_SECONDS = 10
UNANSWERED_SECONDS = 60


def postgresql_engine(url: URL, *, readonly: bool) -> Engine:
    """Return an engine through psycopg 3; raises DatabaseError when psycopg is not installed."""
    options = [f"-c tcp_{name}={value}" for name, value in _KEEPALIVES.items()]
    if readonly:
        options.append("-c default_transaction_read_only=on")
    given = url.query.get("options", ())
    options = [*((given,) if isinstance(given, str) else given), *options]
    arguments = {
        "connect_timeout": CONNECT_SECONDS,
        **_KEEPALIVES,
        # Keepalives do not cover a wait for an answer: without this a cut network is noticed after 15 minutes.
        "tcp_user_timeout": UNANSWERED_SECONDS * 1000,
        "options": " ".join(options),
    }
    if "application_name" not in url.query:
        arguments["application_name"] = f"orchestrate {os.getpid()}@{socket.gethostname()}"[:63]
    try:
        return create_engine(
            url.set(drivername="postgresql+psycopg").difference_update_query(["options"]),
            connect_args=arguments,
            json_serializer=strict_json,
            pool_pre_ping=True,
        )
    except ModuleNotFoundError as error:
        raise DatabaseError(
            f"{url.render_as_string()} needs psycopg; run: pip install 'orchestrate-ablations[postgres]'"
        ) from error


def lock_number(*names: str) -> int:
    """Return a signed 64-bit number for an advisory lock of that name."""
    digest = hashlib.blake2b("\0".join(("orchestrate", *names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def advisory_locks(connection: Connection) -> set[int]:
    """Return the numbers of the advisory locks that any session holds on this database."""
    rows = connection.execute(
        text(
            "SELECT l.classid, l.objid FROM pg_locks l "
            "JOIN pg_database d ON d.oid = l.database AND d.datname = current_database() "
            "WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1"
        )
    )
    unsigned = (int(high) << 32 | int(low) for high, low in rows)
    return {number - 2**64 if number >= 2**63 else number for number in unsigned}


# Drivers share this lock; a migration holds it alone.
SCHEMA = lock_number("schema")
# Serialises bulk updates to avoid deadlocks.
BULK = lock_number("bulk")


class LockedSession:
    """A connection that holds advisory locks of the session.

    A driver writes through it: a write that succeeds proves that the locks are still held.
    """

    def __init__(self, engine: Engine, where: str, *, exclusive: list[int], shared: list[int], holder: Holder) -> None:
        self._engine = engine
        self._where = where
        self._exclusive = exclusive
        self._shared = shared
        self._name = _session_name(holder)
        self._connection: Connection | None = None
        self._backend: dict[str, Any] | None = None
        # True once a lost connection was replaced, until the next write.
        self.renewed = False

    def connection(self) -> Connection:
        """Return the connection, with all locks; a new one after a loss.

        Raises Busy when another session holds one of the locks, also when it took the lock after a loss.
        """
        held = self._connection
        if held is not None and not held.invalidated and not held.closed:
            return held
        self.close()
        connection = self._engine.connect()
        try:
            if self._backend is not None:
                self.renewed = True
                # The server may not have noticed that the former session is dead, and keep its locks.
                connection.execute(text(_END_SESSION), self._backend)
            self._backend = dict(connection.execute(text(_THIS_SESSION)).mappings().one())
            name = {"name": self._name}
            connection.execute(text("SELECT set_config('application_name', :name, false)"), name)
            wanted = [(lock, "") for lock in self._exclusive] + [(lock, "_shared") for lock in self._shared]
            for lock, kind in wanted:
                if not connection.execute(text(f"SELECT pg_try_advisory_lock{kind}(:lock)"), {"lock": lock}).scalar():
                    raise Busy(self._where, holder_of(connection, lock))
            connection.commit()
        except BaseException:
            connection.invalidate()
            connection.close()
            raise
        self._connection = connection
        return connection

    def close(self) -> None:
        """Free the locks and end the session."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        # The server frees the locks when it notices that the session ended; the next driver may be faster than that.
        with suppress(SQLAlchemyError):
            connection.rollback()
            connection.execute(text("SELECT pg_advisory_unlock_all()"))
        connection.invalidate()
        connection.close()


def holder_of(connection: Connection, lock: int) -> Holder:
    """Return the holder of a lock, from the name of its session."""
    name = connection.execute(
        text(
            "SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid "
            "JOIN pg_database d ON d.oid = l.database AND d.datname = current_database() "
            "WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 "
            "AND l.classid = CAST(:high AS bigint) AND l.objid = CAST(:low AS bigint) LIMIT 1"
        ),
        {"high": lock >> 32 & 0xFFFFFFFF, "low": lock & 0xFFFFFFFF},
    ).scalar()
    match = _SESSION.fullmatch(name or "")
    if match is None:
        return Holder()
    started = datetime.fromtimestamp(int(match["started"]), UTC).replace(tzinfo=None)
    return Holder(match["host"], int(match["pid"]), started, match["grid"])


def _session_name(holder: Holder) -> str:
    """Return the name of a driver's session; the server keeps 63 bytes, so the grid's name comes last."""
    started = int((holder.started or now()).replace(tzinfo=UTC).timestamp())
    return f"orchestrate {holder.pid}@{(holder.host or '')[:20]} {started} {holder.grid}"


_THIS_SESSION = "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
_END_SESSION = (
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid = :pid AND backend_start = :backend_start"
)
_SESSION = re.compile(r"orchestrate (?P<pid>\d+)@(?P<host>\S+) (?P<started>\d+) (?P<grid>.*)")
