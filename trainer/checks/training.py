"""Trainings small enough for a check: digits, a narrow network, seconds."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainer.checkpoint import read_checkpoint, save_checkpoint
from trainer.config import TrainConfig
from trainer.registry import remembered
from trainer.results import EpochResult
from trainer.state import build_networks, checkpoint_state, load_state, teacher_config
from trainer.train import Training

CPU = torch.device("cpu")
EVALUATED = 20
# What two equal trainings need not share.
CLOCKS = ("train_seconds", "eval_seconds", "data_seconds", "peak_memory_bytes", "restored")


def config_of(**fields: Any) -> TrainConfig:
    """Return a configuration of two short epochs."""
    small = {"dataset": "digits", "network": "resnet18", "width": 4, "subset": 3, "batch_size": 10, "epochs": 2}
    return TrainConfig(**{**small, "precision": "float32", "learning_rate": 0.05, **fields})


def prepared(config: TrainConfig, *, resumed: bool = False) -> Training:
    """Return a training before its first epoch, evaluated on a few images; one that is `resumed` has no state yet."""
    training = Training(config, CPU, Path("data"))
    # The whole test set would take most of the time of a check.
    training.evaluated = training.evaluated._replace(test=training.evaluated.test.first(EVALUATED))
    training.set_up(_teacher(training, resumed=resumed) if training.objective.requires.teacher else None)
    return training


def _teacher(training: Training, *, resumed: bool) -> nn.Module:
    """Return a teacher: trained as it were, or, where a training is resumed, with initial weights, as `train` does."""
    (teacher,) = build_networks(teacher_config(training.config), training.num_classes, CPU)
    if not resumed:
        with torch.no_grad():
            for parameter in teacher.parameters():
                parameter.mul_(0.9)
    return teacher


def ready(config: TrainConfig) -> Training:
    """Return a training at the beginning of its first epoch."""
    training = prepared(config)
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
    """Train, with `stop` each epoch anew from a checkpoint; return what the last checkpoint holds, without clocks.

    `trainer.train.train` would evaluate all images and train the teacher, which take most of the time.
    """
    training, results = prepared(config), list[EpochResult]()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "checkpoint.pt"
        for epoch in range(config.epochs):
            if stop and epoch:
                training = prepared(config, resumed=True)
                load_state(read_checkpoint(checkpoint), training.networks, training.optimizer, training.objective)
            results.append(training.epoch(epoch))
            if stop or epoch == config.epochs - 1:
                state = checkpoint_state(training.networks, training.optimizer, training.objective, results)
                save_checkpoint(checkpoint, config, state)
        state = timeless(checkpoint)
    del state["config"]
    return state


def timeless(checkpoint: Path) -> dict[str, Any]:
    """Return a checkpoint's content without values that equal trainings need not share: clocks, memory, restorers."""
    state = read_checkpoint(checkpoint)
    state["results"] = [
        {name: value for name, value in result.items() if name not in CLOCKS} for result in state["results"]
    ]
    return state


def difference(one: Any, other: Any, path: str = "") -> str | None:
    """Return the path of the first place where two structures of tensors and plain values differ; None for equal ones.

    Tensors are equal in every bit; a plain NaN equals NaN.
    """
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return None if _same_bits(one, other) else path
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


def _same_bits(one: Any, other: Any) -> bool:
    if not (isinstance(one, Tensor) and isinstance(other, Tensor)):
        return False
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(one.contiguous().flatten().view(torch.uint8), other.contiguous().flatten().view(torch.uint8))
