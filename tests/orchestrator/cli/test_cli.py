"""The command line as people and programs meet it: help, exit codes, plain output, no traceback for bad input."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.database import Database, driver_lock, open_database
from orchestrator.database.backends import sqlite
from orchestrator.failures import Failure
from orchestrator.grid import load_grid
from tests.orchestrator.databases.samples import result, start
from tests.orchestrator.grid_files import SHIPPED
from tests.orchestrator.grid_mutants import SEEDS, mutant
from tests.orchestrator.users import SECRET, unprivileged
from trainer.config import TrainConfig

COMMANDS = typer.main.get_command(app).commands
ROOT = Path(__file__).parents[3]

GRID = {
    "name": "first",
    "fixed": {"dataset": "digits", "epochs": 2},
    "grid": {"network": ["resnet18"], "methods": [{}, "pskd"], "seed": [0, 1]},
    "resources": {"gpu": 0, "cpu": 1},
}

# What each command needs beside its database.
READERS = {
    "plan": ["first.yaml"],
    "status": [],
    "watch": ["--once"],
    "report": ["--out", "report"],
    "triage": [],
    "explain": ["first:resnet18/pskd/top1"],
    "verify": ["paper.tex"],
    "export": ["--out", "exported"],
}
DRIVERS = {"run": ["first.yaml"], "time": ["first.yaml"], "migrate": [], "forget": ["first"]}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a grid file and a paper, and nothing in the environment that changes what a command does."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("ORCHESTRATE", "RAY_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "80")
    write_grid(tmp_path / "first.yaml", GRID)
    (tmp_path / "paper.tex").write_text("\\begin{document}\\end{document}\n")
    return tmp_path


def write_grid(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1))


def orchestrate(*arguments: object) -> Result:
    """Run a command; it may end as it likes, but never with an exception that a person would see as a traceback."""
    completed = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert completed.exception is None or isinstance(completed.exception, SystemExit), completed.exc_info
    return completed


def refused(*arguments: object, code: int = 2) -> str:
    """The message, and nothing but a message, of a command that ends with this code."""
    completed = orchestrate(*arguments)
    assert completed.exit_code == code, completed.output
    assert completed.stderr.startswith("error: ") and completed.stderr.endswith("\n"), completed.stderr
    assert "Traceback" not in completed.output
    return completed.stderr


def finish(database: Database, key: str, *, epochs: int = 2, failed: bool = False) -> None:
    """Train a trial to its end, or to a failure after its first epoch."""
    attempt = start(database, key)
    for epoch in range(1 if failed else epochs):
        database.record_epoch(attempt, result(epoch), "exclusive")
    if failed:
        text = "ValueError: no [such] <thing>\nTraceback\n  File 'x.py'\nValueError: no [such] <thing>"
        database.finish_attempt(attempt, "failed", failure=Failure("code", text, "ab12"), trial_state="failed")
    else:
        database.finish_attempt(attempt, "done", trial_state="done")


@pytest.fixture
def recorded(here: Path) -> Callable[..., list[str]]:
    """Record the trials of a grid file as done, those of some positions as failed; returns the keys."""

    def record(path: str = "first.yaml", failed: tuple[int, ...] = (), db: str = "results.db") -> list[str]:
        grid = load_grid(Path(path))
        trials = [(trial.key, trial.config.model_dump(mode="json"), trial.name) for trial in grid.trials]
        with open_database(db, create=True) as database:
            states = database.states([trial.key for trial in grid.trials])
            database.save_grid(grid.name, path, grid.text, grid.report, trials)
            for position, trial in enumerate(grid.trials):
                if trial.key not in states:
                    finish(database, trial.key, failed=position in failed)
        return [trial.key for trial in grid.trials]

    return record


# Help


def test_every_command_is_listed_with_a_whole_sentence():
    text = orchestrate("--help").output
    for name in COMMANDS:
        assert re.search(rf"^  {name} +[A-Z].*[^.]\.$", text, re.MULTILINE), name
    assert "Exit codes: 0 done, 1 some trial" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example_that_parses_and_names_every_option_in_full(name: str):
    completed = orchestrate(name, "--help")
    assert completed.exit_code == 0
    lines = completed.output.splitlines()
    assert max(map(len, lines)) <= 80
    command = COMMANDS[name]
    for parameter in command.params:
        for option in (*parameter.opts, *parameter.secondary_opts):
            if option.startswith("--"):
                assert re.search(rf"(?<![\w-]){option}(?![\w-])", completed.output), option
    # On one line, so that it can be copied.
    (example,) = re.findall(r"Example: `(.*)`", completed.output)
    program, written, *arguments = shlex.split(example)
    assert (program, written) == ("orchestrate", name)
    command.make_context(name, arguments)
    assert orchestrate(name, "-h").output == completed.output


def test_a_misspelled_option_is_told_from_a_known_one():
    outcome = orchestrate("status", "--gird", "x")
    assert outcome.exit_code == 2 and "--grid" in outcome.output and "Traceback" not in outcome.output


# Databases that are none


def missing(path: Path) -> None:
    pass


def empty(path: Path) -> None:
    path.touch()


def folder(path: Path) -> None:
    path.mkdir()


def text(path: Path) -> None:
    path.write_text("name: table1\ngrid: {}\n")


def foreign(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE bookmarks (id)")
    connection.close()


def newer(path: Path) -> None:
    open_database(path, create=True).close()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE orchestrate_version SET version_num = '99'")
    connection.commit()
    connection.close()


def damaged(path: Path) -> None:
    """The tables can still be listed, and their rows not be read."""
    with open_database(path, create=True) as database:
        trials = [(f"{n:064x}", {"network": "resnet18", "methods": {}, "epochs": 1}, f"t{n}") for n in range(200)]
        database.save_grid("first", "first.yaml", "", {}, trials)
    data = bytearray(path.read_bytes())
    data[8192:] = b"\xff" * (len(data) - 8192)
    path.write_bytes(data)


SAID = {
    missing: "does not exist",
    empty: "is empty",
    folder: "is a folder, not a database",
    text: "is not a database",
    foreign: "belongs to another program",
    newer: "a newer release wrote it",
    damaged: "is damaged",
}


@pytest.mark.parametrize("kind", SAID, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("name", READERS)
def test_a_reader_says_what_is_wrong_with_the_database(name: str, kind: Callable[[Path], None], here: Path):
    kind(here / "odd.db")
    if (name, kind) == ("plan", missing):
        assert "4 new" in orchestrate("plan", "first.yaml", "--db", "odd.db").output
        return
    message = refused(name, *READERS[name], "--db", "odd.db")
    assert "odd.db" in message and SAID[kind] in message
    # A report that cannot be made leaves no files.
    assert not (here / "report").exists() or not any((here / "report").iterdir())


@pytest.mark.parametrize("kind", [folder, text, foreign, newer], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("name", DRIVERS)
def test_a_driver_says_what_is_wrong_with_the_database(name: str, kind: Callable[[Path], None], here: Path):
    kind(here / "odd.db")
    message = refused(name, *DRIVERS[name], "--db", "odd.db")
    assert "odd.db" in message and SAID[kind] in message
    assert not (here / "odd.db.lock").exists()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://ann:secret@host/x", "mysql is not supported"),
        ("postgresql://ann:secret@host", "names no database"),
        ("sqlite://", "names no file"),
        ("postgresql://ann:secret@host:port/x", "URL cannot be read"),
        ("postgresql://ann:secret@127.0.0.1:1/x", "cannot be reached"),
    ],
)
@pytest.mark.parametrize("name", READERS | DRIVERS)
def test_a_bad_url_is_told_without_its_password(name: str, url: str, words: str):
    if "127.0.0.1" in url:
        pytest.importorskip("psycopg")
    # A server that does not answer may be there later.
    code = 75 if words == "cannot be reached" else 2
    message = refused(name, *(READERS | DRIVERS)[name], "--db", url, code=code)
    assert words in message and "secret" not in message


@pytest.mark.parametrize("name", READERS)
def test_a_database_that_may_not_be_read(name: str, public_folder: Path, monkeypatch: pytest.MonkeyPatch, recorded):
    monkeypatch.chdir(public_folder)
    write_grid(public_folder / "first.yaml", GRID)
    (public_folder / "paper.tex").write_text("")
    recorded()
    # What a command imports may lie where the other user sees nothing.
    orchestrate(name, *READERS[name])
    (public_folder / "results.db").chmod(SECRET)
    message = unprivileged(lambda: refused(name, *READERS[name]))
    assert message.startswith("error: results.db cannot be read: Permission denied")


# Grids that are none


@pytest.mark.parametrize("name", ["status", "watch", "report", "triage"])
def test_an_unknown_grid_is_told_with_the_known_ones(name: str, recorded):
    recorded()
    message = refused(name, *READERS[name], "--grid", "fisrt")
    assert "fisrt" in message and "first" in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "bad.yaml"),
        (b"", "bad.yaml"),
        (b"name: [", "bad.yaml:1"),
        (b"\x00\xff", "bad.yaml"),
        (b"name: x\nfixed: {widht: 8}\n", "bad.yaml:2: fixed.widht: unknown key 'widht'; did you mean 'width'?"),
        (b"name: ../x\nfixed: {dataset: digits}\n", "bad.yaml:1: name"),
        (b"name: a/b\nfixed: {dataset: digits}\n", "bad.yaml:1: name"),
        (b"name: " + b"x" * 300 + b"\nfixed: {dataset: digits}\n", "bad.yaml:1: name"),
    ],
)
@pytest.mark.parametrize("name", ["run", "plan", "time"])
def test_a_bad_grid_names_its_place_and_makes_nothing(name: str, content: bytes | None, words: str, here: Path):
    if content is not None:
        (here / "bad.yaml").write_bytes(content)
    before = sorted(path.name for path in here.iterdir())
    assert words in refused(name, "bad.yaml")
    assert sorted(path.name for path in here.iterdir()) == before


def test_a_folder_is_no_grid(here: Path):
    (here / "grids").mkdir()
    for name in ("run", "plan", "time"):
        assert "grids" in refused(name, "grids")


def test_mutants_of_grid_files_never_end_in_a_traceback(here: Path):
    generator = random.Random(4)
    codes = []
    for number in range(150):
        path = here / f"{number}.yaml"
        path.write_bytes(mutant(generator.choice(SEEDS), generator))
        completed = orchestrate("plan", path, "--json")
        codes.append(completed.exit_code)
        if completed.exit_code:
            assert completed.exit_code == 2 and path.name in completed.stderr and not completed.stdout
    assert 10 < codes.count(0) < 140


# Exit codes and what is printed


def test_exit_codes_of_a_run_that_has_nothing_to_run(recorded):
    recorded()
    outcome = orchestrate("run", "first.yaml")
    assert (outcome.exit_code, outcome.output) == (0, "4 trials: 4 done; nothing to run\n")


def test_a_failed_trial_is_an_exit_code_of_1_until_it_is_asked_for(recorded):
    recorded(failed=(1,))
    completed = orchestrate("run", "first.yaml")
    assert completed.exit_code == 1
    assert completed.output == "4 trials: 3 done, 1 failed (--retry-failed tries again); nothing to run\n"


@pytest.mark.parametrize("name", DRIVERS)
def test_a_held_database_is_an_exit_code_of_3(name: str, recorded):
    recorded()
    with open_database("results.db") as database, driver_lock(database, grid="other"):
        message = refused(name, *DRIVERS[name], code=3)
    assert f"results.db is in use by `orchestrate` for other, process {os.getpid()} on " in message


def test_a_held_database_can_be_read(recorded):
    recorded()
    with open_database("results.db") as database, driver_lock(database, grid="other"):
        for reader, arguments in READERS.items():
            assert orchestrate(reader, *arguments).exit_code in (0, 1, 2)


def test_explain_takes_the_grid_and_the_rule_that_the_report_had(recorded):
    recorded()
    options = {option for parameter in COMMANDS["explain"].params for option in parameter.opts}
    assert {"--grid", "--selection"} <= options
    cell = "grid-first:resnet18/pskd/top1"
    assert "Selection: the last epoch (last)." in orchestrate("explain", cell, "--selection", "last").output
    assert "Grids read: first." in orchestrate("explain", cell, "--grid", "first").output
    assert "no grid 'second'" in refused("explain", cell, "--grid", "second")
    assert "unknown selection 'lats'" in refused("explain", cell, "--selection", "lats")


def test_verify_fails_where_a_number_is_stale(recorded):
    recorded()
    assert orchestrate("verify", "paper.tex").exit_code == 1
    assert "none.tex" in refused("verify", "none.tex")


def test_json_is_json_whatever_the_names_are(recorded, here: Path):
    name = "odd ü.yaml"
    write_grid(here / name, {**GRID, "name": "odd"})
    recorded(name, failed=(0,))
    document = json.loads(orchestrate("plan", name, "--json").stdout)
    # Nothing is left to run, so that nothing is left to forecast.
    assert document["forecast"] is None
    plan = document["trials"]
    assert [entry["status"] for entry in plan] == ["failed", "done", "done", "done"]
    assert {"key", "name", "status", "reason", "config", "resources"} <= plan[0].keys()
    (status,) = json.loads(orchestrate("status", "--json").stdout)
    assert status["counts"] == {"failed": 1, "done": 3}
    (failure,) = json.loads(orchestrate("triage", "--json").stdout)
    assert failure["error"] == "ValueError: no [such] <thing>"
    assert shlex.split(failure["retry"]) == ["orchestrate", "run", name, "--retry-failed"]


NASTY = [
    "x'; DROP TABLE trials; --",
    'a"b',
    "../../etc/passwd",
    "%(name)s :key ?",
    "<b>[red]\\x",
    "ü\u202e" * 40,
]


def test_names_are_never_commands(here: Path):
    """Whatever stands in a database, even what no grid file could have brought there."""
    with open_database("results.db", create=True) as database:
        for number, name in enumerate(NASTY):
            plain = TrainConfig(dataset="digits", epochs=2, seed=number)
            trials = [(plain.key(), plain.model_dump(mode="json"), f"{name}/seed{number}"[:300])]
            database.save_grid(name, name, "", {"tables": [1]}, trials)
            finish(database, plain.key(), failed=number % 2 == 1)
        before = database.progress()
    for name in NASTY:
        for reader in ("status", "watch", "triage"):
            assert orchestrate(reader, *READERS[reader], "--grid", name).exit_code == 0
        assert [grid["name"] for grid in json.loads(orchestrate("status", "--json", "--grid", name).stdout)] == [name]
        refused("status", "--grid", name + "'")
        refused("explain", f"{name}:{name}")
    assert orchestrate("report").exit_code == 0
    with open_database("results.db", readonly=True) as database:
        assert database.progress() == before
    # Reports went nowhere else.
    assert {path.name for path in here.iterdir()} == {"first.yaml", "paper.tex", "results.db", "report"}
    page = (here / "report/report.html").read_text()
    assert "<b>[red]" not in page


def test_a_command_in_a_message_is_for_the_same_database(here: Path):
    assert "`orchestrate run GRID --db 'my results.db'` makes it" in refused("status", "--db", "my results.db")
    (here / "my results.db").touch()
    assert "`orchestrate run GRID --db 'my results.db'` makes its tables" in refused("status", "--db", "my results.db")


def test_the_retry_command_is_for_the_same_database(recorded):
    recorded(failed=(0, 1), db="other one.db")
    (failure,) = json.loads(orchestrate("triage", "--json", "--db", "other one.db").stdout)
    _, name, *arguments = shlex.split(failure["retry"])
    parsed = COMMANDS[name].make_context(name, arguments).params
    assert (parsed["db"], parsed["grid"], parsed["retry_failed"]) == ("other one.db", Path("first.yaml"), True)
    status = orchestrate("status", "--db", "other one.db").output
    assert "`orchestrate triage --grid first --db 'other one.db'` says why" in status
    text = orchestrate("triage", "--db", "other one.db").output
    assert "code in first: 2 trials" in text and "retry:   " + failure["retry"] in text
    assert text.count("  log:     /logs/1.log\n") == 1


def test_output_that_is_no_terminal_is_plain_and_whole(recorded, here: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "40")
    long = {"learning_rate": [0.1, 0.05], "weight_decay": [0.0001, 0.001], "nesterov": [True, False]}
    write_grid(here / "first.yaml", {**GRID, "grid": {**GRID["grid"], **long}})
    recorded(failed=(0,))
    names = [trial.name for trial in load_grid(Path("first.yaml")).trials]
    for name, arguments in READERS.items():
        completed = orchestrate(name, *arguments)
        assert "\x1b" not in completed.output and not re.search("[\u2500-\u257f\u2026]", completed.output), name
        if name in ("plan", "triage"):
            assert names[0] in completed.output
        if name == "watch":
            assert names[1].removeprefix("resnet18/").partition("/seed")[0] in completed.output


def test_a_reader_that_stops_reading_is_no_error(here: Path):
    write_grid(here / "large.yaml", {**GRID, "grid": {"seed": list(range(3000))}})
    program = [sys.executable, "-c", "from orchestrator.cli import main; main()", "plan", "large.yaml"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        process.stdout.readline()
        process.stdout.close()
        assert (process.wait(), process.stderr.read()) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full, a disk that is always full")
@pytest.mark.parametrize(
    ("arguments", "unbuffered"),
    # Buffered, the disk is full where the command ends; otherwise where it prints.
    [
        *((("plan", "first.yaml"), ""), (("plan", "first.yaml"), "1"), (("status",), "")),
        *((("status", "--json"), ""), (("status", "--json"), "1"), (("plan", "--help"), "1")),
    ],
)
def test_a_full_disk_behind_standard_output_is_one_line(arguments: tuple[str, ...], unbuffered: str, recorded):
    recorded()
    program = [sys.executable, "-c", "from orchestrator.cli import main; main()", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        done = subprocess.run(program, stdout=full, stderr=subprocess.PIPE, env=environment, text=True)
    assert (done.returncode, done.stderr) == (
        75,
        "error: standard output cannot be written: No space left on device; make room there, or send it elsewhere\n",
    )


def test_a_closed_standard_output_is_no_error(recorded):
    recorded()
    command = f"{shlex.quote(sys.executable)} -c 'from orchestrator.cli import main; main()' status >&-"
    done = subprocess.run(command, shell=True, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_report_tells_the_files_of_an_earlier_one(recorded):
    recorded()
    assert "not of this report" not in orchestrate("report", "--format", "json").stdout
    assert (
        orchestrate("report", "--format", "csv").stdout
        == """wrote 2 files to report/
  report/overview.csv
  report/grid-first.csv
not of this report, but of earlier ones into the same folder (--out names another):
  report/grid-first.json
  report/overview.json
"""
    )


# What a change of the file leads to


def would_run(path: str) -> dict[str, str]:
    """Name and reason of every trial that the next run would train."""
    entries = json.loads(orchestrate("plan", path, "--json").stdout)["trials"]
    return {entry["name"]: entry["reason"] for entry in entries if entry["status"] not in ("done", "failed")}


def test_a_plan_follows_the_file(recorded, here: Path):
    recorded()
    assert would_run("first.yaml") == {}
    reordered = {
        "resources": {"cpu": 1, "gpu": 0},
        "grid": {"seed": [1, 0], "methods": ["pskd", {}], "network": ["resnet18"]},
        "fixed": {"epochs": 2, "dataset": "digits", "learning_rate": 0.1},
        "name": "first",
    }
    write_grid(here / "first.yaml", reordered)
    assert would_run("first.yaml") == {}
    write_grid(here / "first.yaml", {**GRID, "grid": {**GRID["grid"], "network": ["resnet18", "resnet50"]}})
    added = [f"resnet50/{method}/seed{seed}" for method in ("baseline", "pskd") for seed in (0, 1)]
    assert would_run("first.yaml") == dict.fromkeys(added, "never ran")
    write_grid(here / "first.yaml", {**GRID, "grid": {**GRID["grid"], "methods": [{}, {"pskd": {"alpha": 0.7}}]}})
    assert list(would_run("first.yaml")) == [f"resnet18/pskd[alpha=0.7]/seed{seed}" for seed in (0, 1)]
    write_grid(here / "second.yaml", {**GRID, "name": "second", "grid": {"methods": ["pskd", "byot"], "seed": [1, 2]}})
    assert list(would_run("second.yaml")) == ["resnet18/pskd/seed2", "resnet18/byot/seed1", "resnet18/byot/seed2"]
    forecast = json.loads(orchestrate("plan", "second.yaml", "--json").stdout)["forecast"]
    assert forecast["left"]["device_seconds"] > 0 and forecast["networks"][0]["network"] == "resnet18"


def test_trials_that_a_file_no_longer_lists_are_told(recorded, here: Path):
    recorded()
    assert orchestrate("plan", "first.yaml").stderr == ""
    write_grid(here / "first.yaml", {**GRID, "grid": {**GRID["grid"], "seed": [1, 2]}})
    note = (
        "note: not in first.yaml any more: 2 trials of grid first with results (resnet18/baseline/seed0, "
        "resnet18/pskd/seed0). They leave the tables, and are there again when the file has every value of before\n"
    )
    assert orchestrate("plan", "first.yaml").stderr == note
    with patch("orchestrator.scheduler.trials.run_trials"):
        assert orchestrate("run", "first.yaml", "--data-root", here).stderr == note
        # The database has what the file lists now.
        assert orchestrate("run", "first.yaml", "--data-root", here).stderr == ""


def test_an_interrupted_trial_without_its_checkpoint_is_told(here: Path):
    key = load_grid(here / "first.yaml").trials[0].key
    with patch("orchestrator.scheduler.trials.run_trials"):
        assert orchestrate("run", "first.yaml").stderr == ""
        with open_database("results.db") as database, driver_lock(database, grid="first"):
            # That run has ended, and with it its claim.
            database.release_stale()
            attempt = start(database, key)
            database.record_epoch(attempt, result(0), "exclusive")
            database.finish_attempt(attempt, "interrupted", trial_state="pending")
        assert orchestrate("run", "first.yaml", "--checkpoints", "elsewhere").stderr == (
            "warning: no checkpoint in elsewhere of 1 interrupted trial: training starts again from the first epoch. "
            "If the run before had another --checkpoints, stop this one and give it again\n"
        )
        for name in (f"{key}.pt", f"{key}.pt.previous"):
            (here / "results-checkpoints").mkdir(exist_ok=True)
            (here / "results-checkpoints" / name).touch()
            assert orchestrate("run", "first.yaml").stderr == ""
            (here / "results-checkpoints" / name).unlink()
        assert "results-checkpoints of 1 interrupted trial" in orchestrate("run", "first.yaml").stderr


def test_a_network_file_system_is_warned_of(recorded, monkeypatch: pytest.MonkeyPatch):
    recorded()
    monkeypatch.setattr(sqlite, "network_filesystem", lambda path: "nfs4")
    completed = orchestrate("run", "first.yaml")
    assert completed.exit_code == 0
    assert completed.stderr.startswith("warning: results.db is on a network file system (nfs4)")


def test_every_shipped_grid_can_be_planned():
    for path in SHIPPED:
        outcome = orchestrate("plan", path)
        assert outcome.exit_code == 0 and "trials to run" in outcome.output


@pytest.mark.parametrize(
    ("folder", "why"),
    [("first.yaml", "is no folder"), ("first.yaml/c", "is no folder"), ("x" * 300, "File name too long")],
)
def test_a_folder_that_cannot_hold_checkpoints_is_refused_before_anything_starts(folder: str, why: str, here: Path):
    message = refused("run", "first.yaml", "--checkpoints", folder)
    assert message.startswith(f"error: {here / folder} cannot be written: ") and why in message
    with open_database("results.db", readonly=True) as database:
        assert {row.state for row in database.progress()} == {"pending"}
        assert not any(database.attempts(row.key) for row in database.progress())


def test_a_read_only_folder_of_checkpoints_is_refused(public_folder: Path, monkeypatch: pytest.MonkeyPatch, here: Path):
    monkeypatch.chdir(public_folder)
    write_grid(public_folder / "first.yaml", GRID)
    (public_folder / "c").mkdir(mode=0o555)
    (public_folder / "db").mkdir()
    (public_folder / "db").chmod(0o777)
    refused("run", "first.yaml", "--checkpoints", "first.yaml")
    message = unprivileged(lambda: refused("run", "first.yaml", "--db", "db/results.db", "--checkpoints", "c/c"))
    assert message == (
        f"error: {public_folder}/c/c cannot be written: {public_folder}/c is read-only for this user; "
        "choose another with --checkpoints\n"
    )
    # Logs have no option of their own: every trial would fail to write one.
    (public_folder / "db/results-logs").mkdir(mode=0o555)
    message = unprivileged(lambda: refused("run", "first.yaml", "--db", "db/results.db"))
    logs = public_folder / "db/results-logs"
    assert message == (
        f"error: {logs} cannot be written: {logs} is read-only for this user; logs lie beside the database file (name "
        "one in another folder with --db), and with a server in the folder of the command\n"
    )


# Settings


def test_plan_and_run_take_settings_and_the_database_keeps_them(here: Path):
    shown = json.loads(
        orchestrate("plan", "first.yaml", "--json", "--set", "seed=[4, 5, 6]", "--set", "epochs=1").stdout
    )
    assert [trial["config"].get("seed") for trial in shown["trials"]] == [4, 5, 6] * 2
    assert {trial["config"]["epochs"] for trial in shown["trials"]} == {1}
    assert "--set sead: unknown field 'sead'; did you mean 'seed'?" in refused("plan", "first.yaml", "--set", "sead=1")
    for command in ("run", "time"):
        assert "--set x: is not FIELD=VALUE" in refused(command, "first.yaml", "--set", "x")
    with patch("orchestrator.scheduler.trials.run_trials"), patch("orchestrator.run.make_ready"):
        orchestrate("run", "first.yaml", "--set", "seed=9", "--set", "name=nine")
    with sqlite3.connect("results.db") as rows:
        ((name, text),) = rows.execute("SELECT name, text FROM grids").fetchall()
    rows.close()
    assert name == "nine"
    (here / "stored.yaml").write_text(text)
    with open_database("results.db", readonly=True) as database:
        assert [key for key, _ in database.grid_keys("nine")] == [t.key for t in load_grid("stored.yaml").trials]


# The database before the command


def test_the_database_may_be_named_before_the_command(here: Path, recorded, monkeypatch: pytest.MonkeyPatch):
    recorded(db="one.db")
    write_grid(here / "second.yaml", GRID | {"name": "second"})
    recorded("second.yaml", db="two.db")

    def named(*arguments: str) -> list[str]:
        return [grid["name"] for grid in json.loads(orchestrate(*arguments).stdout)]

    assert named("--db", "one.db", "status", "--json") == ["first"]
    # The one behind the command counts, then the one before it, then the environment's.
    assert named("--db", "one.db", "status", "--json", "--db", "two.db") == ["second"]
    monkeypatch.setenv("ORCHESTRATE_DB", "two.db")
    assert named("status", "--json") == ["second"] and named("--db", "one.db", "status", "--json") == ["first"]
    assert "one.db is whole" in orchestrate("--db", "one.db", "doctor").output
    for name in READERS | DRIVERS:
        assert (
            "missing/odd.db" in orchestrate("--db", "missing/odd.db", name, *(READERS | DRIVERS)[name]).output
            or name == "plan"
        )


def test_a_second_run_on_a_file_is_told_that_none_waits(here: Path):
    with open_database("results.db", create=True) as database, driver_lock(database, grid="other"):
        message = refused("run", "first.yaml", code=3)
    assert "An SQLite file takes one run at a time, and none waits for another; PostgreSQL takes several" in message
    text = " ".join(orchestrate("run", "--help").output.split())
    assert "An SQLite file takes one run at a time: a second one ends at once with exit code 3" in text
