"""The version of the tables: creating them, refusing what is newer or foreign, migrating what is older."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from orchestrator.database.errors import DatabaseError
from orchestrator.database.models import Base

if TYPE_CHECKING:
    from alembic.config import Config

# The newest revision in migrations/versions; they are numbered 1, 2, ...
VERSION = 1
VERSION_TABLE = "orchestrate_version"
MIGRATIONS = Path(__file__).parent / "migrations"


def version_of(connection: Connection, where: str) -> int:
    """The version of the tables there, 0 when there are none at all.

    Raises DatabaseError when the tables are another program's, and when this program is too old for them.
    """
    tables = set(connection.scalars(text(_TABLES[connection.dialect.name])))
    if not tables:
        return 0
    if VERSION_TABLE not in tables:
        some = ", ".join(sorted(tables)[:3])
        raise DatabaseError(
            f"{where} belongs to another program: it has the tables {some}{', ...' if len(tables) > 3 else ''} but not "
            f"{VERSION_TABLE}. Name another database with --db"
        )
    found = connection.scalars(text(f"SELECT version_num FROM {VERSION_TABLE}")).all()
    if len(found) != 1 or not found[0].isdecimal():
        raise DatabaseError(
            f"{where} has an unknown version, {', '.join(found) or 'none'}; restore it from a backup copy"
        )
    version = int(found[0])
    if version > VERSION:
        raise DatabaseError(
            f"{where} is of version {version}, and this `orchestrate` knows versions up to {VERSION}: "
            "a newer release wrote it. Upgrade this one, or name another database with --db"
        )
    return version


_TABLES = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
    "postgresql": "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()",
}


def create(connection: Connection) -> None:
    """Make the tables of the present version in an empty database."""
    Base.metadata.create_all(connection)
    connection.execute(
        text(
            f"CREATE TABLE {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL, "
            f"CONSTRAINT {VERSION_TABLE}_pkc PRIMARY KEY (version_num))"
        )
    )
    connection.execute(text(f"INSERT INTO {VERSION_TABLE} VALUES (:version)"), {"version": str(VERSION)})


def migrate(connection: Connection) -> None:
    """Bring older tables to the present version, inside the transaction that is open on `connection`."""
    from alembic import command

    command.upgrade(alembic_config(connection), str(VERSION))


def alembic_config(connection: Connection) -> Config:
    """Alembic's configuration for our migrations on an open connection."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    config.attributes["connection"] = connection
    return config
