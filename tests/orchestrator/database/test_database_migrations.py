"""Versions of the database: they are one with the models, old files go on, newer ones are refused."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, inspect, make_url, text
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.database import Busy, DatabaseError, driver_lock, open_database, schema
from orchestrator.database.backends.postgresql import postgresql_engine
from orchestrator.database.backends.sqlite import sqlite_engine
from orchestrator.database.errors import Holder
from orchestrator.database.lock import file_lock
from orchestrator.database.models import Base
from tests.orchestrator.databases import golden
from tests.orchestrator.databases.postgresql_server import Server
from tests.orchestrator.databases.samples import accepted, count, result, save, start

# What a later release might do: rebuild a table that others point to, on SQLite with the risk of losing their rows.
NEXT = """
import sqlalchemy as sa
from alembic import op

revision = "4"
down_revision = "3"


def upgrade():
    with op.batch_alter_table("trials", recreate="auto") as batch:
        batch.add_column(sa.Column("note", sa.Text))
        batch.alter_column("state", type_=sa.String(32), existing_type=sa.String(16), existing_nullable=False)
    {}
"""


@pytest.fixture
def engine(location: str) -> Iterator[Engine]:
    """An engine on nothing yet."""
    if "://" in location:
        made = postgresql_engine(make_url(location), readonly=False)
    else:
        made = sqlite_engine(Path(location), readonly=False)
    yield made
    made.dispose()


@pytest.fixture
def next_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes this the next release, whose migration also does what it is told."""

    def release(more: str = "pass") -> None:
        folder = tmp_path / "migrations"
        shutil.copytree(schema.MIGRATIONS, folder, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "versions" / "0004_next.py").write_text(NEXT.format(more))
        monkeypatch.setattr(schema, "MIGRATIONS", folder)
        monkeypatch.setattr(schema, "VERSION", 4)

    return release


def run(engine: Engine, work: Callable[[Connection], object]) -> None:
    with engine.connect() as connection:
        connection = connection.execution_options(write=True)
        with connection.begin():
            work(connection)


def shape(connection: Connection) -> object:
    """Everything the database itself says of its tables."""
    if connection.dialect.name == "sqlite":
        rows = connection.exec_driver_sql("SELECT type, name, tbl_name, sql FROM sqlite_master")
        return sorted((*row[:3], re.sub(r"\s", "", row[3] or "")) for row in rows)
    columns = "table_name, column_name, data_type, character_maximum_length, is_nullable, column_default"
    here = "table_schema = current_schema()"
    rows = connection.exec_driver_sql(f"SELECT {columns} FROM information_schema.columns WHERE {here}")
    indexes = connection.exec_driver_sql("SELECT indexdef FROM pg_indexes WHERE schemaname = current_schema()")
    rules = connection.exec_driver_sql(
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE connamespace = current_schema()::regnamespace"
    )
    # Columns in any order: PostgreSQL lists them by their place, which does not matter.
    return [sorted(str(tuple(row)) for row in part) for part in (rows, indexes, rules)]


# Models and migrations


def test_the_migrations_make_what_the_models_say(engine: Engine) -> None:
    shapes = []
    run(engine, schema.migrate)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": schema.VERSION_TABLE})
        assert compare_metadata(context, Base.metadata) == []
        shapes.append(shape(connection))
        assert schema.version_of(connection, "here") == schema.VERSION

    def empty(connection: Connection) -> None:
        Base.metadata.drop_all(connection)
        connection.execute(text(f"DROP TABLE {schema.VERSION_TABLE}"))

    run(engine, empty)
    run(engine, schema.create)
    with engine.connect() as connection:
        shapes.append(shape(connection))
        assert schema.version_of(connection, "here") == schema.VERSION
    assert shapes[0] == shapes[1]
    assert "accepted=1" in str(shapes).replace(" ", "")


def test_revisions_count_up_to_the_version(engine: Engine) -> None:
    with engine.connect() as connection:
        script = ScriptDirectory.from_config(schema.alembic_config(connection))
    revisions = [revision.revision for revision in script.walk_revisions()]
    assert revisions == [str(number) for number in range(schema.VERSION, 0, -1)]


def test_every_version_has_its_old_database() -> None:
    files = {path.name for path in golden.FOLDER.glob("*.sqlite")}
    assert files == {f"v{number}.sqlite" for number in range(1, schema.VERSION + 1)}


# Old databases


@pytest.mark.parametrize("version", range(1, schema.VERSION + 1))
def test_an_old_database_is_opened_and_used(version: int, tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    shutil.copy(golden.FOLDER / f"v{version}.sqlite", path)
    keys = [f"{seed:064x}" for seed in range(5)]
    with open_database(path, migrate=True) as database, driver_lock(database, grid="table1") as driver:
        assert (database.migrated is None) == (version == schema.VERSION)
        assert [(grid.name, grid.trials, grid.report) for grid in database.grids()] == [
            ("table1", 5, {"tables": [1]}),
            ("table3", 2, {"tables": [3]}),
        ]
        assert [(row.state, row.epochs_done, row.best_top1_error) for row in database.progress("table1")] == [
            ("done", 3, 25.0),
            ("done", 3, 24.5),
            ("failed", 0, None),
            ("pending", 1, 25.0),
            ("pending", 0, None),
        ]
        assert accepted(database, keys[1]) == {0: 1, 1: 2, 2: 2}
        assert [(row.purpose, row.outcome) for row in database.attempts(keys[0])] == [
            ("train", "done"),
            ("time", "done"),
        ]
        assert [(row.error, row.count) for row in database.failures()] == [("RuntimeError: 1", 1)]
        assert (count(database, "epochs"), count(database, "evaluations")) == (9, 32)
        titles = [(part.kind, part.name, part.version, part.title, part.digest) for part in database.parts()]
        if version == 1:
            # Known by the configurations, their code is not; what the trials lack (a data set) has no row.
            assert titles == [("network", "resnet18", 1, "ResNet-18", "")]
            assert (count(database, "attempt_parts"), count(database, "metric_values")) == (0, 0)
        else:
            assert database.parts() == golden.PARTS
            assert (count(database, "attempt_parts"), count(database, "metric_values")) == (4, 16)
        # Of two done trials the best and the last epoch are kept; older versions kept no image.
        assert (count(database, "outcomes"), count(database, "label_sets")) == ((4, 1) if version >= 3 else (0, 0))
        with database.engine.connect() as connection:
            digests = connection.execute(text("SELECT key, numbers_sha256 FROM trials WHERE state = 'done'")).all()
        # The same two computations, whichever version digested them.
        assert {key: digest[:8] for key, digest in digests} == {keys[0]: "4e2be672", keys[1]: "f379fb68"}

        assert database.release_stale() == 0
        assert database.retry(keys) == 1
        assert database.claim(keys, driver) == set(keys[2:])
        attempt = start(database, keys[3])
        database.record_epoch(attempt, result(0, restored=True), "exclusive")
        for epoch in (1, 2):
            database.record_epoch(attempt, result(epoch, error=20.0 + epoch), "exclusive")
        database.finish_attempt(attempt, "done", trial_state="done")
        assert accepted(database, keys[3]) == {0: 1, 1: 2, 2: 2}
        assert database.progress("table1")[3].best_top1_error == 21.0
        save(database, 7)
        assert database.grids()[0].trials == 7


def test_the_second_version_names_the_parts_that_the_first_used(engine: Engine, location: str) -> None:
    configs = [
        {"network": "resnet18", "peer": "mobilenet", "methods": {"pskd": {}, "dml": {}}, "dataset": "cifar100"},
        {"network": "resnet18", "peer": None, "methods": {"gone": {}}, "dataset": "cifar10", "ood_dataset": "svhn"},
        {"network": "a_removed_one", "methods": []},
    ]

    def first_version(connection: Connection) -> None:
        command.upgrade(schema.alembic_config(connection), "1")
        for number, config in enumerate(configs):
            values = {"key": str(number), "config": json.dumps(config), "state": "pending", "created": datetime.now()}
            connection.execute(
                text(
                    "INSERT INTO trials (id, key, config, state, created) VALUES (:id, :key, :config, :state, :created)"
                ),
                {"id": number + 1, **values},
            )

    run(engine, first_version)
    with open_database(location, migrate=True) as database:
        titles = {(part.kind, part.name, part.title) for part in database.parts()}
    assert titles == {
        ("network", "resnet18", "ResNet-18"),
        ("network", "mobilenet", "MobileNet"),
        ("method", "pskd", "PS-KD"),
        ("method", "dml", "DML"),
        ("data set", "cifar100", "CIFAR-100"),
        ("data set", "cifar10", "CIFAR-10"),
        ("data set", "svhn", "SVHN"),
    }


def test_an_older_file_is_migrated_only_when_asked_and_after_a_backup(tmp_path: Path, next_version: Callable) -> None:
    path = tmp_path / "results.db"
    golden.write(path)
    before = sqlite3.connect(path)
    rows = before.execute("SELECT count(*) FROM evaluations").fetchone()
    dump = list(before.iterdump())
    before.close()
    next_version()
    for options in ({}, {"readonly": True}, {"readonly": True, "migrate": True}, {"create": True}):
        with pytest.raises(
            DatabaseError, match="is of version 3, and this `orchestrate` needs 4; run `orchestrate migrate --db "
        ):
            open_database(path, **options)
    with open_database(path, migrate=True) as database:
        (copy,) = tmp_path.glob("results.db.backup-*")
        assert database.migrated == f"{path} was migrated from version 3 to 4; the former is kept as {copy}"
        assert re.fullmatch(r"results\.db\.backup-3-\d{8}T\d{6}Z", copy.name)
        with database.engine.connect() as connection:
            assert "note" in {column["name"] for column in inspect(connection).get_columns("trials")}
            assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
            assert connection.exec_driver_sql("SELECT count(*) FROM evaluations").one() == rows
            assert connection.exec_driver_sql("SELECT version_num FROM orchestrate_version").all() == [("4",)]
    with open_database(path, migrate=True) as database:
        assert database.migrated is None
    assert len(list(tmp_path.glob("results.db.backup-*"))) == 1
    backup = sqlite3.connect(copy)
    assert list(backup.iterdump()) == dump
    assert backup.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    backup.close()


def test_the_command_line_migrates_when_asked_to(tmp_path: Path, next_version: Callable) -> None:
    path = tmp_path / "results.db"
    golden.write(path)
    next_version()

    def orchestrate(*arguments: str) -> tuple[int, str]:
        outcome = CliRunner().invoke(app, [*arguments, "--db", str(path)])
        return outcome.exit_code, outcome.output

    for reader in (["status"], ["watch", "--once"], ["triage"], ["report"], ["export"], ["explain", "table1:x/y/z"]):
        code, text = orchestrate(*reader)
        command = f"orchestrate migrate --db {shlex.quote(str(path))}"
        assert code == 2 and f"run `{command}`, which keeps a backup copy" in text
    holder = Holder("elsewhere", 7, datetime(2026, 1, 1), "table1")
    with file_lock(path, holder):
        code, text = orchestrate("migrate")
        assert code == 3 and "is in use by `orchestrate` for table1, process 7 on elsewhere" in text
    assert list(tmp_path.glob("*.backup-*")) == []
    code, text = orchestrate("migrate")
    (copy,) = tmp_path.glob("results.db.backup-*")
    former = f"{path} was migrated from version 3 to 4; the former is kept as {copy}"
    assert (code, text.splitlines()) == (0, [former, f"{path} is up to date; its tables, rows and pages were checked"])
    assert orchestrate("migrate") == (0, f"{path} is up to date; its tables, rows and pages were checked\n")
    assert orchestrate("status")[0] == 0
    assert list(tmp_path.glob("results.db.backup-*")) == [copy]


def test_a_server_database_is_migrated_in_one_transaction(postgresql: Server, next_version: Callable) -> None:
    url = postgresql.new_database()
    with open_database(url, create=True) as database:
        save(database, 3)
    next_version()
    with pytest.raises(DatabaseError, match="needs 4; run `orchestrate migrate --db "):
        open_database(url)
    with open_database(url, migrate=True) as database:
        assert database.migrated.endswith("was migrated from version 3 to 4 in one transaction, without a backup copy")
        assert len(database.grid_keys("table1")) == 3
        with driver_lock(database, grid="table1"):
            pass


def test_a_migration_that_fails_changes_nothing(location: str, next_version: Callable) -> None:
    with open_database(location, create=True) as database:
        save(database, 3)
    next_version("op.execute('DELETE FROM grid_trials'); op.execute('SELECT nonsense FROM nowhere')")
    with pytest.raises(DatabaseError, match=r"nowhere.* its migration from version 3 to 4 was undone"):
        open_database(location, migrate=True)
    schema.VERSION = 3
    with open_database(location) as database:
        assert len(database.grid_keys("table1")) == 3
        with database.engine.connect() as connection:
            assert "note" not in {column["name"] for column in inspect(connection).get_columns("trials")}


def test_a_migration_that_would_leave_orphans_is_undone(tmp_path: Path, next_version: Callable) -> None:
    path = tmp_path / "results.db"
    golden.write(path)
    next_version("op.execute('DELETE FROM attempts')")
    with pytest.raises(DatabaseError, match=r"results.db is unchanged: the migration would leave \w+ incomplete"):
        open_database(path, migrate=True)
    schema.VERSION = 3
    with open_database(path) as database:
        assert len(database.attempts(f"{1:064x}")) == 2


def test_nobody_migrates_under_a_drivers_feet(location: str, next_version: Callable) -> None:
    with open_database(location, create=True) as database, driver_lock(database, grid="table1"):
        next_version()
        with pytest.raises(Busy, match="in use by `orchestrate` for table1"):
            open_database(location, migrate=True)
    with open_database(location, migrate=True) as database:
        assert database.migrated


def test_a_backup_that_does_not_fit_stops_the_migration(
    tmp_path: Path, next_version: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "results.db"
    golden.write(path)
    next_version()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("orchestrator.database.backends.sqlite.os.fsync", full)
    with pytest.raises(DatabaseError, match=r"is unchanged: its backup copy .* could not be written .*No space left"):
        open_database(path, migrate=True)
    assert not list(tmp_path.glob("*backup*"))
    schema.VERSION = 3
    open_database(path).close()


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("4", "is of version 4, and this `orchestrate` knows versions up to 3: a newer release wrote it. Upgrade"),
        ("a1b2c3", "has an unknown version, a1b2c3"),
        (None, "has an unknown version, none"),
    ],
)
def test_other_versions_are_refused_and_left_alone(location: str, version: str | None, message: str) -> None:
    with open_database(location, create=True) as database:
        save(database)
        with database.engine.connect() as connection:
            connection.execute(text(f"DELETE FROM {schema.VERSION_TABLE}"))
            if version is not None:
                connection.execute(text(f"INSERT INTO {schema.VERSION_TABLE} VALUES (:version)"), {"version": version})
            connection.commit()
    before = Path(location).read_bytes() if "://" not in location else b""
    for options in ({"create": True, "migrate": True}, {"readonly": True}):
        with pytest.raises(DatabaseError, match=message):
            open_database(location, **options)
        assert not before or Path(location).read_bytes() == before
