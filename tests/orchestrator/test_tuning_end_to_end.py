"""A tuned grid as a person runs it, killed in the middle of its search and gone on, to a table of tuned rows."""

from __future__ import annotations

import os
import signal

import pytest

from tests.orchestrator.runs import Workplace, wait_for

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

ROWS = ("resnet18/baseline", "resnet18/pskd")
SPACES = {"*": {"learning_rate": {"log": [0.01, 0.3]}}, "pskd": {"alpha": {"uniform": [0.3, 0.95]}}}


def test_a_search_that_is_killed_goes_on_to_the_table_of_tuned_rows(workplace: Workplace) -> None:
    grid = workplace.grid(
        "tuned",
        {"methods": ["baseline", "pskd"], "seed": [0, 1]},
        epochs=2,
        fixed={"validation": 200},
        tune={"draws": 3, "epochs": 1, "spaces": SPACES},
    )
    code, planned = workplace.run("plan", grid)
    assert code == 0 and "10 trials: 10 new; 10 trials to run" in planned
    assert "tuning: 3 draws of 2 rows of 1 epoch by random search, 6 trials" in planned
    run = workplace.start("run", grid, "--no-dashboard")
    wait_for(lambda: workplace.states().get(f"{ROWS[0]}/draw1") == "done" or run.over())
    os.killpg(run.pid, signal.SIGKILL)
    run.code()
    assert workplace.states()[f"{ROWS[0]}/draw1"] == "done"
    keys = dict(workplace.ask("SELECT g.name, t.key FROM grid_trials g JOIN trials t ON t.id = g.trial_id"))

    code, text = workplace.run("run", grid, "--no-dashboard")
    assert code == 0, text
    assert workplace.doubtful() == []
    after = dict(workplace.ask("SELECT g.name, t.key FROM grid_trials g JOIN trials t ON t.id = g.trial_id"))
    assert after.items() >= keys.items()
    winners = {name.partition("/tuned")[0] for name in after if "/tuned/" in name}
    assert len(after) == 10 + 2 * len(winners)
    for row in ROWS:
        assert f"of {row} wins with top1" in text or f"no draw of {row} is better" in text
        assert (f"of {row} wins with top1" in text) == (row in winners)
    code, text = workplace.run("status")
    assert "search: 6 of 6 draws over, 2 of 2 rows decided" in text

    code, text = workplace.run("report", "--out", "out")
    assert code == 0, text
    table = (workplace.folder / "out/grid-tuned.md").read_text()
    assert table.count("| default |") == table.count("| tuned") == 2
    assert "Tuned: 3 draws per row, draw 0 the row as it is, by random search from seed 100 of 1 epoch" in table
    assert (workplace.folder / "out/search-tuned-draws.svg").exists()
    code, text = workplace.run("report", "--out", "out", "--selection", "best_test")
    assert code == 2 and "best_test chooses epochs by test images" in text and "Traceback" not in text
    # Nothing is left to do, and the grid stays as it is.
    code, text = workplace.run("run", grid, "--no-dashboard")
    assert code == 0 and "nothing to run" in text
