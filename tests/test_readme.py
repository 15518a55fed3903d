"""The README's commands and code: every tested block parses, and the everyday ones are run, through real Ray."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from orchestrator.cli import app
from tests.orchestrator.runs import ONE_PROCESSOR

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"<!-- tested -->\n```sh\n(.*?)```", README, re.DOTALL)
LINES = [shlex.split(line, comments=True) for block in BLOCKS for line in block.splitlines() if line.strip()]


def commands(program):
    written = [line[len(program) :] for line in LINES if line[: len(program)] == program]
    assert written, program
    return written


def run(arguments, folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_every_tested_line_is_one_of_ours():
    assert len(LINES) >= 10
    assert {line[0] for line in LINES} == {"orchestrate", "python"}


@pytest.mark.parametrize("arguments", commands(["orchestrate"]), ids=" ".join)
def test_every_command_and_option_exists(arguments):
    group = typer.main.get_command(app)
    command = group.commands[arguments[0]]
    command.make_context(arguments[0], list(arguments[1:]))
    for argument in arguments:
        if argument.endswith(".yaml"):
            assert (ROOT / argument).is_file()


def test_make_knows_the_two_commands():
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"demo", "test"} <= set(targets)


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_run_watch_and_report_as_the_readme_says(tmp_path):
    (tmp_path / "grids").mkdir()
    grid = (ROOT / "grids/quickstart.yaml").read_text()
    # The same twelve trials on fewer images: what is tested is the way through the program.
    small = re.sub(r"  epochs: \d+", "  epochs: 1\n  subset: 3", grid)
    assert small != grid
    (tmp_path / "grids/quickstart.yaml").write_text(small)
    entry = [sys.executable, "-c", f"{ONE_PROCESSOR}from orchestrator.cli import main; main()"]
    first = BLOCKS[0].splitlines()
    outputs = {}
    for line in first:
        arguments = shlex.split(line, comments=True)[1:]
        outputs[arguments[0]] = run([*entry, *arguments], tmp_path)
    assert "12 new" in outputs["plan"]
    assert "12 of 12 done" in outputs["run"]
    assert "12 of 12" in outputs["status"]
    report = tmp_path / "report"
    for name in ("table1.md", "table2.tex", "table3.csv", "table4.json", "figure2.pdf", "figure2.svg", "report.html"):
        assert (report / name).stat().st_size > 0
    for table, rows in (("table1", 8), ("table2", 2), ("table3", 3), ("table4", 3)):
        text = (report / f"{table}.md").read_text()
        body = [line for line in text.splitlines() if line.startswith("|")][2:]
        assert len(body) == rows
        # An en dash stands for a missing cell.
        assert "\N{EN DASH}" not in "".join(body)
    again = run([*entry, "run", "grids/quickstart.yaml"], tmp_path)
    assert "nothing to run" in again


@pytest.mark.timeout(300)
def test_the_trainer_alone_as_the_readme_says(tmp_path):
    training, evaluating = commands(["python", "-m", "trainer"])
    printed = run([sys.executable, "-m", "trainer", *training, "--subset", "3"], tmp_path)
    assert re.findall(r"^([12])/2 ", printed, re.MULTILINE) == ["1", "2"]
    assert "ensemble" in run([sys.executable, "-m", "trainer", *evaluating], tmp_path)
