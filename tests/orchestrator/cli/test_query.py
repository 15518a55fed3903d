"""`orchestrate query`: SQL that only reads, on both kinds of database, with help for mistakes."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner, Result

from orchestrator.cli import app
from orchestrator.database import open_database, schema_rows
from orchestrator.database.models import Base
from tests.orchestrator.databases.samples import count, save

ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT COUNT(*) FROM n"
CHANGES = [
    "WITH gone AS (SELECT id FROM trials) DELETE FROM trials",
    "DELETE FROM trials",
    "UPDATE trials SET state = 'done'",
    "INSERT INTO grids (name) VALUES ('x')",
    "DROP TABLE trials",
    "SELECT 1; DELETE FROM trials",
    "COMMIT; DELETE FROM trials",
    "SET TRANSACTION READ WRITE",
    "PRAGMA query_only = OFF",
    "EXPLAIN PRAGMA query_only = OFF",
    "ATTACH 'other.db' AS other",
    "VACUUM INTO 'copy.db'",
    "COPY trials TO PROGRAM 'touch copied'",
    "SELECT 1 INTO copied",
    "CREATE TEMP TABLE copied AS SELECT * FROM trials",
    "SELECT load_extension('x')",
    "/* SELECT */ DELETE FROM trials",
    "DO $$ BEGIN DELETE FROM trials; END $$",
    "",
    "-- nothing",
]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("ORCHESTRATE"):
            monkeypatch.delenv(name)


@pytest.fixture
def filled(location: str) -> str:
    """A database with a grid of three trials."""
    with open_database(location, create=True) as database:
        save(database, 3)
    return location


def ask(location: str, *arguments: str, **options: str) -> Result:
    return CliRunner().invoke(app, ["query", "--db", location, *arguments], **options)


def refusal(location: str, sql: str) -> str:
    """Return the message with which a query is refused."""
    # An argument that begins with a comment would be an option otherwise.
    done = ask(location, "--", sql)
    assert done.exit_code == 2, done.output
    assert done.stdout == "" and done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    return done.stderr[len("error: ") :].strip()


def test_rows_are_printed_as_a_table_csv_and_json(filled: str):
    sql = "SELECT name, position, NULL AS none, 0.5 AS half, 'a \"b\", c' AS quoted FROM grid_trials ORDER BY position"
    names = ["name", "position", "none", "half", "quoted"]
    table = ask(filled, sql)
    assert table.exit_code == 0, table.output
    head, *lines, last = table.stdout.splitlines()
    assert head.split() == names and last == "3 rows"
    assert lines[1].split(maxsplit=4) == ["resnet18/seed1", "1", "NULL", "0.5", 'a "b", c']
    written = list(csv.reader(io.StringIO(ask(filled, sql, "--csv").stdout)))
    assert written[0] == names and written[2] == ["resnet18/seed1", "1", "", "0.5", 'a "b", c']
    rows = json.loads(ask(filled, sql, "--json").stdout)
    assert len(rows) == 3 and rows[1] == dict(zip(names, ["resnet18/seed1", 1, None, 0.5, 'a "b", c'], strict=True))


def test_values_are_the_same_on_both_kinds(filled: str):
    sql = (
        "SELECT config, created, SUM(position) AS places, AVG(position) AS mean FROM trials, grid_trials "
        "WHERE trial_id = id AND position = 1 GROUP BY trials.id, key, state, driver, finished"
    )
    if "://" in filled:
        # A column of the type JSON cannot be grouped there; its primary key stands for it.
        sql = sql.replace(", key, state, driver, finished", "")
    ((config, created, places, mean),) = (row.values() for row in json.loads(ask(filled, sql, "--json").stdout))
    assert json.loads(config)["seed"] == 1
    assert len(created) == len("2026-11-26 10:00:00.000000") and created[10] == " "
    assert (places, mean) == (1, 1.0) and isinstance(places, int)


def test_no_rows_are_said(filled: str):
    sql = "SELECT name FROM grids WHERE name = 'none'"
    assert ask(filled, sql).stdout == "0 rows\n"
    assert ask(filled, sql, "--csv").stdout == "name\n"
    assert json.loads(ask(filled, sql, "--json").stdout) == []


@pytest.mark.parametrize("sql", CHANGES)
def test_what_would_change_anything_is_refused_with_the_reason(filled: str, sql: str, tmp_path: Path):
    before = sorted(path.name for path in tmp_path.iterdir())
    message = refusal(filled, sql)
    reasons = ["`query` only reads", "one statement at a time"]
    if sql.startswith(("SELECT", "EXPLAIN")):
        # A statement that only one of the two kinds has.
        reasons += ["of the query: syntax error", "function load_extension(unknown) does not exist"]
    assert any(reason in message for reason in reasons), message
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    with open_database(filled, readonly=True) as database:
        assert count(database, "trials") == 3 and count(database, "grids") == 1


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT * FROM trial", "column 15 of the query: there is no table trial; did you mean trials?"),
        ("SELECT *\nFROM trials, atempts", "line 2, column 14 of the query: there is no table atempts; did you mean"),
        ("SELECT top1 FROM evaluations", "column 8 of the query: there is no column top1 here; did you mean eval"),
        ("SELECT 'sate', trials.sate FROM trials", "column 16 of the query: there is no column trials.sate here; did"),
        ("SELECT id FROM trials WHERE WHERE", "column 29 of the query: syntax error "),
        ("SELECT name FROM grids\nORDER BY name name", "line 2, column 15 of the query: syntax error "),
        ("SELECT nowhere_at_all FROM grids", "there is no column nowhere_at_all here; --schema lists all"),
        ("SELECT * FROM xyzzy", "there is no table xyzzy; there are: attempt_parts, attempts"),
    ],
)
def test_a_mistake_is_placed_and_names_what_is_near(filled: str, sql: str, message: str):
    assert message in refusal(filled, sql)


@pytest.mark.parametrize("sql", ["SELECT name FROM grids WHERE", "SELECT 'unfinished", "SELECT id, FROM grids"])
def test_an_unfinished_statement_is_one_sentence(filled: str, sql: str):
    assert "of the query: " in refusal(filled, sql)


@pytest.mark.parametrize("sql", ["SELECT * FROM grids WHERE name = ?", "SELECT * FROM grids WHERE name = :name"])
def test_a_placeholder_has_no_value(tmp_path: Path, sql: str):
    with open_database(tmp_path / "a.db", create=True):
        pass
    assert "write the value itself" in refusal("a.db", sql)


def test_percent_signs_and_colons_are_the_querys_own(filled: str):
    done = ask(filled, "SELECT COUNT(*) AS n, 'a:b' AS t FROM grid_trials WHERE name LIKE '%/seed%'", "--json")
    assert json.loads(done.stdout) == [{"n": 3, "t": "a:b"}]


def test_a_query_that_takes_too_long_is_stopped(filled: str):
    done = ask(filled, ENDLESS, "--timeout", "0.3")
    assert done.exit_code == 2 and "took longer than 0.3 s" in done.stderr


RUNNING = "SELECT COUNT(*) AS n FROM pg_stat_activity WHERE query LIKE 'WITH RECURSIVE n(x)%' AND state = 'active'"


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def server_runs(location: str, queries: int) -> bool:
    return json.loads(ask(location, RUNNING, "--json").stdout) == [{"n": queries}]


@pytest.fixture
def endless(filled: str) -> Iterator[subprocess.Popen[str]]:
    """A process whose query runs and has no end."""
    command = [sys.executable, "-c", "from orchestrator.cli import main; main()", "query", ENDLESS, "--db", filled]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        watched = psutil.Process(process.pid)
        if "://" in filled:
            wait_for(lambda: server_runs(filled, 1))
        else:
            # Opening the file is the last that it does before it asks; reading the tables of a small one takes no time.
            wait_for(lambda: any(file.path == filled for file in watched.open_files()))
            opened = watched.cpu_times().user
            wait_for(lambda: watched.cpu_times().user > opened + 0.7)
        assert process.poll() is None
        yield process
        process.kill()


def test_ctrl_c_stops_a_query(endless: subprocess.Popen[str]):
    endless.send_signal(signal.SIGINT)
    out, error = endless.communicate(timeout=240)
    assert (endless.returncode, out, error) == (130, "", "interrupted\n")


def test_a_killed_query_leaves_the_server_nothing_to_do(filled: str, request: pytest.FixtureRequest):
    if "://" not in filled:
        pytest.skip("an SQLite file has no server")
    request.getfixturevalue("endless").kill()
    wait_for(lambda: server_runs(filled, 0))


def test_a_query_comes_from_standard_input(filled: str):
    done = ask(filled, "-", "--csv", input="SELECT name -- of the grid\nFROM grids;\n")
    assert done.stdout == "name\ntable1\n"


def test_the_schema_has_every_table_and_column_with_its_meaning():
    rows = schema_rows()
    columns = {(table, column) for table, column, *_ in rows if column}
    assert columns == {(table.name, column.name) for table in Base.metadata.tables.values() for column in table.columns}
    assert not [row for row in rows if not row[3]]
    done = CliRunner().invoke(app, ["query", "--schema"])
    assert done.exit_code == 0
    for table in Base.metadata.tables:
        assert f"{table}: " in done.stdout
    listed = json.loads(CliRunner().invoke(app, ["query", "--schema", "--json"]).stdout)
    assert [tuple(row.values()) for row in listed] == rows


def test_an_empty_database_and_none_are_answered(tmp_path: Path):
    with open_database(tmp_path / "new.db", create=True):
        pass
    assert ask("new.db", "SELECT COUNT(*) AS n FROM trials", "--csv").stdout == "n\n0\n"
    assert "does not exist" in refusal("none.db", "SELECT 1")


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_database_names_the_command_that_migrates_it(version: int, tmp_path: Path):
    old = Path(__file__).parents[1] / f"databases/v{version}.sqlite"
    (tmp_path / "old.db").write_bytes(old.read_bytes())
    done = ask("old.db", "SELECT COUNT(*) AS n FROM trials")
    assert done.exit_code == 2 and "orchestrate migrate --db old.db" in done.stderr


def test_two_columns_of_one_name_and_two_forms_are_refused(filled: str):
    done = ask(filled, "SELECT 1 AS a, 2 AS a", "--json")
    assert done.exit_code == 2 and done.stdout == "" and "two columns are called a" in done.stderr
    assert "give one of them" in ask(filled, "SELECT 1", "--json", "--csv").stderr
    assert "there is no query" in CliRunner().invoke(app, ["query", "--db", filled]).stderr
    assert "leave one of them out" in ask(filled, "SELECT 1", "--schema").stderr


def test_a_terminal_gets_cut_values_with_a_note_and_no_commands(tmp_path: Path):
    with open_database(tmp_path / "a.db", create=True) as database:
        save(database)
    sql = (
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 1500) "
        f"SELECT x, '{'w' * 99}' AS wide, char(27) || '[2J' || char(10) AS control FROM n"
    )
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", "from orchestrator.cli import main; main()", "query", sql, "--db", "a.db"],
        stdout=follower,
        stderr=subprocess.PIPE,
        env={**os.environ, "COLUMNS": "120", "TERM": "xterm"},
        text=True,
    )
    os.close(follower)
    shown = b""
    try:
        while part := os.read(leader, 65536):
            shown += part
    except OSError:
        # Linux ends a terminal whose other side has closed by EIO.
        pass
    notes = process.communicate(timeout=60)[1]
    text = shown.decode()
    assert "w" * 59 + "\N{HORIZONTAL ELLIPSIS}" in text and "w" * 60 not in text
    assert "note: 1,000 values cut at 60 characters; --csv and --json print all of it" in notes
    assert "the first 1,000 rows of more" in text and "--csv and --json print all rows" in notes
    assert "\x1b[2J" not in text and r"\x1b[2J\n" in text
    # A pipe has room for all of it.
    piped = ask("a.db", sql)
    assert piped.stdout.count("w" * 99) == 1500 and piped.stdout.endswith("1,500 rows\n")
    assert "note" not in piped.stderr
    whole = ask("a.db", sql, "--csv").stdout
    assert whole.count("w" * 99) == 1500


def test_bytes_and_infinite_numbers_are_printed_whole(tmp_path: Path):
    with open_database(tmp_path / "a.db", create=True):
        pass
    sql = "SELECT x'00ff' AS bytes, 9e999 AS large"
    assert json.loads(ask("a.db", sql, "--json").stdout) == [{"bytes": "00ff", "large": "inf"}]
    assert ask("a.db", sql, "--csv").stdout == "bytes,large\n00ff,inf\n"


def test_functions_over_json_and_pragmas_that_read_are_tables(tmp_path: Path):
    with open_database(tmp_path / "a.db", create=True) as database:
        save(database)
    sql = "SELECT value FROM trials, json_each(config) AS each WHERE each.key = 'epochs'"
    assert ask("a.db", sql, "--csv").stdout == "value\n3\n"
    sql = "SELECT name FROM pragma_table_info('grids') WHERE cid = 1"
    assert ask("a.db", sql, "--csv").stdout == "name\nname\n"
