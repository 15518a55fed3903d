"""The pages on where to run it: every command of ours that they show exists, and every link leads somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from orchestrator.cli import app

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "docs" / f"{name}.md" for name in ("workstation", "lab-server", "slurm", "kubernetes", "cloud", "docker")
]
# What ends a command in a shell.
ENDS = re.compile(r"[;&|]+|\d?>+.*|\)")


def command_lines(page: Path) -> list[list[str]]:
    """The arguments of every `orchestrate` in the page's blocks of code."""
    lines = []
    for block in re.findall(r"^```\w*\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            starts = [i for i, word in enumerate(words) if re.fullmatch(r"(ExecStart=)?(\S*/)?orchestrate", word)]
            for start in starts:
                arguments = words[start + 1 :]
                end = next((i for i, word in enumerate(arguments) if ENDS.fullmatch(word)), len(arguments))
                # Folders and secrets bear the name as well: `git clone REPOSITORY orchestrate`.
                if arguments[:end] and not arguments[0].startswith("-"):
                    lines.append(arguments[:end])
    return lines


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_starts_with_commands_that_exist(page: Path):
    lines = page.read_text().splitlines()
    assert lines[0].startswith("# ") and any(line == "```sh" for line in lines[1:5])
    commands = typer.main.get_command(app).commands
    on_page = command_lines(page)
    assert on_page
    for name, *arguments in on_page:
        commands[name].make_context(name, list(arguments))
        for argument in arguments:
            if argument.startswith("grids/"):
                assert (ROOT / argument).is_file(), argument


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path):
    links = re.findall(r"\]\(([^)#]+)", page.read_text())
    local = [link for link in links if "://" not in link]
    assert all((page.parent / link).exists() for link in local), local
    assert f"docs/{page.name}" in (ROOT / "README.md").read_text()
