"""Damaged files, and rows that hold what no version of the program writes: named, never a traceback, never believed."""

from __future__ import annotations

import json
import random
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from orchestrator.cli import app
from orchestrator.database import Database, driver_lock, open_database
from orchestrator.failures import Failure
from tests.orchestrator.databases import golden
from tests.orchestrator.databases.samples import result, save, start
from trainer.config import TrainConfig

READERS = (["status"], ["report", "--format", "md"], ["export"], ["triage"], ["watch", "--once"], ["migrate"])
TABLES = ("grids", "trials", "grid_trials", "attempts", "epochs", "evaluations", "orchestrate_version")


def orchestrate(path: Path, *arguments: str) -> Result:
    out = ("--out", str(path.with_name("out"))) if arguments[0] in ("report", "export") else ()
    return CliRunner().invoke(app, [*arguments, *out, "--db", str(path)])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of two trials that are done, one that failed and one with a canary, with whole configurations."""
    path = tmp_path_factory.mktemp("whole") / "results.db"
    configs = [TrainConfig(seed=seed, epochs=2, dataset="digits") for seed in range(4)]
    trials = [(each.key(), each.model_dump(mode="json"), f"resnet18/seed{each.seed}") for each in configs]
    with open_database(path, create=True) as database, driver_lock(database, grid="first"):
        database.save_grid("first", "first.yaml", "name: first\n", {"tables": [1]}, trials)
        for key, *_ in trials[:2]:
            attempt = start(database, key)
            for epoch in range(2):
                database.record_epoch(attempt, result(epoch), "exclusive")
            database.finish_attempt(attempt, "done", trial_state="done")
        failure = Failure("code", "RuntimeError: x\ntrace", "ab")
        database.finish_attempt(start(database, trials[2][0]), "failed", failure=failure, trial_state="failed")
        canary = {"canary": {"seconds_per_epoch": 1.0, "peak_memory_bytes": 1}}
        database.finish_attempt(start(database, trials[3][0], purpose="canary", environment=canary), "done")
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()
    return path


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    path = tmp_path / "results.db"
    shutil.copy(whole, path)
    return path


def change(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def test_a_whole_database_is_called_whole(copy: Path) -> None:
    completed = orchestrate(copy, "doctor")
    assert (completed.exit_code, completed.output) == (
        0,
        f"{copy} is whole: its pages, references, tables and the values of every row were checked\n",
    )
    for command in READERS:
        completed = orchestrate(copy, *command)
        assert completed.exit_code == 0 and "warning" not in completed.output, completed.output


@pytest.mark.parametrize("value", ["NULL", "x'00ff'", f"'{'9' * 5000}'", "'-1'", "'\u0661'", "''"])
def test_a_version_that_is_none_is_said(copy: Path, value: str) -> None:
    change(
        copy,
        "DROP TABLE orchestrate_version",
        "CREATE TABLE orchestrate_version (version_num)",
        f"INSERT INTO orchestrate_version VALUES ({value})",
    )
    for command in READERS:
        completed = orchestrate(copy, *command)
        assert completed.exit_code == 2 and "has an unknown version" in completed.output
        assert len(completed.output) < 300 + len(str(copy))


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        (["ALTER TABLE epochs DROP COLUMN images"], "table epochs has no column images; it is damaged or was changed"),
        (["DROP TABLE evaluations"], "has no table evaluations (or something else of that name)"),
        (
            ["ALTER TABLE trials RENAME TO t", "CREATE VIEW trials AS SELECT * FROM t"],
            "has no table trials (or something else of that name)",
        ),
    ],
)
def test_tables_are_compared_when_a_database_is_opened(copy: Path, statements: list[str], message: str) -> None:
    change(copy, "PRAGMA foreign_keys = OFF", "PRAGMA legacy_alter_table = ON", *statements)
    for command in (*READERS, ["doctor"]):
        outcome = orchestrate(copy, *command)
        assert outcome.exit_code == 2 and message in outcome.output, outcome.output


def test_a_trigger_stops_whoever_would_write(copy: Path) -> None:
    change(copy, "CREATE TRIGGER sly AFTER INSERT ON epochs BEGIN DELETE FROM epochs; END")
    assert orchestrate(copy, "status").exit_code == 0
    outcome = orchestrate(copy, "migrate")
    assert outcome.exit_code == 2 and "has a trigger sly on table epochs" in outcome.output


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE trials SET config = '{' WHERE id = 2", "table trials, id 2, key {key}: config is {{"),
        ("UPDATE trials SET config = x'ff' WHERE id = 2", "table trials, id 2, key {key}: config is b'\\xff'"),
        ("UPDATE trials SET config = '{{}}' WHERE id = 2", "table trials, id 2, key {key}: config is {{}}"),
        ("UPDATE trials SET state = 'dnoe' WHERE id = 2", "table trials, id 2, key {key}: state is dnoe"),
        ("UPDATE trials SET created = '2026-02-30 00:00:00' WHERE id = 2", "created is 2026-02-30 00:00:00"),
        ("UPDATE grid_trials SET name = CAST(x'ff61' AS TEXT) WHERE trial_id = 2", "table grid_trials, grid_id 1, "),
        ("UPDATE epochs SET train_seconds = 'long' WHERE trial_id = 2", "train_seconds is long"),
        ("UPDATE evaluations SET top1_error = x'00' WHERE epoch_id = 3", "top1_error is b'\\x00'"),
        (
            "INSERT INTO metric_values VALUES (3, 'brier', 'low')",
            "table metric_values, evaluation_id 3, metric brier: ",
        ),
        (
            "INSERT INTO parts VALUES (99, 'network', 'resnet18', 7, 'R', '[', '', '')",
            "table parts, id 99, name resnet18: facts is [",
        ),
        ("INSERT INTO attempt_parts VALUES (1, 98)", "table attempt_parts, attempt_id 1, part_id 98: part_id is 98"),
    ],
)
def test_a_broken_row_is_named_and_hides_no_other(copy: Path, statement: str, message: str) -> None:
    with open_database(copy, readonly=True) as database:
        key = database.grid_keys("first")[1][0]
    change(copy, statement.replace("{{", "{").replace("}}", "}"))
    message = message.format(key=key)
    completed = orchestrate(copy, "report", "--format", "csv")
    assert completed.exit_code == 2 and message in completed.stderr and "The row is left out" in completed.stderr, (
        completed.output
    )
    assert "wrote" in completed.stdout
    table = copy.with_name("out").glob("*.csv")
    assert any("ResNet" in each.read_text() or "resnet18" in each.read_text() for each in table)
    if statement.startswith(("UPDATE trials", "UPDATE grid_trials")):
        completed = orchestrate(copy, "status", "--json")
        (grid,) = json.loads(completed.stdout)
        assert completed.exit_code == 2 and message in completed.stderr
        assert [trial["name"] for trial in grid["trials"]] == ["resnet18/seed0", "resnet18/seed2", "resnet18/seed3"]
    completed = orchestrate(copy, "doctor")
    assert completed.exit_code == 2 and message in completed.output


def pages(path: Path, rng: random.Random) -> None:
    """A page of noise in the middle."""
    content = bytearray(path.read_bytes())
    start = 4096 * rng.randrange(1, len(content) // 4096)
    content[start : start + 4096] = rng.randbytes(4096)
    path.write_bytes(content)


def tail(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(100, len(content))])


def bits(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 20))):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def value(path: Path, rng: random.Random) -> None:
    """A value that is not of its column's kind."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA ignore_check_constraints = ON")
    table = rng.choice(TABLES)
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    (row,) = rng.choice(connection.execute(f"SELECT rowid FROM {table}").fetchall() or [(0,)])
    wrong = rng.choice(
        [None, b"\xff\xfe", "x" * 100, "{", "[]", "null", "5", -1, 2**63 - 1, 1e308, "\0", "9" * 5000, "{}", "[" * 2000]
    )
    with suppress(sqlite3.IntegrityError):
        connection.execute(f"UPDATE {table} SET {rng.choice(columns)} = ? WHERE rowid = ?", (wrong, row))
    connection.close()


@pytest.mark.parametrize("harm", [pages, tail, bits, value])
@pytest.mark.parametrize(
    "seeds", [range(10), pytest.param(range(10, 150), marks=[pytest.mark.slow, pytest.mark.timeout(900)])], ids=str
)
def test_whatever_is_damaged_no_traceback_comes_out(
    whole: Path, tmp_path: Path, harm: Callable[[Path, random.Random], None], seeds: range
) -> None:
    for seed in seeds:
        folder = tmp_path / str(seed)
        folder.mkdir()
        path = folder / "results.db"
        shutil.copy(whole, path)
        rng = random.Random(f"{harm.__name__} {seed}")
        harm(path, rng)
        # All of them on every file would take minutes.
        for command in rng.sample([*READERS, ["doctor"]], 3):
            completed = orchestrate(path, *command)
            assert completed.exception is None or isinstance(completed.exception, SystemExit), (
                seed,
                command,
                completed.exc_info,
            )
            assert completed.exit_code in (0, 2) and "Traceback" not in completed.output, (
                seed,
                command,
                completed.output,
            )
        shutil.rmtree(folder)


def test_noise_and_cut_tails_are_noticed(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    for harm in (pages, tail):
        for seed in range(20):
            shutil.copy(whole, path)
            harm(path, random.Random(seed))
            for command in ("migrate", "doctor"):
                assert orchestrate(path, command).exit_code == 2, (harm, seed)


def test_an_old_database_of_ours_is_whole(tmp_path: Path) -> None:
    golden.write(tmp_path / "results.db")
    assert orchestrate(tmp_path / "results.db", "doctor").exit_code == 0


# Copies


def test_a_backup_is_whole_while_a_run_writes(location: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    with open_database(location, create=True) as database, driver_lock(database, grid="table1"):
        keys = save(database, 2)
        attempt = start(database, keys[0])
        database.record_epoch(attempt, result(0), "exclusive")
        completed = CliRunner().invoke(app, ["backup", str(copy), "--db", location])
        assert (
            completed.exit_code == 0
            and "1 grid, 2 trials, 1 attempt, 1 epoch; the copy was checked" in completed.output
        )
        database.record_epoch(attempt, result(1), "exclusive")
        completed = CliRunner().invoke(app, ["backup", str(copy), "--db", location])
        assert (
            completed.exit_code == 2 and f"{copy} is there already, and a backup overwrites nothing" in completed.output
        )
    assert [path.name for path in tmp_path.glob("copy*")] == ["copy.db"]
    with open_database(copy, readonly=True) as database:
        assert [(row.state, row.epochs_done) for row in database.progress()] == [("pending", 1), ("pending", 0)]
        assert not database.damage() and not database.broken_rows()


def test_a_copy_made_during_a_run_says_so_and_advises_no_second_run(location: str, tmp_path: Path) -> None:
    copy, again = tmp_path / "copy.db", tmp_path / "again.db"
    with open_database(location, create=True) as database, driver_lock(database, grid="table1") as driver:
        keys = save(database, 2)
        database.claim(keys, driver)
        attempt = start(database, keys[0])
        database.record_epoch(attempt, result(0), "exclusive")
        failed = start(database, keys[1])
        database.finish_attempt(failed, "failed", failure=Failure("code", "it broke", "f"), trial_state="failed")
        assert CliRunner().invoke(app, ["backup", str(copy), "--db", location]).exit_code == 0
        where = database.where
    moment = r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC"
    warning = rf"warning: {re.escape(f'{copy} is a copy of {where}')}, made on {moment} during a run"
    for command in ("status", "triage", "watch --once"):
        completed = orchestrate(copy, *command.split())
        assert re.search(warning, completed.output) and "orchestrate run" not in completed.output, command
        assert completed.exit_code == 0
    # The copy of a copy is one of the same moment.
    assert CliRunner().invoke(app, ["backup", str(again), "--db", str(copy)]).exit_code == 0
    assert f"{again} is a copy of {where}, made on" in orchestrate(again, "status").output
    # Whoever goes on with it all the same, as where the original is lost, has a database like any other.
    with open_database(copy) as database, driver_lock(database, grid="table1"):
        assert database.copied
        database.release_stale()
        start(database, keys[0])
    completed = orchestrate(copy, "status")
    assert "is a copy" not in completed.output and "`orchestrate run " in completed.output


def test_a_copy_of_a_database_that_nobody_writes_is_like_any_other(location: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    with open_database(location, create=True) as database, driver_lock(database, grid="table1") as driver:
        (key,) = save(database, 1)
        database.claim([key], driver)
        database.record_epoch(start(database, key), result(0), "exclusive")
    # Its driver was killed.
    assert CliRunner().invoke(app, ["backup", str(copy), "--db", location]).exit_code == 0
    outcome = orchestrate(copy, "status")
    assert "is a copy" not in outcome.output and "continues what was interrupted" in outcome.output


def test_a_backup_that_cannot_be_written_leaves_nothing(copy: Path, tmp_path: Path) -> None:
    completed = orchestrate(copy, "backup", str(tmp_path / "nowhere" / "copy.db"))
    folder = tmp_path / "nowhere"
    words = f"{folder}/copy.db cannot be written: there is no folder {folder}; make it first, or name another"
    assert completed.exit_code == 2 and words in completed.output
    pages(copy, random.Random(1))
    completed = orchestrate(copy, "backup", str(tmp_path / "copy.db"))
    assert completed.exit_code == 2 and "damaged" in completed.output
    assert not list(tmp_path.glob("copy*"))


def test_a_check_of_no_database_says_that_nothing_was_checked(tmp_path: Path) -> None:
    completed = orchestrate(tmp_path / "nope.db", "doctor")
    words = f"there is no {tmp_path / 'nope.db'}, so nothing was checked; give --db a results database that is there"
    assert completed.exit_code == 2 and words in completed.output
    assert not list(tmp_path.iterdir())


def test_a_copy_without_its_log_says_what_it_lacks(tmp_path: Path) -> None:
    path, taken = tmp_path / "results.db", tmp_path / "copy" / "results.db"
    taken.parent.mkdir()

    def begin(database: Database) -> int:
        attempt = start(database, save(database, 1)[0])
        database.record_epoch(attempt, result(0), "exclusive")
        return attempt

    with open_database(path, create=True) as database, driver_lock(database, grid="table1"):
        attempt = begin(database)
        change(path, "PRAGMA wal_checkpoint")
        database.record_epoch(attempt, result(1), "exclusive")
        shutil.copy(path, taken)
        assert "warning" not in orchestrate(path, "status").output
        outcome = orchestrate(taken, "status")
        assert outcome.exit_code == 0 and "no results.db-wal is beside it: if it was copied" in outcome.stderr
        for end in ("", "-wal"):
            shutil.copy(f"{path}{end}", f"{taken}{end}")
        assert "warning" not in orchestrate(taken, "status").output
