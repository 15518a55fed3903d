"""Forecasts of what a plan's trials will cost, from what was measured."""

from __future__ import annotations

import pytest

from orchestrator.console.plan_view import cost_lines
from orchestrator.database import MeasuredRow
from orchestrator.planning import Plan, make_forecast, make_plan
from tests.orchestrator.grid_files import load
from tests.orchestrator.planning.states import trial_state

GIB = 2**30
GRID = load(
    {
        "fixed": {"epochs": 30, "dataset": "digits"},
        "grid": {"network": ["resnet18", "resnet50"], "methods": [{}, {"pskd": None}], "seed": [0, 1]},
    }
)


def row(trial, seconds: float, purpose: str = "train", **changes) -> MeasuredRow:
    config = trial.config.model_dump(mode="json")
    values = {"device": "cuda:0 (H200)", "peak_memory_bytes": 2 * GIB, "checkpoint_bytes": None}
    if purpose == "canary":
        values["checkpoint_bytes"] = GIB
    return MeasuredRow(
        key=trial.key, config=config, purpose=purpose, seconds_per_epoch=seconds, **{**values, **changes}
    )


def test_without_a_measurement_nothing_is_foretold():
    assert make_forecast(make_plan(GRID, {}), {}, [], 2) is None
    (line,) = cost_lines(None, make_plan(GRID, {}))
    assert line.startswith("no estimate of time, memory and disk: ")
    assert cost_lines(None, Plan([])) == []


def test_what_is_done_costs_nothing_and_what_has_begun_costs_the_rest():
    states = {trial.key: trial_state("done", 30) for trial in GRID.trials[:6]}
    states[GRID.trials[6].key] = trial_state("pending", 20)
    forecast = make_forecast(make_plan(GRID, states), states, [row(GRID.trials[6], 6.0)], 1)
    # Ten epochs of its own speed, thirty of the other seed's.
    assert forecast.left.device_seconds == pytest.approx(40 * 6.0)
    assert forecast.left.seconds == pytest.approx(40 * 6.0)
    assert forecast.left.low < forecast.left.seconds < forecast.left.high
    assert forecast.disk_bytes is None


def test_the_cost_of_a_grid_after_its_canaries():
    canaries = [row(trial, 10.0 * number, "canary") for number, trial in enumerate(GRID.trials[::2], start=1)]
    forecast = make_forecast(make_plan(GRID, {}), {}, canaries, 2)
    # Four cells of two seeds, 30 epochs each; the two seeds of a cell run side by side.
    assert forecast.left.device_seconds == pytest.approx(2 * 30 * (10 + 20 + 30 + 40))
    assert forecast.left.seconds == pytest.approx(30 * (10 + 20 + 30 + 40))
    # One checkpoint for each of eight trials, and a second one for the two that run.
    assert forecast.disk_bytes == 10 * GIB
    assert [(cost.network, cost.fastest, cost.slowest) for cost in forecast.networks] == [
        ("resnet18", 10.0, 20.0),
        ("resnet50", 30.0, 40.0),
    ]
    assert cost_lines(forecast, make_plan(GRID, {})) == [
        "resnet18: 10 to 20 s per epoch, peak memory 2 GiB (measured on 2 canary runs)",
        "resnet50: 30 to 40 s per epoch, peak memory 2 GiB (measured on 2 canary runs)",
        "about 50 min 00 s (30 min 18 s to 1 h 22 min), 2 at once on this machine; 1.67 device-hours, "
        "10 GiB of checkpoints",
    ]


def test_only_several_trials_come_one_after_the_other():
    states = {trial.key: trial_state("done", 30) for trial in GRID.trials[:6]}
    measured = [row(GRID.trials[6], 6.0)]
    assert cost_lines(make_forecast(make_plan(GRID, states), states, measured, 1), make_plan(GRID, states))[-1] == (
        "about 6 min 00 s (5 min 35 s to 6 min 27 s), one after the other; 0.1 device-hours"
    )
    states[GRID.trials[7].key] = trial_state("done", 30)
    assert cost_lines(make_forecast(make_plan(GRID, states), states, measured, 2), make_plan(GRID, states))[-1] == (
        "about 3 min 00 s (2 min 51 s to 3 min 09 s); 0.05 device-hours"
    )


def test_a_trained_epoch_says_more_than_a_canary():
    trial = GRID.trials[0]
    measured = [row(trial, 90.0, "canary", peak_memory_bytes=5 * GIB), row(GRID.trials[1], 12.0)]
    (cost,) = make_forecast(make_plan(GRID, {}), {}, measured, 1).networks
    assert (cost.fastest, cost.slowest, cost.peak_memory_bytes) == (12.0, 12.0, 5 * GIB)
    assert (cost.trained, cost.rehearsed) == (1, 1)
