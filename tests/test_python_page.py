"""docs/python.md: its examples run as they stand, one after the other."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import orchestrator

ROOT = Path(__file__).parents[1]
EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "docs/python.md").read_text(encoding="utf-8"), re.DOTALL)
# Seconds of work, where the quickstart is minutes.
GRID = """
name: quickstart
fixed: {dataset: synthetic, subset: 2, epochs: 1, width: 4}
grid: {methods: [{}, {pskd: }]}
resources: {gpu: 0, cpu: 1}
report: {tables: [1]}
"""


@pytest.mark.ray
def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grids").mkdir()
    (tmp_path / "grids/quickstart.yaml").write_text(GRID)
    names: dict[str, Any] = {}
    for example in EXAMPLES:
        exec(compile(example, "docs/python.md", "exec"), names)
        if "outcome" in names:
            assert names["outcome"].failed == 0
    assert names["named"]["methods"].tolist() == ["baseline", "pskd"] and names["named"]["device"].notna().all()
    assert set(names["best"].index) == {("baseline", 0), ("pskd", 0)} and names["best"].notna().all()
    assert len(names["frame"].dropna(subset="top1")) == 2
    assert names["latex"].count("\\begin{tabular}") == 1
    # All is done when an observer listens at last.
    assert capfd.readouterr() == ("", "")


def test_everything_is_there_but_nothing_is_loaded():
    assert all(callable(getattr(orchestrator, name)) for name in orchestrator.__all__)
    code = "import sys; before = set(sys.modules); import orchestrator; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    # Of the standard library besides: what is loaded on the way.
    packages = {name.partition(".")[0] for name in done.stdout.split()} - set(sys.stdlib_module_names)
    assert packages == {"orchestrator"}
    assert "orchestrator.run" not in done.stdout
