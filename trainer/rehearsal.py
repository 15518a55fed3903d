"""A short trial run of a configuration: a few steps, an evaluation, a checkpoint; what fails here would fail later."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainer.augmentation import EpochLoader
from trainer.checkpoint import fitting, read_checkpoint, remove_checkpoint, save_checkpoint
from trainer.config import TrainConfig
from trainer.data import EvaluationSets, epoch_loader, evaluation_sets, load_splits
from trainer.device import prepare_device
from trainer.evaluation import evaluate
from trainer.objective import Batch, Objective
from trainer.streaming import StreamingLoader
from trainer.train import (
    build_networks,
    build_optimizer,
    checkpoint_state,
    load_state,
    teacher_config,
    train_epoch,
    wait_for,
)

# The first step builds what later ones find ready; the last is the one that is timed.
STEPS = 2
EVALUATED_BATCHES = 2


@dataclass(frozen=True)
class Rehearsal:
    """What a rehearsal has measured.

    `seconds_per_epoch` extrapolates one training step and some evaluation batches to all images; the training of a
    teacher is not part of it. `launch_share` is the share of that step in which the processor was still giving work
    to the device, 1 on a CPU. Memory is of the device: `peak_memory_bytes` held tensors, `reserved_memory_bytes` was
    taken for them; None on a CPU.
    """

    seconds_per_epoch: float
    launch_share: float
    peak_memory_bytes: int | None
    reserved_memory_bytes: int | None
    checkpoint_bytes: int
    parameters: int

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return asdict(self)


def rehearse(
    config: TrainConfig, *, device: str | torch.device, data_root: Path, folder: Path, deterministic: bool = False
) -> Rehearsal:
    """Take `STEPS` training steps, evaluate some batches, write a checkpoint to `folder`, read it back, remove it.

    Everything has the size of the real training: the data set on the device, the batches, the state of the methods.
    A teacher is there, too, though untrained.

    Raises as `trainer.train.train`.
    """
    device = torch.device(device)
    prepare_device(device, deterministic=deterministic)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    splits = load_splits(config, data_root)
    num_classes = splits.train.num_classes
    networks = build_networks(config, num_classes, device)
    objective = Objective(config.build_methods(), num_classes)
    optimizer = build_optimizer(config, networks)
    loader = epoch_loader(splits, config, device, class_pairs=objective.requires.class_pairs)
    evaluated = evaluation_sets(splits, config, device)
    teacher = build_networks(teacher_config(config), num_classes, device)[0] if objective.requires.teacher else None
    for method in objective.methods:
        method.setup(splits.train.labels.to(device), num_classes, len(networks), teacher)
        method.start_epoch(0, config.epochs)

    few = _FewBatches(loader, device)
    train_epoch(config, networks, objective, optimizer, few, 0)
    wait_for(device)
    step_seconds = time.perf_counter() - few.began
    training = step_seconds / few.images * len(splits.train.labels)
    evaluation = _evaluation_seconds(config, networks, evaluated, device)
    size = _checkpoint_bytes(config, networks, optimizer, objective, folder)
    on_gpu = device.type == "cuda"
    return Rehearsal(
        seconds_per_epoch=training + evaluation,
        launch_share=min(1.0, few.launch_seconds / step_seconds) if on_gpu else 1.0,
        peak_memory_bytes=torch.cuda.max_memory_allocated(device) if on_gpu else None,
        reserved_memory_bytes=torch.cuda.max_memory_reserved(device) if on_gpu else None,
        checkpoint_bytes=size,
        parameters=sum(parameter.numel() for parameter in networks.parameters()),
    )


class _FewBatches:
    """The first `STEPS` batches of a loader, and when the last of them was asked for and given back."""

    def __init__(self, loader: EpochLoader | StreamingLoader, device: torch.device) -> None:
        self.loader, self.device = loader, device
        self.steps = min(STEPS, len(loader))
        self.began = self.launch_seconds = 0.0
        self.images = 0

    def epoch(self, epoch: int) -> Iterator[Batch]:
        batches = self.loader.epoch(epoch)
        for step in range(self.steps):
            if step == self.steps - 1:
                wait_for(self.device)
                self.began = time.perf_counter()
            batch = next(batches)
            self.images = len(batch.labels)
            yield batch
        self.launch_seconds = time.perf_counter() - self.began


def _evaluation_seconds(
    config: TrainConfig, networks: nn.ModuleList, sets: EvaluationSets, device: torch.device
) -> float:
    few = EvaluationSets(*(each and each.first(EVALUATED_BATCHES * each.batch_size) for each in sets))
    if device.type == "cuda":
        # The first batch of a size loads its kernels.
        evaluate(config, networks, few, device)
    wait_for(device)
    began = time.perf_counter()
    evaluate(config, networks, few, device)
    wait_for(device)
    counts = [sum(each.count for each in some if each is not None) for some in (sets, few)]
    return (time.perf_counter() - began) * counts[0] / counts[1]


def _checkpoint_bytes(
    config: TrainConfig, networks: nn.ModuleList, optimizer: torch.optim.Optimizer, objective: Objective, folder: Path
) -> int:
    """Write a checkpoint and load it back; returns its size."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{config.key()}.rehearsal.pt"
    try:
        save_checkpoint(path, config, checkpoint_state(networks, optimizer, objective, []))
        with fitting(path):
            load_state(read_checkpoint(path), networks, optimizer, objective)
        return path.stat().st_size
    finally:
        remove_checkpoint(path)
