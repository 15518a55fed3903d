"""docs/python.md: its examples run as they stand, one after the other, print nothing, and an observer hears all."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import orchestrator
from orchestrator.run import Outcome
from orchestrator.scheduler import Observer

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
    """As in a notebook that uses Ray for something else too: its core has read the environment.

    A run without an observer gets one that only listens, so that one training shows what there is to hear.
    """
    import ray

    ray.is_initialized()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grids").mkdir()
    (tmp_path / "grids/quickstart.yaml").write_text(GRID)
    heard: list[tuple[str, ...]] = []
    listener = Observer(
        planned=lambda plan: heard.append(("planned", plan.summary())),
        started=lambda name, host, device: heard.append(("started", name, device.split(" ")[0])),
        epoch=lambda name, result, quality: heard.append(("epoch", name, str(result.epoch))),
        finished=lambda name: heard.append(("finished", name)),
    )
    run_grid = orchestrator.run_grid
    monkeypatch.setattr(
        orchestrator, "run_grid", lambda *given, **more: run_grid(*given, **{"observer": listener} | more)
    )
    names: dict[str, Any] = {}
    for example in EXAMPLES:
        exec(compile(example, "docs/python.md", "exec"), names)
        if "outcome" in names:
            assert names["outcome"] == Outcome(failed=0, elsewhere=0, left=0)
    assert heard[0] == ("planned", "2 trials: 2 new; 2 trials to run")
    for name in ("resnet18/baseline/seed0", "resnet18/pskd/seed0"):
        of_trial = [event for event in heard if event[1] == name]
        assert of_trial == [("started", name, "cpu"), ("epoch", name, "0"), ("finished", name)]
    with orchestrator.open_database("results.db", readonly=True) as database:
        assert [row.state for row in database.progress("quickstart")] == ["done", "done"]
    assert names["named"]["methods"].tolist() == ["baseline", "pskd"] and names["named"]["device"].notna().all()
    assert set(names["best"].index) == {("baseline", 0), ("pskd", 0)} and names["best"].notna().all()
    assert len(names["frame"].dropna(subset="top1")) == 2
    assert names["latex"].count("\\begin{tabular}") == 1
    # With nobody who listens, and nothing left to do.
    assert run_grid(tmp_path / "grids/quickstart.yaml") == names["outcome"]
    # All is done when an observer of the page listens at last.
    assert capfd.readouterr() == ("", "")


def test_everything_is_there_but_nothing_is_loaded():
    assert all(callable(getattr(orchestrator, name)) for name in orchestrator.__all__)
    code = "import sys; before = set(sys.modules); import orchestrator; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    # Beside the standard library: what `trainer` defines to load names on first use, and nothing more of it.
    loaded = {name for name in done.stdout.split() if name.partition(".")[0] not in sys.stdlib_module_names}
    assert loaded == {"orchestrator", "trainer", "trainer.errors", "trainer.lazy"}
