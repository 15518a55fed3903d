"""The report says at which look each pair stopped, how many seeds that saved, and why rows differ in their seeds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator import load_grid, open_database
from orchestrator.grid import Trial
from orchestrator.stages import decide
from reports import write_report
from tests.orchestrator.seed_results import NOISE, finish, store

GRID = {
    "name": "looks",
    "fixed": {"dataset": "synthetic", "subset": 2, "epochs": 1, "width": 4},
    "grid": {"methods": ["baseline", "pskd", "byot"]},
    "seeds": {"start": 3, "step": 2, "most": 7, "against": "baseline"},
}
MEANS, SHIFT = {"": 25.0, "pskd": 23.0, "byot": 25.1}, {"": 0, "pskd": 3, "byot": 7}


def error(trial: Trial) -> float:
    row = "+".join(trial.config.methods)
    return MEANS[row] + NOISE[(trial.config.seed + SHIFT[row]) % len(NOISE)]


@pytest.mark.parametrize("stages", [0, 1, 3])
def test_the_looks_of_a_grid_are_a_table_of_the_report(stages: int, tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text(json.dumps(GRID))
    grid = load_grid(tmp_path / "g.yaml")
    with open_database(tmp_path / "r.db", create=True) as database:
        store(database, grid)
        for _ in range(stages):
            decision = decide(grid, database)
            store(database, decision.grid)
            states = database.states([trial.key for trial in decision.grid.trials])
            finish(database, [each for each in decision.grid.trials if states[each.key].state == "pending"], error)
            decision = decide(grid, database)
            store(database, decision.grid)
            assert decision.record is not None
            decision.record(database)
        write_report(database, tmp_path / "out")
    written = {path.stem: path.read_text() for path in (tmp_path / "out").glob("*.md")}
    looks = written["looks-looks"]
    if stages == 0:
        assert "No look was made yet." in looks
    elif stages == 1:
        assert looks.count("goes on") == 2 and "saved" not in looks
    else:
        (pskd,) = [line for line in looks.splitlines() if "resnet18/pskd" in line]
        (byot,) = [line for line in looks.splitlines() if "resnet18/byot" in line]
        assert "| 2 | 5 | -" in pskd and "separated, 2 seeds saved" in pskd
        assert "| 3 | 7 |" in byot and "open after the last look" in byot
        assert "Stopping early saved 2 seeds of rows." in looks
        own = next(text for name, text in written.items() if name not in ("looks-looks", "report", "overview"))
        assert "see looks-looks" in own and "7/7" in own and "5/5" in own
    assert (tmp_path / "out" / "looks-looks.tex").exists()
