"""Estimates of the time left, on simulated grids whose true end is known."""

import random

import pytest

from orchestrator.planning import Measured, Work, make_estimate

NETWORKS = {"resnet18": 10.0, "resnet50": 30.0, "resnext50_32x4d": 60.0}
METHODS = {"baseline": 1.0, "pskd": 1.03, "byot": 1.14, "dmfl": 1.02, "pskd+byot+dmfl": 1.25}


def config(network, method, seed):
    return {"network": network, "methods": {name: {} for name in method.split("+")}, "seed": seed, "epochs": 30}


def simulate(trials, slots):
    """The true end when each trial, with its true speed, starts on the slot that is free first."""
    ends = [0.0] * slots
    for _, seconds in trials:
        slot = ends.index(min(ends))
        ends[slot] += seconds * 30
    return max(ends)


@pytest.mark.parametrize("slots", [1, 2, 4])
@pytest.mark.parametrize("seed", range(5))
def test_within_a_fifth_after_one_finished_trial_per_network(slots, seed):
    noise = random.Random(seed)
    trials = [
        (config(network, method, number), base * factor * noise.uniform(0.95, 1.05))
        for network, base in NETWORKS.items()
        for method, factor in METHODS.items()
        for number in (0, 1)
    ]
    noise.shuffle(trials)
    first = {}
    for trial in trials:
        first.setdefault(trial[0]["network"], trial)
    rest = [trial for trial in trials if trial not in first.values()]
    estimate = make_estimate(
        [Work(cell, 30) for cell, _ in rest], [Measured(cell, seconds) for cell, seconds in first.values()], slots
    )
    truth = simulate(rest, slots)
    assert abs(estimate.seconds - truth) <= 0.2 * truth
    assert estimate.low <= truth <= estimate.high
    assert estimate.device_seconds == pytest.approx(sum(seconds * 30 for _, seconds in rest), rel=0.2)


def test_the_nearest_measurement_counts():
    one = Measured(config("resnet18", "byot", 0), 12.0)
    other = Measured(config("resnet18", "baseline", 0), 8.0)
    assert make_estimate([Work(config("resnet18", "byot", 1), 10)], [one, other], 1).seconds == 120
    assert make_estimate([Work(config("resnet18", "pskd", 1), 10)], [one, other], 1).seconds == 100
    assert make_estimate([Work(config("resnet50", "pskd", 1), 10, 50.0)], [one, other], 1).seconds == 500


def test_the_interval_is_wider_the_farther_the_measurement():
    measured = [Measured(config("resnet18", "byot", 0), 10.0)]
    widths = []
    for cell in (config("resnet18", "byot", 1), config("resnet18", "pskd", 1), config("resnet50", "pskd", 1)):
        estimate = make_estimate([Work(cell, 10)], measured, 1)
        widths.append(estimate.high - estimate.low)
    assert widths == sorted(widths)
    assert len(set(widths)) == 3


def test_a_canary_counts_where_nothing_of_the_network_was_trained():
    cell, other, elsewhere = (config(network, "byot", 0) for network in ("resnet18", "resnet50", "resnext50_32x4d"))
    canary = Measured(cell, 12.0, rehearsed=True)
    assert make_estimate([Work(cell, 10)], [canary, Measured(other, 50.0)], 1).seconds == 120
    assert make_estimate([Work(cell, 10)], [canary, Measured(config("resnet18", "pskd", 0), 9.0)], 1).seconds == 90
    assert make_estimate([Work(elsewhere, 10)], [canary, Measured(other, 50.0)], 1).seconds == 500
    rough, fine = (make_estimate([Work(cell, 10)], [Measured(cell, 12.0, rehearsed=flag)], 1) for flag in (True, False))
    assert rough.high > fine.high > 120 > fine.low > rough.low


def test_nothing_measured_and_nothing_to_do():
    assert make_estimate([Work(config("resnet18", "byot", 0), 10)], [], 2) is None
    assert make_estimate([], [], 2).seconds == 0


def test_the_longest_trial_bounds_the_end_whatever_the_slots():
    work = [Work(config("resnet18", "byot", 0), 100, 1.0), Work(config("resnet18", "pskd", 0), 1, 1.0)]
    assert make_estimate(work, [], 50).seconds == 100


def test_another_setting_says_nothing():
    measured = [Measured({**config("resnet18", "byot", 0), "dataset": "digits", "width": 8}, 1.0)]
    assert (
        make_estimate([Work({**config("resnet18", "byot", 0), "dataset": "cifar100", "width": 64}, 10)], measured, 1)
        is None
    )
