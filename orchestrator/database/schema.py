"""Versions of the tables: create the present one, refuse newer or foreign ones, migrate older ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, text

from orchestrator.database.errors import DatabaseError
from orchestrator.database.models import Base

if TYPE_CHECKING:
    from alembic.config import Config

# The newest revision in migrations/versions; they are numbered 1, 2, ...
VERSION = 3
VERSION_TABLE = "orchestrate_version"
MIGRATIONS = Path(__file__).parent / "migrations"


def version_of(connection: Connection, where: str) -> int:
    """Return the version of the tables, 0 when there are none.

    Raises DatabaseError when the tables are another program's, and when this program is too old for them.
    """
    tables = set(connection.scalars(text(_TABLES[connection.dialect.name])))
    if not tables:
        return 0
    if VERSION_TABLE not in tables:
        names = ", ".join(sorted(tables)[:3])
        raise DatabaseError(
            f"{where} belongs to another program: it has the tables {names}{', ...' if len(tables) > 3 else ''} but "
            f"not {VERSION_TABLE}. Name another database with --db"
        )
    versions = connection.scalars(text(f"SELECT version_num FROM {VERSION_TABLE}")).all()
    if len(versions) != 1 or not _is_version(versions[0]):
        shown = ", ".join(str(value)[:40] for value in versions[:3]) or "none"
        raise DatabaseError(f"{where} has an unknown version, {shown}; restore it from a backup copy")
    version = int(versions[0])
    if version > VERSION:
        raise DatabaseError(
            f"{where} is of version {version}, and this `orchestrate` knows versions up to {VERSION}: "
            "a newer release wrote it. Upgrade this one, or name another database with --db"
        )
    return version


def _is_version(value: Any) -> bool:
    return isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 10


def check(connection: Connection, where: str, *, write: bool) -> None:
    """Compare the database's tables and columns with those of the present version.

    Raises DatabaseError for a missing one and for a view in a table's place; with `write` also for triggers, which
    would change recorded rows.
    """
    stored: dict[str, set[str]] = {}
    for table, column in connection.execute(text(_COLUMNS[connection.dialect.name])):
        stored.setdefault(table, set()).add(column)
    for table in Base.metadata.sorted_tables:
        missing = [column.name for column in table.columns if column.name not in stored.get(table.name, ())]
        if table.name not in stored:
            raise DatabaseError(f"{where} has no table {table.name} (or something else of that name); {_RESTORE}")
        if missing:
            raise DatabaseError(f"{where}: table {table.name} has no column {', '.join(missing)}; {_RESTORE}")
    if write and (trigger := connection.execute(text(_TRIGGERS[connection.dialect.name])).first()):
        raise DatabaseError(
            f"{where} has a trigger {trigger[0]} on table {trigger[1]}, which would change what is recorded; drop it"
        )


_RESTORE = "it is damaged or was changed: restore it from a backup copy"
_COLUMNS = {
    "sqlite": "SELECT m.name, c.name FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type = 'table'",
    "postgresql": "SELECT t.table_name, c.column_name FROM information_schema.tables t "
    "JOIN information_schema.columns c USING (table_schema, table_name) "
    "WHERE t.table_schema = current_schema() AND t.table_type = 'BASE TABLE'",
}
_TRIGGERS = {
    "sqlite": "SELECT name, tbl_name FROM sqlite_master WHERE type = 'trigger'",
    "postgresql": "SELECT trigger_name, event_object_table FROM information_schema.triggers "
    "WHERE trigger_schema = current_schema()",
}
_TABLES = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
    "postgresql": "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()",
}


def create(connection: Connection) -> None:
    """Create the tables of the present version in an empty database."""
    Base.metadata.create_all(connection)
    connection.execute(
        text(
            f"CREATE TABLE {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL, "
            f"CONSTRAINT {VERSION_TABLE}_pkc PRIMARY KEY (version_num))"
        )
    )
    connection.execute(text(f"INSERT INTO {VERSION_TABLE} VALUES (:version)"), {"version": str(VERSION)})


def migrate(connection: Connection) -> None:
    """Migrate older tables to the present version, inside the transaction that is open on `connection`."""
    from alembic import command

    command.upgrade(alembic_config(connection), str(VERSION))


def alembic_config(connection: Connection) -> Config:
    """Return Alembic's configuration for our migrations on an open connection."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    config.attributes["connection"] = connection
    return config
