"""Connections to a results database: transactions with retries, a driver's locks, and rows that cannot be read."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from sqlalchemy import Connection, Engine, select

from orchestrator.database import claims
from orchestrator.database.backends.sqlite import synchronous
from orchestrator.database.errors import DatabaseError, described
from orchestrator.database.lock import living_drivers
from orchestrator.database.patience import patience, persist

if TYPE_CHECKING:
    from orchestrator.database.backends.postgresql import LockedSession
    from orchestrator.records import Driver, Living

T = TypeVar("T")

RESTORE = "restore it from a backup copy, or mend it with sqlite3"


class Connections:
    """An open results database, and how to ask it: the base of `orchestrator.database.store.Database`.

    `where` names it in messages, without a password; `path` is the file, None for PostgreSQL, `network` whether the
    file is on a network file system. `warnings` are for a person, `migrated` describes a migration at opening, `copied`
    marks a copy made during a run. All methods raise DatabaseError.

    `tell` gets a line when a driver begins to wait for a database that is away, and one when it is back; a driver waits
    for `patience` seconds. `wrote` is true once a write has succeeded.
    """

    def __init__(
        self,
        engine: Engine,
        where: str,
        *,
        path: Path | None,
        readonly: bool,
        warnings: Sequence[str] = (),
        network: bool = False,
        migrated: str | None = None,
        copied: bool = False,
    ) -> None:
        self.engine = engine
        self.where = where
        self.path = path
        self.readonly = readonly
        self.warnings = warnings
        self.network = network
        self.migrated = migrated
        self.copied = copied
        self.driver: Driver | None = None
        self.patience = 0.0
        self.tell: Callable[[str], None] = lambda line: None
        self.wrote = False
        self._writer = engine.execution_options(write=True)
        self._session: LockedSession | None = None
        self._mutex = threading.RLock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    def living(self, connection: Connection) -> Living:
        """Return which drivers live, by their tokens."""
        return living_drivers(connection, self.path)

    @contextmanager
    def driven_by(self, driver: Driver, session: LockedSession | None) -> Iterator[None]:
        """Write as this driver within the context; with a session, through it (`driver_lock` calls this)."""
        self.driver, self._session, self.patience = driver, session, patience()
        try:
            yield
        finally:
            self.driver = self._session = None
            self.patience = 0.0

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Yield a connection for other queries; its errors become DatabaseError."""
        with described(self.where), self.engine.connect() as connection, self._trusted():
            yield connection

    @contextmanager
    def _trusted(self) -> Iterator[None]:
        """Blame broken rows, if there are any, for an unexpected error of their reader."""
        try:
            yield
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            if hasattr(error, "exit_code") or self.path is None or not (broken := self.broken_rows()):
                raise
            raise DatabaseError(f"{self.where} has a broken row: {broken[0]}; {RESTORE}") from error

    def read(self, ask: Callable[[Connection], T]) -> T:
        """Run a transaction that only reads, with retries where they may help."""

        def once() -> T:
            with self.engine.connect() as connection, self._trusted():
                return ask(connection)

        return persist(once, self)

    def write(self, work: Callable[[Connection], T], *, durable: bool = False) -> T:
        """Run one transaction, with retries where they may help.

        A transaction may run twice, when the answer to its commit was lost, and must do no harm then: every `work`
        allows for that.
        """
        if self.readonly:
            raise DatabaseError(f"{self.where} was opened for reading")

        def once() -> T:
            with self._mutex:
                answer = self._transaction(work, durable)
            self.wrote = True
            return answer

        return persist(once, self)

    def _transaction(self, work: Callable[[Connection], T], durable: bool) -> T:
        if self._session is not None:
            connection = self._session.connection()
            with connection.begin():
                if self._session.renewed and self.driver is not None:
                    claims.take_up(connection, self.where, self.driver.token)
                answer = work(connection)
            self._session.renewed = False
            return answer
        with self._writer.connect() as connection:
            if durable and self.path is not None:
                with synchronous(connection), connection.begin():
                    return work(connection)
            with connection.begin():
                return work(connection)

    def check_lock(self) -> None:
        """Reconnect and re-acquire the locks if the connection broke; raises Busy if another driver has them."""
        if self._session is not None:
            self.write(lambda connection: connection.execute(select(1)))

    def hurry(self) -> None:
        """Wait no longer for a database that is away, because this driver ends."""
        self.patience = 0.0

    # Rows that cannot be read

    def broken_rows(self) -> list[str]:
        """Return a line for each row of a file whose values do not fit their columns."""
        from orchestrator.database.rows_check import LARGE, SMALL, broken_rows

        with described(self.where):
            return [] if self.path is None else [str(each) for each in broken_rows(self.engine, (*SMALL, *LARGE))]

    def leave_out_broken(self, *, numbers: bool) -> list[str]:
        """Read a file without its broken rows from now on; returns a line for each.

        With `numbers` every epoch and metric is checked as well, which takes a second for a million of them.
        """
        from orchestrator.database.rows_check import LARGE, MOST, SMALL, broken_rows, leave_out

        if self.path is None:
            return []
        with described(self.where):
            broken = broken_rows(self.engine, (*SMALL, *LARGE) if numbers else SMALL)
        if len(broken) >= MOST:
            raise DatabaseError(f"{self.where} has more than {MOST} broken rows, such as {broken[0]}; {RESTORE}")
        if broken:
            leave_out(self.engine, broken)
        return [f"{self.where}: {each}. The row is left out, with what belongs to it; {RESTORE}" for each in broken]
