"""docs/your-own.md: its files, in an empty folder, make a table with parts of one's own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/your-own.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"`(my_parts\.py|mine\.yaml)`:\n\n```(?:python|yaml)\n(.*?)```", PAGE, re.DOTALL))
NAMES = ["confidence_penalty", *re.findall(r'@\w+\("(\w+)"', FILES["my_parts.py"])]
TITLES = ["Confidence penalty", *re.findall(r'title="([^"]+)"', FILES["my_parts.py"])]
COMMANDS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)[0].splitlines()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def orchestrate(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = "from orchestrator.cli import main; main()"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "ORCHESTRATE"))}
    environment |= {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)


def test_the_parts_are_short():
    lines = [line for line in FILES["my_parts.py"].splitlines() if line.strip()]
    assert len(lines) <= 30
    assert [command.split()[:2] for command in COMMANDS] == [
        ["orchestrate", name] for name in ("plan", "run", "report", "export")
    ]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_page_goes_from_nothing_to_a_table(folder: Path):
    output = {}
    for command in COMMANDS:
        _, name, *arguments = command.split()
        done = orchestrate(folder, name, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "warning" not in done.stderr, done.stderr
        output[name] = done.stdout
    assert "6 trials: 6 new" in output["plan"]
    table = next(path.read_text() for path in (folder / "report").glob("*mine*.md"))
    assert "Confidence penalty" in table
    page = (folder / "report/report.html").read_text()
    assert [title for title in TITLES if title not in page] == []
    exported = "".join(path.read_text() for path in folder.rglob("*.csv"))
    assert [name for name in NAMES if name not in exported] == []

    # The same file, edited and under another name beside a second grid.
    second = folder / "second"
    second.mkdir()
    (second / "other_parts.py").write_text(FILES["my_parts.py"].replace("0.1", "0.2"))
    grid = FILES["mine.yaml"].replace("my_parts.py", "other_parts.py").replace("name: mine\n", "name: second\n", 1)
    (second / "second.yaml").write_text(grid)
    done = orchestrate(folder, "plan", "second/second.yaml")
    assert "'confidence_penalty' of version 1 is other code in this database" in done.stderr
    assert "my_parts.py:" in done.stderr and "other_parts.py:" in done.stderr
    # In one grid it is an error.
    (second / "both.yaml").write_text(grid.replace("[other_parts.py]", "[../my_parts.py, other_parts.py]"))
    done = orchestrate(folder, "plan", "second/both.yaml")
    assert done.returncode == 2 and "two methods are named 'confidence_penalty'" in done.stderr
    assert "Traceback" not in done.stderr


def test_both_places_are_named_where_two_files_clash(folder: Path):
    (folder / "again.py").write_text(FILES["my_parts.py"])
    (folder / "both.yaml").write_text(FILES["mine.yaml"].replace("[my_parts.py]", "[my_parts.py, again.py]"))
    done = orchestrate(folder, "plan", "both.yaml")
    assert done.returncode == 2
    assert re.search(r"both\.yaml:2: plugins: two methods .*my_parts\.py:\d+, one in .*again\.py:\d+", done.stderr)
