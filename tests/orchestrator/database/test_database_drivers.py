"""Drivers side by side: who holds a database, what becomes of a dead one's trials, and lost connections."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy.exc import DBAPIError

from orchestrator.database import (
    Busy,
    Database,
    DatabaseAway,
    DatabaseError,
    Driver,
    driver_lock,
    open_database,
    patience,
)
from orchestrator.database.backends.postgresql import lock_number
from orchestrator.scheduler.journal import Journal
from tests.orchestrator.databases.postgresql_server import Server
from tests.orchestrator.databases.samples import accepted, result, save, start

# A driver in a process of its own: it claims and starts what it is told to, then says so and waits to be killed.
DRIVER = """
import os, sys, time
from orchestrator.database import driver_lock, open_database
from tests.orchestrator.databases.samples import result, start
location, grid, *keys = sys.argv[1:]
database = open_database(location)
with driver_lock(database, grid=grid) as driver:
    database.claim(keys, driver)
    for key in keys[:1]:
        database.record_epoch(start(database, key), result(0), "exclusive")
    # A child holds what it inherited, so a lock must not be such a thing. (Of a connection it is.)
    if database.path and os.fork() == 0:
        time.sleep(120)
        os._exit(0)
    print("ready", flush=True)
    time.sleep(120)
"""


@contextmanager
def driver_process(location: str, grid: str, *keys: str) -> Iterator[subprocess.Popen]:
    """Run such a driver, on a file with a child that lives longer than it; all are killed at the end."""
    command = [sys.executable, "-c", DRIVER, location, grid, *keys]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert process.stdout.readline() == b"ready\n"
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def soon(work: Callable[[], object]) -> object:
    """Try until the server has noticed that a client is gone."""
    for _ in range(200):
        try:
            return work()
        except Busy:
            time.sleep(0.05)
    return work()


def states(database: Database, keys: list[str]) -> list[str]:
    return [row.state for row in database.states(keys).values()]


def test_a_driver_is_known_by_its_token(database: Database) -> None:
    with driver_lock(database, grid="table1") as first:
        assert (first.pid, database.driver) == (os.getpid(), first)
    assert database.driver is None
    with driver_lock(database, grid="table1") as second:
        assert 0 < second.token != first.token


def test_a_second_driver_hears_who_holds_the_database(database: Database, location: str) -> None:
    before = datetime.now(UTC).replace(tzinfo=None, microsecond=0)
    with driver_lock(database, grid="table1"), open_database(location) as other:
        for second in (other, database) if database.path else (other,):
            with pytest.raises(Busy) as caught, driver_lock(second, grid="table1"):
                pass
            holder = caught.value.holder
            assert (holder.grid, holder.pid, holder.host) == ("table1", os.getpid(), os.uname().nodename[:20])
            assert before <= holder.started
            message = str(caught.value)
            assert database.where in message and f"`orchestrate` for table1, process {os.getpid()} on " in message
            assert f"since {holder.started:%Y-%m-%d %H:%M}" in message and "Wait until it ends" in message
    with driver_lock(database, grid="table1"):
        pass


def test_a_reader_is_no_driver(location: str) -> None:
    open_database(location, create=True).close()
    with (
        open_database(location, readonly=True) as reader,
        pytest.raises(DatabaseError, match="opened for reading; a driver has to write it"),
        driver_lock(reader, grid="table1"),
    ):
        pass


def test_a_killed_driver_blocks_nobody_and_its_trials_go_on(database: Database, location: str) -> None:
    keys = save(database, 3)
    with driver_process(location, "table1", *keys[:2]) as process:
        with pytest.raises(Busy, match=f"table1, process {process.pid} on"), driver_lock(database, grid="table1"):
            pass
        assert states(database, keys) == ["running", "pending", "pending"]
        process.kill()
        process.wait()

        def take_over() -> None:
            with driver_lock(database, grid="table1") as driver:
                assert database.release_stale() == 1
                assert database.claim(keys, driver) == set(keys)
                second = start(database, keys[0])
                database.record_epoch(second, result(0, restored=True), "exclusive")
                database.record_epoch(second, result(1), "exclusive")

        soon(take_over)
    assert accepted(database, keys[0]) == {0: 1, 1: 2}
    assert [row.outcome for row in database.attempts(keys[0])] == ["lost", None]


def test_readers_tell_a_dead_drivers_trials_from_a_living_ones(database: Database, location: str) -> None:
    keys = save(database, 4)
    finished = start(database, keys[3])
    database.finish_attempt(finished, "done", trial_state="done")

    def seen() -> list[tuple[str, bool]]:
        """Return the state of each trial, and whether a driver has it, as another reader sees them."""
        with open_database(location, readonly=True) as reader:
            rows = reader.states(keys).values()
            assert [row.state for row in reader.progress()] == [row.state for row in rows]
            return [(row.state, row.driver is not None) for row in rows]

    with driver_process(location, "table1", *keys[:2]) as process:
        alive = [("running", True), ("pending", True), ("pending", False), ("done", False)]
        assert seen() == alive
        # Asking has taken nothing from the driver.
        with pytest.raises(Busy), driver_lock(database, grid="table1"):
            pass
        assert seen() == alive
        process.kill()
        process.wait()
        dead = [("pending", False), ("pending", False), ("pending", False), ("done", False)]
        # A server takes a moment to see that its client is gone.
        for _ in range(200):
            if seen() == dead:
                break
            time.sleep(0.05)
        assert seen() == dead
    # It is a reader's view: what the next driver finds and gives back is still there.
    with driver_lock(database, grid="table1"):
        assert database.release_stale() == 1


def test_a_driver_keeps_its_lock_while_its_own_process_reads(tmp_path: Path) -> None:
    """A POSIX lock is gone as soon as its process closes any descriptor of the file."""
    path = tmp_path / "results.db"
    with open_database(path, create=True) as database, driver_lock(database, grid="table1") as driver:
        keys = save(database, 1)
        database.claim(keys, driver)
        start(database, keys[0])
        with open_database(path, readonly=True) as reader:
            assert states(reader, keys) == ["running"]
        code = (
            f"from orchestrator.database import *\nwith open_database({str(path)!r}) as d, driver_lock(d, grid='x'): 0"
        )
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "Busy" in other.stderr and "table1" in other.stderr


def test_stale_marks_of_every_kind_are_cleared(database: Database) -> None:
    running, claimed, done, unowned = save(database, 4)
    dead = Driver(7, "gone", 7)
    with driver_lock(database, grid="table1"):
        database.driver = dead
        database.claim([running, claimed], dead)
        start(database, running)
        database.finish_attempt(start(database, done), "done", trial_state="done")
        start(database, done, purpose="time")
    start(database, unowned)
    with driver_lock(database, grid="table1") as driver:
        own = save(database, 1, grid="mine", start=9)
        database.claim(own, driver)
        start(database, own[0])
        assert database.release_stale() == 2
        assert database.release_stale() == 0
        rows = database.states([running, claimed, done, unowned, *own])
    assert [row.state for row in rows.values()] == ["pending", "pending", "done", "pending", "running"]
    assert [row.driver for row in rows.values()] == [None, None, None, None, driver.token]
    assert [row.outcome for row in database.attempts(done)] == ["done", "lost"]
    assert [row.outcome for key in (running, unowned) for row in database.attempts(key)] == ["lost", "lost"]


# SQLite


def test_a_file_has_one_driver_whatever_its_name(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    (tmp_path / "link.db").symlink_to(path)
    with (
        open_database(path, create=True) as database,
        open_database(tmp_path / "link.db") as other,
        driver_lock(database, grid="table1"),
        pytest.raises(Busy, match="table1"),
        driver_lock(other, grid="table3"),
    ):
        pass
    with driver_process(str(path), "table1"), open_database(tmp_path / "link.db") as other:  # noqa: SIM117
        with pytest.raises(Busy, match=r"link.db is in use by `orchestrate` for table1"), driver_lock(other, grid="x"):
            pass


def test_a_lock_file_without_facts_still_locks(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    with open_database(path, create=True) as database, driver_process(str(path), "table1"):
        Path(f"{path}.lock").write_text("{")
        with pytest.raises(Busy, match=r"is in use by another `orchestrate`\. Wait"), driver_lock(database, grid="x"):
            pass


# PostgreSQL


@pytest.fixture
def url(postgresql: Server) -> Iterator[str]:
    """A database on the server with a grid of four trials."""
    url = postgresql.new_database()
    with open_database(url, create=True) as database:
        save(database, 4)
    yield url


KEYS = [f"{seed:064x}" for seed in range(4)]


def test_two_grids_run_at_once_and_share_trials(url: str) -> None:
    with (
        open_database(url) as one,
        open_database(url) as two,
        driver_lock(one, grid="table1") as first,
        driver_lock(two, grid="table3") as second,
    ):
        assert one.claim(KEYS[:2], first) == set(KEYS[:2])
        start(one, KEYS[0])
        timing = start(one, KEYS[3], purpose="time")
        # The other one lives: nothing of it is stale.
        assert two.release_stale() == 0
        assert two.claim(KEYS, second) == set(KEYS[2:])
        assert states(two, KEYS) == ["running", "pending", "pending", "pending"]
        assert two.attempts(KEYS[3])[0].outcome is None
        one.record_epoch(timing, result(0), "exclusive")


def test_a_database_is_made_beside_one_that_is_driven(postgresql: Server, url: str) -> None:
    with open_database(url) as database, driver_lock(database, grid="table1"):
        open_database(postgresql.new_database(), create=True).close()


def test_a_database_object_has_one_driver(url: str) -> None:
    with (
        open_database(url) as database,
        driver_lock(database, grid="table1") as driver,
        pytest.raises(Busy, match=f"another `orchestrate`, process {driver.pid} on {driver.host}"),
        driver_lock(database, grid="table3"),
    ):
        pass


def test_only_a_dead_neighbours_trials_are_given_back(url: str) -> None:
    with open_database(url) as one, open_database(url) as two, driver_lock(one, grid="table1") as first:
        one.claim(KEYS[:1], first)
        start(one, KEYS[0])
        with driver_process(url, "table3", KEYS[1], KEYS[2]) as process, driver_lock(two, grid="table4") as third:
            assert two.release_stale() == 0
            process.kill()
            process.wait()
            for _ in range(200):
                if two.release_stale():
                    break
                time.sleep(0.05)
            assert states(two, KEYS) == ["running", "pending", "pending", "pending"]
            assert two.claim(KEYS, third) == set(KEYS[1:])


def cut_off(server: Server) -> None:
    """End every session of ours, as a failing network or an administrator would."""
    ours = "application_name LIKE 'orchestrate%'"
    server.execute(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {ours}")


def test_a_driver_that_lost_its_connection_goes_on_and_keeps_its_lock(postgresql: Server, url: str) -> None:
    with open_database(url) as database, open_database(url) as other, driver_lock(database, grid="table1") as driver:
        database.claim(KEYS, driver)
        attempt = start(database, KEYS[0])
        database.record_epoch(attempt, result(0), "exclusive")
        cut_off(postgresql)
        database.record_epoch(attempt, result(1), "exclusive")
        assert accepted(database, KEYS[0]) == {0: 1, 1: 1}
        with pytest.raises(Busy, match="table1"), driver_lock(other, grid="table1"):
            pass
        with driver_lock(other, grid="table3"):
            assert other.release_stale() == 0
        postgresql.stop()
        postgresql.start()
        database.finish_attempt(attempt, "done", trial_state="done")
        assert states(database, KEYS) == ["done", "pending", "pending", "pending"]


def test_a_lost_lock_that_another_driver_took_stops_the_writer(postgresql: Server, url: str) -> None:
    with open_database(url) as database, open_database(url) as other, driver_lock(database, grid="table1") as driver:
        database.claim(KEYS, driver)
        attempt = start(database, KEYS[0])
        cut_off(postgresql)
        with driver_lock(other, grid="table1") as successor:
            assert other.release_stale() == 1
            with pytest.raises(Busy, match="in use by `orchestrate` for table1"):
                database.record_epoch(attempt, result(0), "exclusive")
            assert other.claim(KEYS, successor) == set(KEYS)
            start(other, KEYS[0])
        # Even when it holds the lock again, the trial is no longer its own.
        with pytest.raises(Busy, match=r"in use by another `orchestrate`"):
            database.record_epoch(attempt, result(0), "exclusive")


def test_what_was_given_back_during_an_outage_is_taken_up_again(postgresql: Server, url: str) -> None:
    with open_database(url) as database, open_database(url) as other, driver_lock(database, grid="table1") as driver:
        database.claim(KEYS[:2], driver)
        attempt = start(database, KEYS[0])
        database.record_epoch(attempt, result(0), "exclusive")
        timing = start(database, KEYS[2], purpose="time")
        cut_off(postgresql)
        with driver_lock(other, grid="table3") as third:
            assert other.release_stale() == 1
            # Before anybody else begins with it, the trial is its first driver's again.
            database.record_epoch(attempt, result(1), "exclusive")
            assert other.claim(KEYS[:1], third) == set()
            assert (states(other, KEYS[:1]), other.states(KEYS[:1])[KEYS[0]].driver) == (["running"], driver.token)
            # Of one that had not begun another driver may take possession; it is not trained twice.
            assert other.claim(KEYS[1:2], third) == {KEYS[1]}
            with pytest.raises(Busy, match="in use by `orchestrate` for table3"):
                start(database, KEYS[1])
        database.record_epoch(timing, result(0), "exclusive")
        database.finish_attempt(attempt, "done", trial_state="done")
        assert accepted(database, KEYS[0]) == {0: 1, 1: 1}
        assert [row.outcome for row in database.attempts(KEYS[0])] == ["done"]


def test_a_driver_waits_for_a_server_that_is_away(
    postgresql: Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "PAUSES", (0.01, 0.02))
    monkeypatch.setattr(patience, "LONG_PAUSE", 0.05)
    lines: list[str] = []
    with open_database(url) as database, driver_lock(database, grid="table1"):
        database.tell = lines.append
        journal, tries = Journal(), {}
        journal.write("start", lambda: tries.update(one=start(database, KEYS[0])))
        postgresql.stop()
        monkeypatch.setattr("orchestrator.scheduler.journal.PROMPT_SECONDS", 0.2)
        for epoch in range(3):
            journal.write("epoch", lambda epoch=epoch: database.record_epoch(tries["one"], result(epoch), "exclusive"))
        journal.write("end", lambda: database.finish_attempt(tries["one"], "done", trial_state="done"))
        assert not journal.settled(0.5)
        postgresql.start()
        while not journal.settled(5.0):
            pass
        waiting, back = lines
        assert waiting.startswith("waiting for the database, up to 15 min 00 s; running trials go on: postgresql://")
        assert back.startswith("the database is back after ")
        assert accepted(database, KEYS[0]) == {0: 1, 1: 1, 2: 1}
        assert states(database, KEYS[:1]) == ["done"]


@pytest.mark.parametrize("given", ["a while", "-1", "nan", "inf"])
def test_a_patience_that_is_no_number_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("ORCHESTRATE_DB_PATIENCE", given)
    with (
        open_database(tmp_path / "results.db", create=True) as database,
        pytest.raises(DatabaseError, match=r"ORCHESTRATE_DB_PATIENCE is .*; it is a number of seconds, such as 900"),
        driver_lock(database, grid="table1"),
    ):
        pass


def test_patience_has_an_end(postgresql: Server, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PAUSES", (0.01, 0.02))
    monkeypatch.setattr(patience, "LONG_PAUSE", 0.05)
    monkeypatch.setenv("ORCHESTRATE_DB_PATIENCE", "0.3")
    with open_database(url) as database, driver_lock(database, grid="table1"):
        attempt = start(database, KEYS[0])
        postgresql.stop()
        try:
            with pytest.raises(DatabaseAway, match=r"cannot be reached.*waited 0 s for it \(ORCHESTRATE_DB_PATIENCE\)"):
                database.record_epoch(attempt, result(0), "exclusive")
            with pytest.raises(DatabaseAway) as caught, open_database(url, readonly=True):
                pass
            assert caught.value.exit_code == 75
        finally:
            postgresql.start()


def test_a_session_that_only_the_server_believes_in_is_ended(url: str) -> None:
    """After a network failure the server may take long to see that its client is gone."""
    with open_database(url) as database, driver_lock(database, grid="table1") as driver:
        forgotten = database._session._connection
        database._session._connection = None
        assert database.claim(KEYS, driver) == set(KEYS)
        assert database._session._connection is not forgotten
        with pytest.raises(DBAPIError, match="terminat"):
            forgotten.exec_driver_sql("SELECT 1")
        forgotten.close()


def test_reading_survives_a_lost_connection(postgresql: Server, url: str) -> None:
    with open_database(url, readonly=True) as reader, open_database(url) as writer:
        assert len(reader.progress()) == len(writer.progress()) == 4
        cut_off(postgresql)
        assert len(reader.progress()) == 4
        assert writer.claim(KEYS, Driver(5, "", 5)) == set(KEYS)


def test_a_server_that_is_gone_is_told(postgresql: Server, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PAUSES", (0.01, 0.02))
    with open_database(url) as database:
        postgresql.stop()
        try:
            for ask in (lambda: save(database), database.grids, lambda: open_database(url)):
                with pytest.raises(DatabaseError, match=r"postgresql://postgres@127.0.0.1:\d+.* cannot be reached"):
                    ask()
        finally:
            postgresql.start()
        assert len(database.grids()) == 1


def test_wrong_urls_are_told_without_the_password(postgresql: Server) -> None:
    missing = f"postgres://postgres:secret@127.0.0.1:{postgresql.port}/missing?password=secret"
    with pytest.raises(DatabaseError, match='database "missing" does not exist') as caught:
        open_database(missing)
    assert "secret" not in str(caught.value) and ":***@" in str(caught.value)
    with pytest.raises(DatabaseError, match='role "ann" does not exist'):
        open_database(f"postgresql+psycopg2://ann@127.0.0.1:{postgresql.port}/postgres")


def test_another_programs_server_database_is_refused(postgresql: Server) -> None:
    url = postgresql.new_database()
    schema = url.rpartition("%3D")[2]
    with pytest.raises(DatabaseError, match=r"is empty; `orchestrate run GRID --db .*` makes its tables"):
        open_database(url, readonly=True)
    postgresql.execute(f"CREATE TABLE {schema}.bookmarks (id int)")
    with pytest.raises(DatabaseError, match="belongs to another program: it has the tables bookmarks but not"):
        open_database(url, create=True)


def test_without_psycopg_the_way_to_get_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(DatabaseError, match=r"\*\*\*@host/x needs psycopg; run: pip install"):
        open_database("postgresql://u:secret@host/x")


def test_a_server_finds_that_a_host_vanished(url: str) -> None:
    """Its locks would otherwise last for hours."""
    with open_database(url) as database, driver_lock(database, grid="table1"):
        connection = database._session.connection()
        names = ("idle", "interval", "count")
        shown = [connection.exec_driver_sql(f"SHOW tcp_keepalives_{name}").scalar() for name in names]
        connection.rollback()
        assert shown == ["30", "10", "3"]


def test_locks_of_different_names_are_different() -> None:
    names = [("grid", "a"), ("grid", "b"), ("schema",), ("grid", ""), ("grid", "a", "b")]
    numbers = {lock_number(*name) for name in names}
    assert len(numbers) == len(names) and all(-(2**63) <= number < 2**63 for number in numbers)
