"""Runs on a disk that is full, or that is made read-only meanwhile: a retry or a clear end, and nothing is lost."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.orchestrator.runs import Results, Run, Workplace, differences, ended, wait_for, workplace

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

EPOCHS, WAITS_IN = 4, 2


class Disk:
    """A small disk of its own, mounted at `path`."""

    def __init__(self, path: Path) -> None:
        self.path, self.ballast = path, path / "ballast"

    def fill(self) -> None:
        """Leave room for nothing."""
        with open(self.ballast, "wb", buffering=0) as file:
            for size in (2**16, 2**12, 1):
                try:
                    while True:
                        file.write(b"\0" * size)
                except OSError as error:
                    assert error.errno == errno.ENOSPC

    def empty(self) -> None:
        """Make room again."""
        self.ballast.unlink()

    def protect(self, on: bool) -> None:
        """Make it read-only, or writable again."""
        mount("-o", f"remount,{'ro' if on else 'rw'}", self.path)


def mount(*arguments: object) -> None:
    """Call `mount`; skips where this user may not."""
    if shutil.which("mount") is None:
        pytest.skip("there is no program `mount`")
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this user may not mount a disk: {done.stderr.strip()}")


@contextmanager
def small_disk(path: Path) -> Iterator[Disk]:
    path.mkdir()
    mount("-t", "tmpfs", "-o", "size=8m", "none", path)
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


@pytest.fixture(scope="module")
def place() -> Iterator[Workplace]:
    with workplace() as folder:
        shutil.copy(Path(__file__).parents[1] / "sabotage.py", folder.code / "trainer/methods")
        yield folder


@pytest.fixture(scope="module")
def gate(place: Workplace) -> Path:
    """The file for which the trial waits in its third epoch, once it is there."""
    return place.folder / "gate"


@pytest.fixture(scope="module")
def grid(place: Workplace, gate: Path) -> Path:
    waits = {"sabotage": {"how": "wait", "flag": str(gate), "at": WAITS_IN}}
    return place.grid("disks", {"methods": [{"pskd": {}, **waits}]}, epochs=EPOCHS)


@pytest.fixture(scope="module")
def expected(place: Workplace, grid: Path) -> Results:
    return place.undisturbed(grid)


@pytest.fixture
def disk(place: Workplace, gate: Path) -> Iterator[Disk]:
    """A small disk; the trials wait, and no results are there yet."""
    place.clear()
    gate.touch()
    with small_disk(place.folder / "disk") as made:
        yield made
    (place.folder / "disk").rmdir()


def until_it_waits(place: Workplace, run: Run) -> None:
    assert wait_for(lambda: place.epochs() == WAITS_IN or run.over())
    assert not run.over(), run.text()


def test_a_checkpoint_that_does_not_fit_is_tried_again(place, grid, gate, expected, disk):
    folder = disk.path / "checkpoints"
    with ended(place.start("run", grid, "--no-dashboard", "--checkpoints", folder)) as run:
        until_it_waits(place, run)
        disk.fill()
        gate.unlink()
        assert wait_for(lambda: "tried again" in run.text() or run.over())
        disk.empty()
        assert run.code() == 0, run.text()
        assert ": tried again: OSError: [Errno 28] No space left on device" in run.text()
        assert "Traceback" not in run.text()
    assert differences(place.results(), expected) == []
    assert place.doubtful() == []
    assert [path.name for path in folder.iterdir() if path.suffix != ".pt"] == []
    (text, *_), *_ = place.ask("SELECT error_text FROM attempts WHERE outcome = 'failed' ORDER BY id")
    assert "in save_checkpoint" in text
    outcomes = place.ask("SELECT DISTINCT outcome, error_class FROM attempts ORDER BY outcome")
    assert outcomes == [("done", None), ("failed", "infrastructure")]


def test_a_database_that_cannot_grow_ends_the_run_and_loses_nothing(place, grid, gate, expected, disk):
    database = disk.path / "results.db"
    arguments = ("run", grid, "--no-dashboard", "--db", database, "--checkpoints", place.folder / "results-checkpoints")
    place.database = database
    try:
        with ended(place.start(*arguments)) as run:
            until_it_waits(place, run)
            before = place.results()
            disk.fill()
            gate.unlink()
            assert run.code() == 75, run.text()
        error = run.text().splitlines()[-1]
        assert error.startswith(f"error: {database} cannot grow: its disk is full. Nothing was half written; make room")
        assert "Traceback" not in run.text()
        assert place.processes_left() == []
        # What was recorded can still be read, and nothing more than that is there.
        assert place.results() == before
        code, text = place.run("status", "--db", database, output="status.txt")
        assert code == 0 and f"{WAITS_IN} of {EPOCHS} epochs" in text

        disk.empty()
        code, output = place.run(*arguments)
        assert code == 0, output
        assert differences(place.results(), expected) == []
        assert place.doubtful() == []
    finally:
        place.database = place.folder / "results.db"


def test_a_disk_that_turns_read_only_is_named(place, grid, gate, expected, disk):
    folder = disk.path / "checkpoints"
    with ended(place.start("run", grid, "--no-dashboard", "--checkpoints", folder)) as run:
        until_it_waits(place, run)
        disk.protect(True)
        gate.unlink()
        # The machine's fault, and not the trial's.
        assert run.code() == 75, run.text()
        assert f"{folder}" in run.text() and "Traceback" not in run.text()
    assert place.ask("SELECT DISTINCT outcome, error_class FROM attempts") == [("failed", "infrastructure")]
    assert place.ask("SELECT state FROM trials") == [("pending",)]
    assert place.unfinished() == []
    assert place.epochs() == WAITS_IN
    # Not even started: it would fail in the same way.
    code, output = place.run("run", grid, "--no-dashboard", "--checkpoints", folder)
    assert code == 75 and output.splitlines()[-1].startswith(f"error: {folder} cannot be written"), output
    disk.protect(False)
    code, output = place.run("run", grid, "--no-dashboard", "--checkpoints", folder)
    assert code == 0, output
    assert differences(place.results(), expected) == []
    assert [path.name for path in folder.iterdir() if path.suffix != ".pt"] == []
    assert os.listdir(folder)
