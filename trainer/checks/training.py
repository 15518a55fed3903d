"""Trainings small enough for a check: digits, a narrow network, seconds."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer.checkpoint import read_checkpoint
from trainer.config import TrainConfig
from trainer.registry import remembered
from trainer.state import build_networks, teacher_config
from trainer.train import Training, train

CPU = torch.device("cpu")
# What two equal trainings need not share.
CLOCKS = ("train_seconds", "eval_seconds", "data_seconds", "peak_memory_bytes", "restored")


def config_of(**fields: Any) -> TrainConfig:
    """Return a configuration of two short epochs."""
    small = {"dataset": "digits", "network": "resnet18", "width": 4, "subset": 6, "batch_size": 20, "epochs": 2}
    return TrainConfig(**{**small, "precision": "float32", "learning_rate": 0.05, **fields})


def ready(config: TrainConfig) -> Training:
    """Return a training at the beginning of its first epoch, with an untrained teacher where one is needed."""
    training = Training(config, CPU, Path("data"))
    needed = training.objective.requires.teacher
    training.set_up(build_networks(teacher_config(config), training.num_classes, CPU)[0] if needed else None)
    for method in training.objective.methods:
        method.start_epoch(0, config.epochs)
    training.networks.train()
    return training


def first_trial(config: TrainConfig) -> dict[str, Any]:
    """Return what the first training of a configuration learned, of which several checks ask."""
    return _first_trial(config.model_dump_json())


@remembered
def _first_trial(text: str) -> dict[str, Any]:
    return learned(TrainConfig.model_validate_json(text))


def learned(config: TrainConfig, *, stop: bool = False) -> dict[str, Any]:
    """Train, with `stop` in two runs of one epoch each; return what the last checkpoint holds, without clocks."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "checkpoint.pt"
        for epochs in (1, None) if stop else (None,):
            train(config, lambda result: None, checkpoint=checkpoint, stop_after=epochs, data_root=Path("data"))
        state = read_checkpoint(checkpoint)
    del state["config"]
    for result in state["results"]:
        for clock in CLOCKS:
            del result[clock]
    return state


def difference(one: Any, other: Any, path: str = "") -> str | None:
    """Return the path of the first place where two structures of tensors and plain values differ; None for equal ones.

    NaN equals NaN.
    """
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        alike = one.dtype == other.dtype and one.shape == other.shape
        return None if alike and torch.equal(one.nan_to_num(), other.nan_to_num()) else path
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        if one.keys() != other.keys():
            return path
        pairs = [(f"{path}/{name}" if path else str(name), one[name], other[name]) for name in one]
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if len(one) != len(other):
            return path
        pairs = [(f"{path}/{place}", *values) for place, values in enumerate(zip(one, other, strict=True))]
    else:
        return None if one == other or (one != one and other != other) else path
    return next((found for name, a, b in pairs if (found := difference(a, b, name)) is not None), None)
