"""Folders and files of our packages' names, and of others', on PYTHONPATH and in the present folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# As the installed script does, with our packages asked last: where an editable installation has them.
SCRIPT = f"import sys; sys.path.append({str(ROOT)!r}); from orchestrate_ablations import main; main()"


def orchestrate(folder: Path, *arguments: str, path: str = ".") -> subprocess.CompletedProcess[str]:
    program = folder.parent / "orchestrate-script"
    program.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, str(program), *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "work"
    place.mkdir()
    return place


@pytest.mark.parametrize("kind", ["empty folder", "package", "file"])
def test_our_packages_are_found_first(kind: str, folder: Path) -> None:
    for name in ("trainer", "orchestrator", "reports"):
        if kind == "file":
            (folder / f"{name}.py").write_text("raise SystemExit('the wrong one')\n")
        else:
            (folder / name).mkdir()
            if kind == "package":
                (folder / name / "__init__.py").write_text("raise SystemExit('the wrong one')\n")
    # An empty entry is the present folder.
    for path in (".", ":/opt/x"):
        done = orchestrate(folder, "plan", "nothing.yaml", path=path)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error: nothing.yaml: ") and done.stderr.count("\n") == 1
    done = orchestrate(folder, "report")
    assert done.returncode == 2 and done.stderr.startswith("error: results.db "), done.stderr


@pytest.mark.parametrize("name", ["typer", "rich", "sqlalchemy"])
@pytest.mark.parametrize("kind", ["package", "file"])
def test_what_is_in_the_way_of_another_package_is_named(name: str, kind: str, folder: Path) -> None:
    path = folder / (f"{name}.py" if kind == "file" else name)
    if kind == "file":
        path.touch()
    else:
        path.mkdir()
        (path / "__init__.py").touch()
    done = orchestrate(folder, "status")
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith(f"error: {path} is in the way of the package {name} (")


def test_an_error_of_ours_is_not_put_on_others(folder: Path) -> None:
    (folder / "harmless.py").touch()
    program = "import orchestrate_ablations as o, sys; print(list(o.in_the_way()))"
    environment = {**os.environ, "PYTHONPATH": f".:{ROOT}"}
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
