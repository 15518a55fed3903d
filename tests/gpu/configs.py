"""Configurations of small trainings, and smaller ones where there is no GPU."""

from __future__ import annotations

import os
from typing import Any

from trainer.config import TrainConfig

# Tests whose claim holds on any device; the others need CUDA itself.
TRIED_ON_A_CPU = os.environ.get("ORCHESTRATE_GPU_TESTS") == "cpu"

# Full batches enough for a graph to be recorded and replayed, and a last batch that is smaller. At the rate of the
# papers, ten steps make a relative difference of 1e-15 one of 1e-4: two devices could not be compared.
SIZES: dict[str, Any] = {
    "dataset": "digits",
    "subset": 30,
    "batch_size": 32,
    "epochs": 2,
    "width": 16,
    "learning_rate": 0.01,
}
if TRIED_ON_A_CPU:
    SIZES |= {"subset": 11, "batch_size": 16, "width": 4}


def config_of(methods: dict[str, Any], network: str = "resnet18", **fields: Any) -> TrainConfig:
    """Return the configuration of a small training."""
    return TrainConfig(**SIZES | {"network": network, "methods": methods} | fields)
