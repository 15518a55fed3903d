"""SQLite files in every condition a disk, a user or another program may leave them in."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from orchestrator.database import Database, DatabaseError, driver_lock, open_database, patience
from orchestrator.database.backends import sqlite
from orchestrator.database.backends.sqlite import network_filesystem
from tests.orchestrator.databases.samples import count, result, save, start
from tests.orchestrator.users import NOBODY, SECRET, another_user, in_a_process, unprivileged


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.db"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.05)
    monkeypatch.setattr(patience, "PAUSES", (0.01, 0.02))


def read(path: Path) -> str:
    """The names and finished epochs of a database's trials."""
    with open_database(path, readonly=True) as database:
        return str([(row.trial_name, row.epochs_done) for row in database.progress()])


def with_one_epoch(path: Path) -> Database:
    database = open_database(path, create=True)
    (key,) = save(database)
    database.record_epoch(start(database, key), result(0), "exclusive")
    return database


# What is opened


def test_a_new_file_is_made_only_when_asked(path: Path) -> None:
    for options in ({}, {"readonly": True}, {"readonly": True, "create": True}, {"migrate": True}):
        with pytest.raises(DatabaseError, match=r"does not exist; `orchestrate run GRID --db .*results.db'?` makes it"):
            open_database(path, **options)
        assert not path.exists()
    open_database(path, create=True).close()
    with open_database(path) as database:
        assert database.grids() == [] and database.where == str(path) and database.path == path


def test_locations(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    open_database(f"sqlite:///{quote(str(path))}", create=True).close()
    for location in (path, str(path), "results.db", "sqlite:///results.db", "~/results.db"):
        open_database(location).close()
    odd = tmp_path / "100% ü?#&=1; mode=ro"
    odd.mkdir()
    open_database(odd / "a b?c.db", create=True).close()
    assert (odd / "a b?c.db").stat().st_size > 0


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("", "names no file"),
        (":memory:", "names no file"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:///a.db?mode=ro", "names no file"),
        ("mysql://u:secret@host/x", "mysql is not supported"),
        ("postgresql://u:secret@host", r"postgresql://u:\*\*\*@host names no database"),
        ("postgresql://u:secret@host:port/x", "URL cannot be read"),
        ("://", "URL cannot be read"),
        ("missing/results.db", "no folder missing"),
        ("~nobody here/results.db", "no home folder is known of a user 'nobody here'"),
        ("a\0b", "cannot be read: embedded null"),
        ("x" * 300, "its name is too long for the files beside it"),
    ],
)
def test_locations_that_cannot_be(location: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatabaseError, match=message) as caught:
        open_database(location, create=True)
    assert "secret" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_a_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    text = tmp_path / "grid.yaml"
    text.write_text("name: table1\ngrid: {}\n")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for location, message in (
        (text, r"grid.yaml is not a database \(it begins with b'name: table1"),
        (tmp_path, "is a folder, not a database; name a file in it, such as .*results.db"),
        (pipe, "is not a regular file"),
        (Path("/dev/null"), "is not a regular file"),
    ):
        for options in ({"create": True}, {"readonly": True}):
            with pytest.raises(DatabaseError, match=message):
                open_database(location, **options)
    assert text.read_text().startswith("name: table1")


def test_another_programs_database_is_refused_and_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.executescript("CREATE TABLE places (id); CREATE TABLE bookmarks (id)")
    other.close()
    before = path.read_bytes()
    for options in ({"create": True, "migrate": True}, {"readonly": True}):
        with pytest.raises(DatabaseError, match="another program: it has the tables bookmarks, places but not"):
            open_database(path, **options)
        assert path.read_bytes() == before
    assert sorted(child.name for child in path.parent.iterdir()) == ["results.db"]


def test_an_empty_file_is_told_from_a_database(path: Path) -> None:
    path.touch()
    for options in ({}, {"readonly": True}):
        with pytest.raises(DatabaseError, match=r"is empty; `orchestrate run GRID --db .*` makes its tables"):
            open_database(path, **options)
    with open_database(path, create=True) as database:
        assert database.grids() == []


def test_a_damaged_file_is_told(path: Path) -> None:
    with open_database(path, create=True) as database:
        save(database, 200)
    with path.open("r+b") as file:
        file.seek(5000)
        file.write(b"\xff" * 30_000)
    with pytest.raises(DatabaseError, match=r"is damaged or not a database; restore it from a copy of"):  # noqa: SIM117
        with open_database(path) as database:
            database.progress()
    path.write_bytes(path.read_bytes()[:3000])
    # Its own copies, by their times and not their versions; not those of another database, nor half a copy.
    newest = f"{path}.backup-9-20260102T000000Z"
    others = [f"{path}.backup-10-20251231T235959Z", f"{path}.backup-10-20260103T000000Z.partial"]
    for copy in (newest, *others, path.with_name("a.db.backup-9-20260104T000000Z")):
        Path(copy).touch()
    words = f"is damaged or not a database; restore it from the newest backup copy beside it, {newest} ("
    with pytest.raises(DatabaseError, match=re.escape(words)):
        open_database(path)


def test_two_processes_may_make_the_same_database(path: Path) -> None:
    code = f"from orchestrator.database import open_database; open_database({str(path)!r}, create=True).grids()"
    started = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) for _ in range(3)]
    assert [(process.communicate()[1], process.returncode) for process in started] == [(b"", 0)] * 3
    open_database(path).close()


# Read-only files and folders


@another_user
def test_a_reader_needs_no_right_to_write(public_folder: Path) -> None:
    path = public_folder / "results.db"
    with_one_epoch(path).close()
    expected = "[('resnet18/seed0', 1)]"
    path.chmod(0o444)
    assert unprivileged(lambda: read(path)) == expected
    public_folder.chmod(0o555)
    assert unprivileged(lambda: read(path)) == expected
    assert sorted(child.name for child in public_folder.iterdir()) == ["results.db"]


def test_a_reader_without_rights_sees_what_a_running_driver_writes(public_folder: Path) -> None:
    path = public_folder / "results.db"
    database = with_one_epoch(path)
    assert (public_folder / "results.db-wal").stat().st_size > 0
    assert unprivileged(lambda: read(path)) == "[('resnet18/seed0', 1)]"
    database.record_epoch(1, result(1), "exclusive")
    assert unprivileged(lambda: read(path)) == "[('resnet18/seed0', 2)]"
    database.close()


@another_user
def test_a_reader_without_rights_sees_what_a_killed_driver_wrote(public_folder: Path) -> None:
    path = public_folder / "results.db"
    child = os.fork()
    if child == 0:
        with_one_epoch(path)
        os._exit(0)
    os.waitpid(child, 0)
    assert (public_folder / "results.db-wal").stat().st_size > 0
    assert unprivileged(lambda: read(path)) == "[('resnet18/seed0', 1)]"
    # A copy that left the log's index behind cannot be read without making a new one.
    (public_folder / "results.db-shm").unlink()
    assert "cannot be opened: the file or its folder is read-only" in unprivileged(lambda: read(path))
    assert read(path) == "[('resnet18/seed0', 1)]"


def test_a_driver_says_what_it_may_not_write(public_folder: Path) -> None:
    path = public_folder / "results.db"
    with_one_epoch(path).close()
    for mode, folder_mode in ((0o444, 0o777), (0o666, 0o555)):
        path.chmod(mode)
        public_folder.chmod(folder_mode)
        assert "cannot be written: the file or its folder is read-only" in unprivileged(lambda: open_database(path))
    other = public_folder / "other.db"
    message = unprivileged(lambda: open_database(other, create=True))
    assert message.startswith("DatabaseError") and "other.db cannot be made: folder" in message
    path.chmod(SECRET)
    assert "results.db cannot be read: Permission denied" in unprivileged(lambda: read(path))
    public_folder.chmod(0o700)
    message = unprivileged(lambda: read(path))
    assert message.startswith("DatabaseError") and "results.db" in message


@another_user
def test_whoever_may_write_the_database_may_lock_it(public_folder: Path) -> None:
    """Two users of one group and a folder of that group, under the usual umask of such a machine."""
    path = public_folder / "results.db"
    with_one_epoch(path).close()
    path.chmod(0o660)
    for entry in (public_folder, path):
        os.chown(entry, 0, NOBODY)
    public_folder.chmod(0o2770)

    def drive(umask: int) -> str:
        os.umask(umask)
        with open_database(path) as database, driver_lock(database, grid="table1"):
            return "driven"

    Path(f"{path}.lock").unlink(missing_ok=True)
    assert in_a_process(lambda: drive(0o027)) == "driven"
    assert unprivileged(lambda: drive(0o027)) == "driven"
    # One that an older version left.
    Path(f"{path}.lock").chmod(SECRET)
    message = unprivileged(lambda: drive(0o027))
    assert (
        f"{path}.lock cannot be opened (Permission denied); whoever it belongs to can give the right: chmod" in message
    )
    assert message.endswith("--reference results.db results.db.lock")


def test_a_name_that_leaves_no_room_for_the_files_beside_it_is_refused(tmp_path: Path) -> None:
    whole = with_one_epoch(tmp_path / ("d" * 247))
    with driver_lock(whole, grid="table1"):
        whole.record_epoch(1, result(1), "exclusive")
    whole.close()
    for readonly in (True, False):
        with pytest.raises(DatabaseError, match=r"its name is too long .*; at most 247 bytes are possible"):
            open_database(tmp_path / ("é" * 124), create=True, readonly=readonly)


def test_a_file_system_without_locks_is_told_from_a_locked_file(
    path: Path,
) -> None:
    with_one_epoch(path).close()
    library = path.with_name("nolocks.so")
    source = """
        #include <errno.h>
        #include <fcntl.h>
        #include <stdarg.h>
        #include <sys/syscall.h>
        #include <unistd.h>
        static int without(int file, int command, long value) {
            if (command == F_SETLK || command == F_SETLKW || command == F_GETLK) { errno = ENOLCK; return -1; }
            return syscall(SYS_fcntl, file, command, value);
        }
        #define BODY { va_list more; va_start(more, command); long value = va_arg(more, long); va_end(more); \\
            return without(file, command, value); }
        int fcntl(int file, int command, ...) BODY
        int fcntl64(int file, int command, ...) BODY
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler to make such a file system with")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, "-x", "c", "-"], input=source, text=True, check=True)
    command = [sys.executable, "-c", "from orchestrator.cli import main; main()", "status", "--db", str(path)]
    # `make coverage` counts statements in a file that needs locks, too: this process is not counted.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_PROCESS")}
    environment["LD_PRELOAD"] = str(library)
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr == (
        f"error: {path} cannot be locked: its file system has no locks; put it on a local disk, or use PostgreSQL\n"
    )


@another_user
def test_what_may_be_written_is_tried_and_not_asked(public_folder: Path) -> None:
    """Open databases with other rights than those of the process's real user, for whom `access` answers."""
    path = public_folder / "results.db"
    with_one_epoch(path).close()
    path.chmod(0o644)
    public_folder.chmod(0o755)

    def as_another(work: Callable[[], object]) -> object:
        os.setresuid(0, NOBODY, 0)
        assert os.access(path, os.W_OK)
        return work()

    message = in_a_process(lambda: as_another(lambda: open_database(path)))
    assert "cannot be written: the file or its folder is read-only" in message
    message = in_a_process(lambda: as_another(lambda: open_database(public_folder / "other.db", create=True)))
    assert "other.db cannot be made: folder" in message
    assert in_a_process(lambda: as_another(lambda: read(path))) == "[('resnet18/seed0', 1)]"
    assert sorted(child.name for child in public_folder.iterdir()) == ["results.db"]


def test_a_lock_file_that_cannot_be_written_is_told(public_folder: Path) -> None:
    path = public_folder / "results.db"
    public_folder.chmod(0o777)

    def drive() -> None:
        with open_database(path, create=True) as database:
            Path(f"{path}.lock").touch()
            Path(f"{path}.lock").chmod(0o000)
            with driver_lock(database, grid="table1"):
                pass

    assert "cannot be locked" in unprivileged(drive)


# Other programs and full disks


def test_a_database_locked_by_another_program_is_waited_for(path: Path, impatient: None) -> None:
    with with_one_epoch(path) as database:
        other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseError, match=r"results.db is locked by another program"):
            database.record_epoch(1, result(1), "exclusive")
        assert count(database, "epochs") == 1

        def let_go() -> None:
            time.sleep(0.06)
            other.rollback()

        thread = threading.Thread(target=let_go)
        thread.start()
        patience.PAUSES = (0.05,) * 40
        database.record_epoch(1, result(1), "exclusive")
        thread.join()
        assert count(database, "epochs") == 2
        other.close()


def test_a_full_disk_leaves_nothing_half_written(path: Path) -> None:
    with with_one_epoch(path) as database:
        raw = database.engine.raw_connection()
        (pages,) = raw.driver_connection.execute("PRAGMA page_count").fetchone()
        raw.driver_connection.execute(f"PRAGMA max_page_count = {pages + 2}")
        raw.close()
        recorded = 1
        with pytest.raises(DatabaseError, match=r"cannot grow: its disk is full. Nothing was half written; make room"):
            while True:
                database.record_epoch(1, result(recorded, heads=4), "exclusive")
                recorded += 1
        assert recorded > 1
        assert (count(database, "epochs"), count(database, "evaluations")) == (recorded, 2 + 5 * (recorded - 1))
        with pytest.raises(DatabaseError, match="disk is full"):
            save(database, 200, grid="large")
        assert [grid.name for grid in database.grids()] == ["table1"] and count(database, "trials") == 1

        raw = database.engine.raw_connection()
        raw.driver_connection.execute("PRAGMA max_page_count = 100000")
        raw.close()
        database.record_epoch(1, result(recorded), "exclusive")
        database.finish_attempt(1, "done", trial_state="done")
        assert database.progress()[0].epochs_done == recorded + 1


def test_a_reader_elsewhere_disturbs_no_driver(path: Path) -> None:
    """One process asks without pause while another records; then it is killed in the middle of it."""
    code = f"""
from orchestrator.database import open_database
seen = 0
print("ready", flush=True)
while True:
    with open_database({str(path)!r}, readonly=True) as database:
        epochs = database.progress()[0].epochs_done
    assert epochs >= seen
    seen = epochs
    if epochs >= 200:
        print("saw all", flush=True)
"""
    with with_one_epoch(path) as database:
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as reader:
            assert reader.stdout.readline() == b"ready\n"
            for epoch in range(1, 200):
                database.record_epoch(1, result(epoch), "exclusive")
            assert reader.stdout.readline() == b"saw all\n"
            reader.kill()
            assert b"Error" not in reader.stderr.read()
        database.finish_attempt(1, "done", trial_state="done")
        assert count(database, "epochs") == 200


# The journal


def test_a_local_file_has_a_write_ahead_log(path: Path) -> None:
    with open_database(path, create=True) as database, database.engine.connect() as connection:
        assert not database.warnings
        pragmas = ("journal_mode", "synchronous", "foreign_keys")
        assert [connection.exec_driver_sql(f"PRAGMA {pragma}").scalar() for pragma in pragmas] == ["wal", 1, 1]
    assert stat.S_ISREG(path.stat().st_mode)


def test_on_a_network_file_system_there_is_another_journal_and_a_warning(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_database(path, create=True).close()
    monkeypatch.setattr(sqlite, "network_filesystem", lambda path: "nfs4")
    with open_database(path) as database:
        assert "is on a network file system (nfs4)" in database.warnings[0]
        with database.engine.connect() as connection:
            pragmas = ("journal_mode", "synchronous")
            assert [connection.exec_driver_sql(f"PRAGMA {pragma}").scalar() for pragma in pragmas] == ["delete", 2]
        (key,) = save(database)
        database.record_epoch(start(database, key), result(0), "exclusive")
        assert read(path) == "[('resnet18/seed0', 1)]"
    monkeypatch.undo()
    with open_database(path) as database, database.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("/results.db", None),
        ("/home/ann/results.db", "nfs4"),
        ("/home/ann/scratch/results.db", None),
        ("/home2/results.db", None),
        ("/data/my disk/results.db", "cifs"),
        ("/mnt/ssh/results.db", "fuse.sshfs"),
        ("/mnt/usb/results.db", None),
        ("/both/results.db", "lustre"),
    ],
)
def test_network_file_systems_are_told_by_their_mounts(tmp_path: Path, file: str, kind: str | None) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "/dev/sda1 / ext4 rw 0 0\n"
        "server:/home /home nfs4 rw 0 0\n"
        "/dev/sdb1 /home/ann/scratch xfs rw 0 0\n"
        "//nas/d /data/my\\040disk cifs rw 0 0\n"
        "ann@host: /mnt/ssh fuse.sshfs rw 0 0\n"
        "/dev/sdc1 /mnt/usb fuseblk rw 0 0\n"
        "/dev/sdd1 /both ext4 rw 0 0\n"
        "mds:/both /both lustre rw 0 0\n"
        "garbage\n"
    )
    assert network_filesystem(Path(file), mounts) == kind
    assert network_filesystem(Path(file), tmp_path / "none") is None


def test_what_ends_a_trial_is_on_the_disk(path: Path) -> None:
    """Epochs are committed to the operating system, the end of a trial to the disk: its checkpoint goes then."""
    with with_one_epoch(path) as database:
        seen: list[str] = []
        raw = database.engine.raw_connection()
        connection = raw.driver_connection
        raw.close()

        def watch(statement: str) -> None:
            if statement in ("BEGIN IMMEDIATE", "COMMIT"):
                seen.append(statement)
            elif statement.startswith("PRAGMA synchronous = "):
                seen.append(statement.split()[-1])

        connection.set_trace_callback(watch)
        database.record_epoch(1, result(1), "exclusive")
        database.finish_attempt(1, "done", trial_state="done")
        connection.set_trace_callback(None)
        assert seen == ["BEGIN IMMEDIATE", "COMMIT", "FULL", "BEGIN IMMEDIATE", "COMMIT", "1"]
