"""Workplaces, and databases: a new SQLite file, a new database on a private PostgreSQL server, or each in turn."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.database import Database, Driver, driver_lock, open_database
from tests.orchestrator.databases.postgresql_server import Missing, Server, postgresql_server
from tests.orchestrator.runs import Workplace
from tests.orchestrator.runs import workplace as new_workplace


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A PostgreSQL server of this test run; skips where there is none."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    try:
        with postgresql_server() as server:
            yield server
    except Missing as reason:
        pytest.skip(str(reason))


@pytest.fixture
def workplace() -> Iterator[Workplace]:
    """A new workplace, whose path is short however long that of pytest's own folders is."""
    with new_workplace() as made:
        yield made


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that an unprivileged user can reach; pytest's own cannot be."""
    folder = Path(tempfile.mkdtemp(prefix="orchestrate-"))
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return a location where a database may be made, on each of the two kinds."""
    if request.param == "sqlite":
        return str(tmp_path / "results.db")
    return request.getfixturevalue("postgresql").new_database()


@pytest.fixture
def database(location: str) -> Iterator[Database]:
    """A new, empty database on each of the two kinds."""
    with open_database(location, create=True) as opened:
        yield opened


@pytest.fixture
def driver(database: Database) -> Iterator[Driver]:
    """The holder of the new database's driver lock."""
    with driver_lock(database, grid="table1") as held:
        yield held
