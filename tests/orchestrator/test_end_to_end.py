"""A grid from its file to the end, as a person runs it: what others see meanwhile, and what stands in the database."""

from __future__ import annotations

import ipaddress
import json
import os
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.orchestrator.runs import Run, Workplace, describe, differences, ended, wait_for, workplace

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

EPOCHS = 4


@dataclass
class Evidence:
    """What was seen while a run was in progress, and afterwards."""

    place: Workplace
    grid: Path
    pid: int = 0
    listening: dict[str, set[str]] = field(default_factory=dict)
    token_mode: int = 0
    said: dict[str, tuple[int, str]] = field(default_factory=dict)
    states: list[dict[str, str]] = field(default_factory=list)
    code: int = 1
    output: str = ""
    home: Path = Path()


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


def listening(place: Workplace) -> dict[str, set[str]]:
    """The addresses on which the processes of a run accept connections, by process."""
    found: dict[str, set[str]] = {}
    for process in place.processes():
        try:
            connections = process.net_connections(kind="inet")
        except psutil.Error:
            continue
        addresses = {each.laddr.ip for each in connections if each.status in (psutil.CONN_LISTEN, psutil.CONN_NONE)}
        if addresses:
            found[describe(process)] = addresses
    return found


def local(address: str) -> bool:
    """Whether only this machine can reach it."""
    parsed = ipaddress.ip_address(address)
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback


def lock_for_a_while(place: Workplace, seconds: float) -> None:
    """Be another program that writes to the database."""
    with closing(sqlite3.connect(place.database, timeout=60, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        time.sleep(seconds)
        connection.execute("ROLLBACK")


@pytest.fixture(scope="module")
def evidence() -> Iterator[Evidence]:
    """One run of four trials from a folder of an odd name, with everything done to it that must not disturb it."""
    with workplace() as place:
        # Shells read the path of the interpreter, and command lines are as long as the path is.
        place.move_python("the environment of project #1, in a folder with a name as long as names are")
        git(place, "init", "--quiet")
        git(place, "add", ".")
        git(place, "commit", "--quiet", "--message", "all")
        source = place.code / "trainer/train.py"
        source.write_text(source.read_text() + "\n# edited before the launch\n")
        grid = place.grid("first", {"methods": [{}, {"pskd": None}], "seed": [0, 1]}, epochs=EPOCHS)
        home = place.folder / "home"
        home.mkdir()
        seen = Evidence(place, grid, home=home)
        run = place.start("run", grid, HOME=str(home))
        seen.pid = run.pid
        with ended(run):
            assert wait_for(lambda: place.epochs() >= 1 or run.over()), run.text()
            watch(seen, run)
            seen.code = run.code()
        seen.output = run.text()
        yield seen


def watch(seen: Evidence, run: Run) -> None:
    place, grid = seen.place, seen.grid
    seen.listening = listening(place)
    seen.token_mode = (seen.home / ".ray/auth_token").stat().st_mode & 0o777
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
    for name, process in processes.items():
        with ended(process):
            seen.said[name] = (process.code(), process.text())


def test_every_trial_is_done(evidence):
    assert evidence.code == 0, evidence.output
    assert "4 of 4 done" in evidence.output
    assert evidence.place.doubtful() == []
    assert evidence.place.processes_left() == []


def hold_to_loopback(found: dict[str, set[str]]) -> None:
    processes = " ".join(found)
    assert "gcs_server" in processes and "raylet" in processes and "dashboard" in processes
    assert {name: addresses for name, addresses in found.items() if not all(map(local, addresses))} == {}


def test_every_listening_socket_is_a_local_one(evidence):
    hold_to_loopback(evidence.listening)


@pytest.mark.parametrize(
    ("options", "variables"),
    [((), {"RAY_ADDRESS": "local"}), pytest.param(("--address", "local"), {}, marks=pytest.mark.slow)],
    ids=str,
)
def test_a_ray_of_the_own_word_for_it_listens_like_the_default(evidence, options, variables):
    place = evidence.place
    # Ray makes the key where there is none.
    home = place.folder / f"home{len(options)}"
    home.mkdir()
    words = ("run", evidence.grid, "--db", f"{home.name}.db", "--no-canary", *options)
    with ended(place.start(*words, output=f"{home.name}.txt", HOME=str(home), **variables)) as run:
        assert wait_for(lambda: "started on" in run.text() or run.over()) and not run.over(), run.text()
        found = listening(place)
        run.press_ctrl_c()
        assert run.code() == 130, run.text()
    hold_to_loopback(found)
    assert (home / ".ray/auth_token").stat().st_mode & 0o777 == 0o600
    assert place.processes_left() == []


def test_the_key_to_ray_is_for_its_owner_alone(evidence):
    assert evidence.token_mode == 0o600


@pytest.mark.parametrize("command", ["second run", "time"])
def test_a_second_driver_is_told_who_holds_the_database(evidence, command):
    code, text = evidence.said[command]
    assert code == 3
    assert text.startswith("error: results.db is in use by `orchestrate` for first, process ")
    assert f"process {evidence.pid} on {os.uname().nodename}, since " in text
    assert "Traceback" not in text


def test_status_tells_of_a_running_grid(evidence):
    code, text = evidence.said["status"]
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
def test_others_read_while_it_runs(evidence, command, words):
    code, text = evidence.said[command]
    assert code == 0, text
    assert words in text and "Traceback" not in text


def test_plain_lines_where_there_is_no_terminal(evidence):
    assert "\x1b" not in evidence.output
    lines = evidence.output.splitlines()
    assert lines[0] == "4 trials: 4 new; 4 trials to run"
    assert lines[1].startswith("Ray dashboard: http://127.0.0.1:")
    assert lines[2] == "live page of the results: orchestrate watch --serve --grid first"
    for name in ("baseline/seed0", "baseline/seed1", "pskd/seed0", "pskd/seed1"):
        assert f"resnet18/{name}: done" in lines
        assert any(line.startswith(f"resnet18/{name}: epoch {EPOCHS}/{EPOCHS}, top-1 error ") for line in lines)


def test_every_attempt_knows_its_code_and_its_machine(evidence):
    place = evidence.place
    rows = place.ask("SELECT environment, host, device, pid, log FROM attempts")
    assert len(rows) == 4
    for text, host, device, pid, log in rows:
        environment = json.loads(text)
        assert environment["commit"] == git(place, "rev-parse", "HEAD")
        assert environment["dirty"] is True
        assert "+# edited before the launch" in environment["diff"]
        assert environment["code_changed"] is False
        assert f"Ray dashboard: {environment['dashboards']['ray']}" in evidence.output
        assert f"run {evidence.grid}" in environment["command"]
        assert {"torch", "ray", "numpy", "sqlalchemy"} <= environment["versions"].keys()
        assert environment["device"]["name"] and environment["device"]["name"] in device
        assert host == os.uname().nodename and pid
        assert "epoch 4/4:" in Path(log).read_text()


def test_a_finished_grid_starts_nothing(evidence):
    before = sorted(path.name for path in (evidence.place.folder / "ray").iterdir())
    code, text = evidence.place.run("run", evidence.grid)
    assert (code, text) == (0, "4 trials: 4 done; nothing to run\n")
    assert sorted(path.name for path in (evidence.place.folder / "ray").iterdir()) == before


def test_a_trial_of_two_grids_is_trained_once(evidence, monkeypatch):
    """With Ray's own choice of process, and on a copy of the database: other tests count what is in the first one."""
    place: Workplace = evidence.place
    code, text = place.run("backup", "both.db")
    assert code == 0, text
    monkeypatch.setattr(place, "database", place.folder / "both.db")
    before = place.results()
    second = place.grid("second", {"methods": [{"pskd": None}, {"label_smoothing": None}], "seed": [1]}, epochs=EPOCHS)
    code, text = place.run("run", second, "--no-dashboard", "--db", "both.db")
    assert code == 0, text
    assert text.startswith("2 trials: 1 new, 1 done; 1 trial to run")
    assert place.ask("SELECT count(*) FROM attempts") == [(5,)]
    after = place.results()
    assert len(after) == 5
    assert differences({key: after[key] for key in before}, before) == []
    statuses: list[dict[str, Any]] = json.loads(place.run("status", "--json", "--db", "both.db")[1])
    assert {grid["name"]: grid["counts"]["done"] for grid in statuses} == {"first": 4, "second": 2}
