"""Hold the database as its driver: one per SQLite file, one per grid on PostgreSQL."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from orchestrator.database.backends.postgresql import SCHEMA, LockedSession, lock_number
from orchestrator.database.errors import Busy, DatabaseError, Holder, described
from orchestrator.database.lock import file_lock
from orchestrator.database.values import clean, now
from orchestrator.records import Driver

if TYPE_CHECKING:
    from orchestrator.database.store import Database


@contextmanager
def driver_lock(db: Database, *, grid: str) -> Iterator[Driver]:
    """Hold the database as its driver.

    On an SQLite file there is one driver; on PostgreSQL one for each grid, and claims keep a trial from running
    twice. Raises Busy when another holds it, and DatabaseError when `db` was opened for reading.
    """
    if db.readonly:
        raise DatabaseError(f"{db.where} was opened for reading; a driver has to write it")
    host, pid = socket.gethostname(), os.getpid()
    holder = Holder(host, pid, now(), clean(grid))
    driver = Driver(secrets.randbelow(2**63 - 1) + 1, host, pid)
    if db.path is not None:
        with file_lock(db.path, holder), db.driven_by(driver, None):
            yield driver
        return
    if db.driver is not None:
        raise Busy(db.where, Holder(db.driver.host, db.driver.pid))
    session = LockedSession(
        db.engine, db.where, exclusive=[lock_number("grid", grid), driver.token], shared=[SCHEMA], holder=holder
    )
    with described(db.where):
        session.connection()
    try:
        with db.driven_by(driver, session):
            yield driver
    finally:
        session.close()
