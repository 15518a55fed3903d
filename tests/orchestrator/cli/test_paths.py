"""Every path of the commands: `~` is the home folder, and a name is found in whichever Unicode form it was written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest
import typer
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.console.triage import rerun
from orchestrator.storage import StorageError, node_folder
from trainer.paths import user_path

COMMANDS = typer.main.get_command(app).commands
# The options that take words, not paths.
WORDS = {
    "--address",
    "--every",
    "--checkpoint-seconds",
    "--stall-seconds",
    "--device",
    "--pack",
    "--log-to",
    "--epochs",
    "--warm-up",
    "--timeout",
    "--port",
    "--grid",
    "--selection",
    "--format",
    "--set",
    "--order",
    "--new",
    "--metric",
    "--difference",
    "cell",
    "first",
    "second",
    "name",
    "sql",
}
ALL = [
    pytest.param(command, parameter, id=f"{name} {parameter.opts[0]}")
    for name, command in COMMANDS.items()
    for parameter in command.params
    if not getattr(parameter, "is_flag", False) and not {*parameter.opts} & {*WORDS, "--help"}
]
GRID = "name: home\nfixed: {dataset: digits, epochs: 1}\nresources: {gpu: 0, cpu: 1}\n"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with a grid file, and another folder to stand in."""
    for name in list(os.environ):
        if name.startswith(("ORCHESTRATE", "RAY_")):
            monkeypatch.delenv(name)
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    (home / "g.yaml").write_text(GRID)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    return home


def parsed(command: Any, parameter: Any, value: str) -> str:
    """Return what a command gets for a value of one of its parameters."""
    option = parameter.opts[0]
    needed = [value if each is parameter else "x" for each in command.params if not each.opts[0].startswith("-")]
    others = [each for each in command.params if each is not parameter and each.required]
    required = [each.opts[0] for each in others if each.opts[0].startswith("-")]
    given = [f"{option}={value}", *needed] if option.startswith("-") else needed
    given = [*(f"{name}=x" for name in required), *given]
    taken = command.make_context("it", given).params[parameter.name]
    # An option that may be repeated gives a list.
    return str(taken[0] if isinstance(taken, list | tuple) else taken)


@pytest.mark.parametrize(("command", "parameter"), ALL)
def test_every_option_that_is_no_word_is_a_path_and_knows_the_home_folder(command: Any, parameter: Any, home: Path):
    assert parsed(command, parameter, "~/x") == str(home / "x")
    with pytest.raises(Exception, match="no home folder is known of a user 'nobody-at-all'"):
        parsed(command, parameter, "~nobody-at-all/x")


@pytest.mark.parametrize(("command", "parameter"), [each for each in ALL if "URL" in (each.values[1].metavar or "")])
def test_a_url_stays_as_it_is(command: Any, parameter: Any):
    for url in ("s3://bucket/~/x", "postgresql://me@host/~x", "file:///~/x"):
        assert parsed(command, parameter, url) == url


@pytest.mark.parametrize("db", ["~/r.db", "sqlite:///~/r.db", "{home}/r.db", "sqlite:///{home}/r.db"])
@pytest.mark.parametrize("variable", [True, False])
def test_database_checkpoints_and_logs_lie_together(
    db: str, variable: bool, home: Path, monkeypatch: pytest.MonkeyPatch
):
    started: dict[str, Any] = {}

    def note(trials: Any, options: Any, observer: Any) -> None:
        started.update(options=options)
        raise KeyboardInterrupt

    monkeypatch.setattr("orchestrator.run.make_ready", note)
    db = db.format(home=home)
    if variable:
        monkeypatch.setenv("ORCHESTRATE_DB", db)
    done = CliRunner().invoke(app, ["run", "~/g.yaml", *([] if variable else [f"--db={db}"])])
    assert done.exit_code == 130, done.output
    assert (home / "r.db").is_file()
    assert Path(started["options"].checkpoints) == home / "r-checkpoints"
    assert Path(started["options"].logs) == home / "r-logs"


def test_no_folder_called_tilde_appears(home: Path):
    done = CliRunner().invoke(app, ["doctor", "--data-root=~/sets"])
    assert done.exit_code in (0, 1), done.output
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("name", ["ORCHESTRATE_CACHE"])
def test_a_node_keeps_its_copies_in_the_home_folder(name: str, home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(name, "~/cache")
    assert node_folder() == home / "cache"
    monkeypatch.setenv(name, "~nobody-at-all/cache")
    with pytest.raises(StorageError, match="no home folder"):
        node_folder()


def test_the_retry_command_names_no_data_root_that_the_environment_gives(home: Path, monkeypatch: pytest.MonkeyPatch):
    environment = {"places": {"--data-root": str(home / "sets")}}
    monkeypatch.setenv("ORCHESTRATE_DATA", "~/sets")
    assert "--data-root" not in rerun(str(home / "g.yaml"), environment, [])


@pytest.mark.parametrize("value", ["", None])
def test_an_empty_home_is_no_root_folder(value: str | None, monkeypatch: pytest.MonkeyPatch):
    if value is None:
        monkeypatch.delenv("HOME")
        # The system's list of users knows a home.
        assert user_path("~/x").is_absolute()
        return
    monkeypatch.setenv("HOME", value)
    done = CliRunner().invoke(app, ["status", "--db=~/r.db"])
    assert done.exit_code == 2
    assert "HOME is empty or not set" in done.output


@pytest.mark.parametrize(("stored", "typed"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFC", "NFC"), ("NFD", "NFD")])
def test_a_name_is_found_in_its_other_unicode_form(stored: str, typed: str, tmp_path: Path):
    folder = tmp_path / normalize(stored, "Café") / normalize(stored, "Ångström")
    folder.mkdir(parents=True)
    written = tmp_path / normalize(typed, "Café") / normalize(typed, "Ångström") / normalize(typed, "né.db")
    # What is not there yet keeps the form in which it was written.
    assert str(user_path(written)) == str(folder / normalize(typed, "né.db"))


def test_of_two_forms_that_are_both_there_the_written_one_counts(tmp_path: Path):
    for form in ("NFC", "NFD"):
        (tmp_path / normalize(form, "é")).mkdir()
    for form in ("NFC", "NFD"):
        assert str(user_path(tmp_path / normalize(form, "é"))) == str(tmp_path / normalize(form, "é"))
