"""In which order tests run: shuffled by a seed that is printed, but as written in files with a real Ray."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TESTS = "".join(f"def test_{number}(): pass\n" for number in range(20))
WRITTEN = [f"test_{number}" for number in range(20)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files of twenty tests, of which `test_b` has a real Ray, below our own conftest.py."""
    shutil.copy(ROOT / "tests/conftest.py", tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = ray\n")
    for name in "abc":
        mark = "import pytest\npytestmark = pytest.mark.ray\n" if name == "b" else ""
        (tmp_path / f"test_{name}.py").write_text(mark + TESTS)
    return tmp_path


def orders(folder: Path, *options: str) -> tuple[dict[str, list[str]], str]:
    """Run the tests, and return the order in each file, the files in theirs, and what was printed."""
    command = [sys.executable, "-m", "pytest", "-v", "--no-header", "-p", "no:cacheprovider", *options]
    text = subprocess.run(command, cwd=folder, capture_output=True, text=True).stdout
    ran: dict[str, list[str]] = {}
    for file, test in re.findall(r"^(?:\[gw0\] .*PASSED )?(test_\w)\.py::(test_\d+)", text, re.MULTILINE):
        if test not in ran.setdefault(file, []):
            ran[file].append(test)
    return ran, text


def test_the_order_follows_a_seed_that_is_printed(folder: Path):
    first, text = orders(folder)
    assert all(sorted(tests, key=WRITTEN.index) == WRITTEN for tests in first.values()) and len(first) == 3
    assert first["test_a"] != WRITTEN and first["test_c"] != WRITTEN
    assert first["test_b"] == WRITTEN
    (seed,) = re.findall(r"^the order of this run: (--randomly-seed=\d+)$", text, re.MULTILINE)
    again, _ = orders(folder, seed)
    assert (again, list(again)) == (first, list(first))
    other, _ = orders(folder, "--randomly-seed=1")
    assert other != first


def test_the_file_with_ray_is_first_in_a_process_of_several(folder: Path):
    # By this seed alone it would be the last.
    ran, text = orders(folder, "-n1", "--dist=loadfile", "--no-loadscope-reorder", "--randomly-seed=4")
    assert next(iter(ran)) == "test_b" and ran["test_b"] == WRITTEN, text
    assert ran["test_a"] != WRITTEN and "--randomly-seed=4" in text
