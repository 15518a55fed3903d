"""`orchestrate triage`: its words for failures, and its commands, which continue a grid from any folder."""

from __future__ import annotations

import hashlib
import shlex
import socket
from pathlib import Path

import pytest

from orchestrator.console import print_triage, triage_of
from orchestrator.console.triage import EXCERPT_LINES, rerun
from orchestrator.database import open_database
from orchestrator.failures import Failure
from orchestrator.grid import load_grid, parse_settings
from orchestrator.grid_records import save_grid
from orchestrator.scheduler import Observer, run_options
from tests.orchestrator.databases.samples import config, start


def test_an_excerpt_is_the_end_of_the_log_or_of_the_traceback(tmp_path):
    """Logs are read where a page's are: nothing that a database merely names as one, and none of another host."""
    here = socket.gethostname()
    keys = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("log", "gone", "elsewhere", "foreign")}
    logs = {name: tmp_path / f"{key[:8]}-1.log" for name, key in keys.items()} | {"foreign": tmp_path / "secret.log"}
    with open_database(str(tmp_path / "results.db"), create=True) as database:
        trials = [(key, config("resnet18", "pskd", seed), f"t/{name}") for seed, (name, key) in enumerate(keys.items())]
        database.save_grid("g", "g.yaml", "", {}, trials)
        for name, key in keys.items():
            host = "elsewhere" if name == "elsewhere" else here
            attempt = start(database, key, host=host, log=str(logs[name]))
            failure = Failure("code", f"ValueError: {name}\nline\nlast", name)
            database.finish_attempt(attempt, "failed", failure=failure, trial_state="failed")
            if name != "gone":
                logs[name].write_text("".join(f"line {number} [x]\n" for number in range(100)))
        excerpts = {failure["fingerprint"]: failure["excerpt"] for failure in triage_of(database, None)}
    assert excerpts == {
        "log": [f"line {number} [x]" for number in range(100 - EXCERPT_LINES, 100)],
        **{name: [f"ValueError: {name}", "line", "last"] for name in ("gone", "elsewhere", "foreign")},
    }


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to stand in, of which `grids` is a part, in an environment that says nothing of places."""
    (tmp_path / "here" / "grids").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    for name in ("ORCHESTRATE_DATA", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "here"


def test_a_grid_is_named_so_that_this_folder_finds_it(folder: Path):
    assert rerun(str(folder / "grids/k.yaml"), {}, []) == "orchestrate run grids/k.yaml"
    assert (
        rerun(str(folder.parent / "my k.yaml"), {}, [])
        == f"orchestrate run {shlex.quote(f'{folder.parent}/my k.yaml')}"
    )
    assert rerun("as/given.yaml", {}, ["--db", "a b.db"]) == "orchestrate run as/given.yaml --db 'a b.db'"


def test_places_that_are_elsewhere_are_told(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def told(**places: str | None) -> str:
        named = {f"--{name.replace('_', '-')}": place for name, place in places.items()}
        return rerun("k.yaml", {"places": named}, []).removeprefix("orchestrate run k.yaml")

    assert told(data_root=str(folder / "data"), address=None) == ""
    assert told(data_root=str(folder / "grids/data"), address=None) == " --data-root grids/data"
    assert told(data_root="s3://bucket/data", address="auto") == " --data-root s3://bucket/data --address auto"
    assert told(checkpoints="/scratch/kck") == " --checkpoints /scratch/kck"
    monkeypatch.setenv("ORCHESTRATE_DATA", "/data")
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert told(data_root="/data", address="auto") == ""
    assert told(data_root=str(folder / "data")) == " --data-root data"


def test_the_retry_command_is_that_of_the_newest_failure(folder: Path, capsys: pytest.CaptureFixture[str]):
    with open_database("k.db", create=True) as database:
        trials = [(key, config("resnet18", "pskd", seed), f"t/{key}") for seed, key in enumerate("abc")]
        database.save_grid("g", str(folder / "grids/k.yaml"), "", {}, trials)
        failure = Failure("code", "no", "f")
        for key, checkpoints in (("b", "/old"), ("a", "/new")):
            environment = {"places": {"--checkpoints": checkpoints}, "command": "orchestrate run k.yaml"}
            attempt = start(database, key, environment=environment, log=str(folder / "grids/../logs/1.log"))
            database.finish_attempt(attempt, "failed", failure=failure, trial_state="failed")
        (cause,) = triage_of(database, None, ["--db", "k.db"])
        print_triage([cause])
        again = "orchestrate run grids/k.yaml --retry-failed --db k.db --checkpoints /new"
        assert (cause["retry"], cause["run_as"], cause["log"]) == (again, None, str(folder / "logs/1.log"))
        lines = capsys.readouterr().out.splitlines()
        assert f"  retry:   {again}" in lines and not any("run as" in line for line in lines)

        # Before places were recorded.
        attempt = start(database, "c", environment={"command": "orchestrate run k.yaml --checkpoints ../kck"})
        database.finish_attempt(attempt, "failed", failure=failure, trial_state="failed")
        print_triage(triage_of(database, None))
    lines = capsys.readouterr().out.splitlines()
    assert "  retry:   orchestrate run grids/k.yaml --retry-failed" in lines
    assert (
        "  run as:  orchestrate run k.yaml --checkpoints ../kck (add its --checkpoints and --data-root, if any)"
        in lines
    )


def test_what_was_run_in_one_folder_is_found_from_another(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder / "grids")
    Path("k.yaml").write_text("name: k\nfixed: {dataset: digits}\n")
    grid = load_grid(Path("k.yaml"))
    with open_database("../k.db", create=True) as database:
        save_grid(database, grid, Observer())
        options = run_options(grid.name, "../k.db", "../data", None, "../kck")
        attempt = start(database, grid.trials[0].key, environment=options.environment)
        database.finish_attempt(attempt, "failed", failure=Failure("code", "no", "f"), trial_state="failed")
    monkeypatch.chdir(folder)
    with open_database("k.db", readonly=True) as database:
        (failure,) = triage_of(database, None, ["--db", "k.db"])
    assert failure["retry"] == "orchestrate run grids/k.yaml --retry-failed --db k.db --checkpoints kck"
    monkeypatch.chdir(folder / "grids")
    with open_database("../k.db", readonly=True) as database:
        (failure,) = triage_of(database, None, ["--db", "../k.db"])
    data, checkpoints = (shlex.quote(str(folder / name)) for name in ("data", "kck"))
    assert failure["retry"] == (
        f"orchestrate run k.yaml --retry-failed --db ../k.db --data-root {data} --checkpoints {checkpoints}"
    )
    # Beside a file of the database they are found anyway; beside a server's, by the folder.
    assert "--checkpoints" not in run_options("g", "k.db", "data", None).environment["places"]
    on_server = run_options("g", "postgresql://server/x", "data", None).environment["places"]
    assert on_server["--checkpoints"] == str(folder / "grids/results-checkpoints")


def test_settings_of_a_run_are_in_the_command_that_runs_it_again(folder: Path):
    Path("k.yaml").write_text("name: k\nfixed: {dataset: digits}\n")
    grid = load_grid("k.yaml", {"seed": [1, 2], "resources.gpu": 0, "name": "other"})
    environment = run_options(grid.name, "k.db", given=grid.settings).environment
    command = rerun("k.yaml", environment, [])
    assert shlex.split(command) == [
        *("orchestrate", "run", "k.yaml", "--set", "seed=[1, 2]", "--set", "resources.gpu=0"),
        *("--set", 'name="other"'),
    ]
    settings = parse_settings(shlex.split(command)[4::2])
    assert [t.key for t in load_grid("k.yaml", settings).trials] == [t.key for t in grid.trials]
