"""Open a results database: find it, and refuse another program's file or another version's tables."""

from __future__ import annotations

import os
import shlex
import socket
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, make_url, text
from sqlalchemy.exc import ArgumentError, StatementError

from orchestrator.database import schema
from orchestrator.database.backends.postgresql import BULK, SCHEMA, LockedSession, postgresql_engine
from orchestrator.database.backends.sqlite import back_up, check_file, lacks_log, set_journal, sqlite_engine
from orchestrator.database.backup import made_during_a_run
from orchestrator.database.errors import DatabaseError, Holder, describe, described
from orchestrator.database.lock import file_lock
from orchestrator.database.store import Database
from orchestrator.database.values import now
from trainer.paths import PathError, user_path


def open_database(
    location: str | Path, *, create: bool = False, migrate: bool = False, readonly: bool = False
) -> Database:
    """Open the results database at a path or URL (sqlite:///FILE, postgresql://...).

    `create` makes it where there is none. `migrate` brings an older version up to date: for a file it keeps a backup
    copy beside it; a PostgreSQL database is migrated in one transaction, and its backups are its administrator's. A
    `readonly` database never blocks the driver. Raises DatabaseError when there is no such database, when it is another
    program's, newer, or older without `migrate`; Busy when it has to be migrated while a driver holds it.
    """
    path, url = _locate(location)
    if path is not None:
        where = str(path)
        check_file(path, create=create, readonly=readonly)
        # Asked before opening, because opening the database creates a log.
        alone = path.exists() and lacks_log(path)
        engine = sqlite_engine(path, readonly=readonly)
    else:
        assert url is not None
        alone = False
        # Without the query, which may contain a password as well.
        where = url.set(query={}).render_as_string(hide_password=True)
        engine = postgresql_engine(url, readonly=readonly)
    try:
        with described(where):
            migrated = _settle_version(engine, where, path, create and not readonly, migrate and not readonly)
            with engine.connect() as connection:
                schema.check(connection, where, write=not readonly)
                warning = _missing_log(connection, path) if path is not None and alone else None
                copied = made_during_a_run(connection, where)
            # Only now it is certain that the file is ours to change.
            network = None if path is None or readonly else set_journal(engine, path)
    except BaseException:
        engine.dispose()
        raise
    warnings = [line for line in (warning, copied, network) if line]
    return Database(
        engine,
        where,
        path=path,
        readonly=readonly,
        warnings=warnings,
        network=bool(network),
        migrated=migrated,
        copied=bool(copied),
    )


def _missing_log(connection: Connection, path: Path) -> str | None:
    """Return a warning for a file that may be a copy without the write-ahead log of a run that went on."""
    unfinished = connection.execute(text("SELECT 1 FROM attempts WHERE outcome IS NULL LIMIT 1")).first()
    if unfinished is None:
        return None
    return (
        f"{path} holds unfinished attempts, and no {path.name}-wal is beside it: if it was copied while trials ran, "
        "what was recorded last is missing. `orchestrate backup FILE` makes whole copies, at any time"
    )


def _locate(location: str | Path) -> tuple[Path, None] | tuple[None, URL]:
    """Return a file's path or a PostgreSQL URL."""
    given = str(location)
    if "://" not in given:
        if given in ("", ":memory:"):
            raise DatabaseError(f"{given!r} names no file; give a path such as results.db")
        return _expanded(given), None
    try:
        url = make_url(given)
    except (ArgumentError, ValueError):
        raise DatabaseError("the database's URL cannot be read; it is like postgresql://user@host:5432/name") from None
    kind = url.drivername.split("+")[0]
    if kind == "sqlite":
        if not url.database or url.database == ":memory:" or url.query:
            raise DatabaseError(f"{given} names no file; give sqlite:///FILE, or just the path")
        return _expanded(url.database), None
    if kind in ("postgresql", "postgres"):
        if not url.database:
            raise DatabaseError(
                f"{url.render_as_string()} names no database; it is like postgresql://user@host:5432/name"
            )
        return None, url
    raise DatabaseError(f"{kind} is not supported: the database is an SQLite file or postgresql://...")


def _expanded(path: str) -> Path:
    try:
        return user_path(path)
    except PathError as error:
        raise DatabaseError(str(error)) from None


def _settle_version(engine: Engine, where: str, path: Path | None, create: bool, migrate: bool) -> str | None:
    """Create or migrate as allowed; returns a line about a migration, raises DatabaseError for another version."""
    with engine.connect() as connection:
        version = schema.version_of(connection, where)
    if version == schema.VERSION:
        return None
    if version == 0:
        if not create:
            raise DatabaseError(
                f"{where} is empty; `orchestrate run GRID --db {shlex.quote(where)}` makes its tables, "
                "or name another with --db"
            )
        with engine.connect() as connection:
            connection = connection.execution_options(write=True)
            with connection.begin():
                if path is None:
                    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": BULK})
                # Another process may have created the tables first.
                if schema.version_of(connection, where) == 0:
                    schema.create(connection)
        return None
    if not migrate:
        raise DatabaseError(
            f"{where} is of version {version}, and this `orchestrate` needs {schema.VERSION}; "
            f"run `orchestrate migrate --db {shlex.quote(where)}`, which keeps a backup copy of a file"
        )
    try:
        return _migrate_file(engine, path) if path is not None else _migrate_server(engine, where, version)
    except StatementError as error:
        raise DatabaseError(
            f"{describe(error, where)}; its migration from version {version} to {schema.VERSION} was undone"
        ) from error


def _migrate_file(engine: Engine, path: Path) -> str | None:
    with file_lock(path, _migration()):
        with engine.connect() as connection:
            version = schema.version_of(connection, str(path))
        if version == schema.VERSION:
            # Another process has migrated it while this one waited for the lock.
            return None
        copy = back_up(engine, path, version)
        with engine.connect() as connection:
            raw: Any = connection.connection.driver_connection
            # A migration may rebuild a table: dropping the old one must not delete the rows that refer to it.
            raw.execute("PRAGMA foreign_keys = OFF")
            try:
                connection = connection.execution_options(write=True)
                with connection.begin():
                    schema.migrate(connection)
                    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
                    if broken:
                        raise DatabaseError(f"{path} is unchanged: the migration would leave {broken[0]} incomplete")
            finally:
                raw.execute("PRAGMA foreign_keys = ON")
    return f"{path} was migrated from version {version} to {schema.VERSION}; the former is kept as {copy}"


def _migration() -> Holder:
    return Holder(socket.gethostname(), os.getpid(), now(), "(migration)")


def _migrate_server(engine: Engine, where: str, version: int) -> str:
    session = LockedSession(engine, where, exclusive=[SCHEMA], shared=[], holder=_migration())
    try:
        connection = session.connection()
        with connection.begin():
            schema.migrate(connection)
    finally:
        session.close()
    return f"{where} was migrated from version {version} to {schema.VERSION} in one transaction, without a backup copy"
