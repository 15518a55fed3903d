"""Trials that are trained one after the other in the same processes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from orchestrator.grid import Resources
from orchestrator.scheduler.trials import share_processes
from trainer.config import TrainConfig


@pytest.mark.parametrize(
    "resources, epochs, canary, shared",
    [
        (Resources(cpu=1), 2, False, True),
        (Resources(cpu=1), 300, False, False),
        (Resources(cpu=1), 300, True, True),
        (Resources(cpu=1, gpu=1), 2, False, False),
        (Resources(cpu=1, gpu=0.5), 2, False, False),
        (Resources(cpu=1, gpu=1), 300, True, False),
    ],
)
def test_only_what_is_short_and_on_a_cpu_shares_processes(
    resources: Resources, epochs: int, canary: bool, shared: bool
):
    trial = SimpleNamespace(config=TrainConfig(dataset="digits", epochs=epochs))
    assert share_processes(resources, [trial], canary=canary) == shared
