"""A grid from its file to the end, as a person runs it: what others see meanwhile, and what stands in the database."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.orchestrator.runs import Run, Workplace, ended, wait_for, workplace
from tests.orchestrator.sockets import hold_to_loopback, listening

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

EPOCHS = 4


def git(place: Workplace, *arguments: str) -> str:
    identity = {
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@b",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b",
    }
    done = subprocess.run(
        ["git", "-C", str(place.code), *arguments],
        env={**os.environ, **identity, "GIT_CONFIG_GLOBAL": os.devnull},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def lock_for_a_while(place: Workplace, seconds: float) -> None:
    """Be another program that writes to the database."""
    with closing(sqlite3.connect(place.database, timeout=60, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        time.sleep(seconds)
        connection.execute("ROLLBACK")


@pytest.fixture(scope="module")
def place() -> Iterator[Workplace]:
    """A workplace below a folder of an odd name, with a repository whose code was edited since the last commit."""
    with workplace() as place:
        # Shells read the path of the interpreter, and command lines are as long as the path is.
        place.move_python("the environment of project #1, in a folder with a name as long as names are")
        git(place, "init", "--quiet")
        git(place, "add", ".")
        git(place, "commit", "--quiet", "--message", "all")
        source = place.code / "trainer/train.py"
        source.write_text(source.read_text() + "\n# edited before the launch\n")
        (place.folder / "home").mkdir()
        yield place


@pytest.fixture(scope="module")
def grid(place: Workplace) -> Path:
    """A grid of four trials."""
    return place.grid("first", {"methods": [{}, {"pskd": None}], "seed": [0, 1]}, epochs=EPOCHS)


@pytest.fixture(scope="module")
def run(place: Workplace, grid: Path) -> Iterator[Run]:
    """A run of the grid whose first epoch is recorded; what other fixtures do meanwhile must not disturb it."""
    with ended(place.start("run", grid, HOME=str(place.folder / "home"))) as run:
        assert wait_for(lambda: place.epochs() >= 1 or run.over()), run.text()
        yield run


@pytest.fixture(scope="module")
def sockets(place: Workplace, run: Run) -> dict[str, set[str]]:
    """Return the addresses that the processes of the run listen on."""
    return listening(place)


@pytest.fixture(scope="module")
def answers(place: Workplace, grid: Path, run: Run, sockets: dict[str, set[str]]) -> dict[str, tuple[int, str]]:
    """Exit codes and outputs of other commands during the run, by name."""
    commands = {
        "second run": ("run", grid),
        "time": ("time", grid),
        "status": ("status", "--json"),
        "watch": ("watch", "--once"),
        "plan": ("plan", grid, "--json"),
        "report": ("report", "--format", "md"),
        "export": ("export", "--out", "exported"),
        "triage": ("triage", "--json"),
    }
    # At once, for the grid is a short one.
    processes = {name: place.start(*words, output=f"{name}.txt") for name, words in commands.items()}
    lock_for_a_while(place, 2)
    assert not run.over(), run.text()
    by_name = {}
    for name, process in processes.items():
        with ended(process):
            by_name[name] = (process.code(), process.text())
    return by_name


@pytest.fixture(scope="module")
def output(run: Run, answers: dict[str, tuple[int, str]]) -> str:
    """Return what the run has printed at its end, after everything was done to it that must not disturb it."""
    assert run.code() == 0, run.text()
    return run.text()


def test_every_listening_socket_is_a_local_one(sockets):
    hold_to_loopback(sockets)


def test_the_key_to_ray_is_for_its_owner_alone(place, run):
    assert (place.folder / "home/.ray/auth_token").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("command", ["second run", "time"])
def test_a_second_driver_is_told_who_holds_the_database(run, answers, command):
    code, text = answers[command]
    assert code == 3
    assert text.startswith("error: results.db is in use by `orchestrate` for first, process ")
    assert f"process {run.pid} on {os.uname().nodename}, since " in text
    assert "Traceback" not in text


def test_status_tells_of_a_running_grid(answers):
    code, text = answers["status"]
    assert code == 0
    (grid,) = json.loads(text)
    assert grid["name"] == "first"
    assert sum(grid["counts"].values()) == 4 == len(grid["trials"])
    assert any(0 < trial["epochs_done"] <= EPOCHS for trial in grid["trials"])


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("watch", "pskd"),
        ("plan", "resnet18/pskd/seed1"),
        ("report", "wrote"),
        ("export", "exported/epochs.csv"),
        ("triage", "[]"),
    ],
)
def test_others_read_while_it_runs(answers, command, words):
    code, text = answers[command]
    assert code == 0, text
    assert words in text and "Traceback" not in text


def test_every_trial_is_done(place, output):
    assert "4 of 4 done" in output
    assert place.doubtful() == []
    assert place.processes_left() == []


def test_plain_lines_where_there_is_no_terminal(output):
    assert "\x1b" not in output
    lines = output.splitlines()
    assert lines[0] == "4 trials: 4 new; 4 trials to run"
    assert lines[1].startswith("Ray dashboard: http://127.0.0.1:")
    assert lines[2] == "live page of the results: orchestrate watch --serve --grid first"
    for name in ("baseline/seed0", "baseline/seed1", "pskd/seed0", "pskd/seed1"):
        assert f"resnet18/{name}: done" in lines
        assert any(line.startswith(f"resnet18/{name}: epoch {EPOCHS}/{EPOCHS}, top-1 error ") for line in lines)


def test_every_attempt_knows_its_code_and_its_machine(place, grid, output):
    rows = place.ask("SELECT environment, host, device, pid, log FROM attempts")
    assert len(rows) == 4
    for text, host, device, pid, log in rows:
        environment = json.loads(text)
        assert environment["commit"] == git(place, "rev-parse", "HEAD")
        assert environment["dirty"] is True
        assert "+# edited before the launch" in environment["diff"]
        assert environment["code_changed"] is False
        assert f"Ray dashboard: {environment['dashboards']['ray']}" in output
        assert f"run {grid}" in environment["command"]
        assert {"torch", "ray", "numpy", "sqlalchemy"} <= environment["versions"].keys()
        assert environment["device"]["name"] and environment["device"]["name"] in device
        assert host == os.uname().nodename and pid
        assert "epoch 4/4:" in Path(log).read_text()


def test_a_finished_grid_starts_nothing(place, grid, output):
    before = sorted(path.name for path in (place.folder / "ray").iterdir())
    code, text = place.run("run", grid)
    assert (code, text) == (0, "4 trials: 4 done; nothing to run\n")
    assert sorted(path.name for path in (place.folder / "ray").iterdir()) == before
