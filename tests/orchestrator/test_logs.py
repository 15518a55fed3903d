"""The end of a log: what of the files that a database names is read, and how much."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

import pytest

from orchestrator.failures import failure_of
from orchestrator.logs import END, log_end
from orchestrator.storage import StorageError
from orchestrator.worker.trial_log import new_log
from tests.orchestrator.users import NOBODY, another_user, unprivileged

KEY, HOST = hashlib.sha256(b"a trial").hexdigest(), socket.gethostname()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A new log of the trial, as an attempt makes it."""
    return new_log(str(tmp_path), "resnet18/pskd/seed0", KEY)


def test_the_last_whole_lines_are_read(log: Path):
    assert log_end(str(log), KEY, HOST) == ""
    log.write_bytes(b"short \xff\n")
    assert log_end(str(log), KEY, HOST) == "short \ufffd"
    log.write_text("".join(f"line {number}\n" for number in range(2_000)))
    end = log_end(str(log), KEY, HOST)
    assert end is not None and end.endswith("line 1999") and END - 20 < len(end) <= END
    assert end.splitlines() == [f"line {number}" for number in range(2_000)][-len(end.splitlines()) :]
    second = new_log(str(log.parent.parent), "resnet18/pskd/seed0", KEY)
    second.write_text("again")
    assert second != log and log_end(str(second), KEY, HOST) == "again"


@another_user
def test_a_user_who_goes_on_with_the_trial_of_another_has_a_folder_of_logs_beside_it(public_folder: Path):
    first = new_log(str(public_folder), "grid/seed0", KEY)
    first.parent.chmod(0o755)
    message = unprivileged(lambda: new_log(str(public_folder), "grid/seed0", KEY))
    assert message.startswith(f"StorageError: {first.parent}: this user may not write a log there")
    public_folder.chmod(0o777)
    second = unprivileged(lambda: new_log(str(public_folder), "grid/seed0", KEY))
    assert second == str(public_folder / f"grid_seed0-{NOBODY}" / first.name)
    assert log_end(second, KEY, HOST) == ""


def test_a_place_where_no_log_can_be_written_is_a_fault_of_the_machine(public_folder: Path):
    def failure() -> str:
        with pytest.raises(StorageError) as caught:
            new_log(str(public_folder), "grid/seed0", KEY)
        return failure_of(caught.value).error_class

    public_folder.chmod(0o555)
    assert unprivileged(failure) == "infrastructure"


def test_of_a_log_of_gigabytes_only_the_end_is_read(log: Path):
    with log.open("wb") as file:
        file.truncate(1 << 33)
        file.seek(0, os.SEEK_END)
        file.write(b"\nthe end\n")
    assert log_end(str(log), KEY, HOST) == "the end"


def test_a_log_of_another_host_is_not_read(log: Path):
    log.write_text("secret")
    assert log_end(str(log), KEY, "elsewhere") is None and log_end(str(log), KEY, None) is None
    assert log_end(None, KEY, HOST) is None and log_end("", KEY, HOST) is None


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("cloud", "cloud-init.log"),
        ("cloud", "cloud-1.log"),
        ("", "-1.log"),
        ("auth.log", "auth.log-1.log"),
        (KEY[:8], f"{KEY[:8]}-1.log"),
        (f"{KEY}\n", f"{KEY[:8]}-1.log"),
        (KEY.upper(), f"{KEY[:8].upper()}-1.log"),
        (KEY, f"{KEY[:8]}-init.log"),
        (KEY, f"{KEY[:8]}-1.txt"),
        (KEY, f"{KEY[:8]}-.log"),
        (KEY, f"{KEY[:8]}.log"),
        (KEY, f"x{KEY[:8]}-1.log"),
        (KEY, f"{KEY[:8]}-1.log\n"),
        (KEY, f"{hashlib.sha256(b'another').hexdigest()[:8]}-1.log"),
        (KEY, "secret.log"),
    ],
)
def test_what_is_not_named_as_a_log_of_the_trial_is_not_read(tmp_path: Path, key: str, name: str):
    (tmp_path / name).write_text("secret")
    assert log_end(str(tmp_path / name), key, HOST) is None


def test_what_is_no_regular_file_is_not_read_and_keeps_nobody_waiting(tmp_path: Path, log: Path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    log.unlink()
    assert log_end(str(log), KEY, HOST) is None and log_end(f"{log}\0", KEY, HOST) is None
    # A pipe that nobody writes to: opening it would wait for ever.
    for make in (
        os.mkfifo,
        os.mkdir,
        lambda path: os.symlink(secret, path),
        lambda path: os.symlink("/dev/zero", path),
    ):
        place = log.with_name(f"{KEY[:8]}-{len(list(log.parent.iterdir())) + 1}.log")
        make(place)
        assert log_end(str(place), KEY, HOST) is None
