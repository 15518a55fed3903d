"""A trial that two grids have, through a real Ray."""

from __future__ import annotations

import json

import pytest

from tests.orchestrator.runs import Workplace, differences

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]


def test_a_trial_of_two_grids_is_trained_once(workplace: Workplace) -> None:
    shared = {"pskd": None}
    first = workplace.grid("first", {"methods": [shared], "seed": [1]}, epochs=2)
    code, text = workplace.run("run", first, "--no-dashboard")
    assert code == 0, text
    before = workplace.results()
    second = workplace.grid("second", {"methods": [shared, {"label_smoothing": None}], "seed": [1]}, epochs=2)
    code, text = workplace.run("run", second, "--no-dashboard")
    assert code == 0, text
    assert text.startswith("2 trials: 1 new, 1 done; 1 trial to run")
    assert workplace.ask("SELECT count(*) FROM attempts") == [(2,)]
    after = workplace.results()
    assert len(after) == 2
    assert differences({key: after[key] for key in before}, before) == []
    statuses = json.loads(workplace.run("status", "--json")[1])
    assert {grid["name"]: grid["counts"]["done"] for grid in statuses} == {"first": 1, "second": 2}
