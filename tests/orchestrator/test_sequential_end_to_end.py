"""A grid whose seeds come by a rule, as a person runs it: killed before its first look, and gone on to its table."""

from __future__ import annotations

import os
import signal

import pytest

from tests.orchestrator.runs import Workplace, wait_for

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]


def test_seeds_by_rule_that_are_killed_go_on_to_their_looks(workplace: Workplace) -> None:
    workplace.keep_to_one_processor()
    rule = {"start": 3, "step": 1, "most": 4, "against": "baseline"}
    # Hardly any rate, so that both rows stay at chance and no look separates them.
    grid = workplace.grid(
        "ruled", {"methods": ["baseline", "pskd"]}, epochs=1, fixed={"learning_rate": 1.0e-8}, seeds=rule
    )
    code, planned = workplace.run("plan", grid)
    assert code == 0 and "6 trials: 6 new; 6 trials to run" in planned
    assert "seeds: looks at 3, 4 seeds, 1 pair in top1: 1 to decide" in planned
    run = workplace.start("run", grid, "--no-dashboard")
    wait_for(lambda: "done" in workplace.states().values() or run.over())
    os.killpg(run.pid, signal.SIGKILL)
    run.code()
    before = {key for (key,) in workplace.ask("SELECT key FROM trials WHERE state = 'done'")}
    assert before and workplace.ask("SELECT count(*) FROM looks") == [(0,)]

    code, text = workplace.run("run", grid, "--no-dashboard")
    assert code == 0, text
    assert workplace.doubtful() == []
    assert set(workplace.states().values()) == {"done"} and len(workplace.states()) == 8
    again = workplace.ask(
        "SELECT key FROM trials t JOIN attempts a ON a.trial_id = t.id WHERE a.outcome = 'done' AND a.purpose = 'train'"
    )
    assert len(again) == 8 and before <= {key for (key,) in again}
    looks = workplace.ask("SELECT seeds, separated FROM looks ORDER BY seeds")
    assert [seeds for seeds, _ in looks] == [3, 4] and not any(separated for _, separated in looks)

    code, text = workplace.run("report", "--out", "out")
    assert code == 0, text
    assert "| resnet18/pskd | 2 | 4 | +0.00 % | 1 |" in (workplace.folder / "out/looks-ruled.md").read_text()
    code, text = workplace.run("run", grid, "--no-dashboard")
    assert code == 0 and "nothing to run" in text
    assert workplace.ask("SELECT seeds, separated FROM looks ORDER BY seeds") == looks
