"""A short trial run of a configuration: a few steps, an evaluation, a checkpoint; what fails here would fail later."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from trainer.checkpoint import fitting, read_checkpoint, remove_checkpoint, save_checkpoint
from trainer.config import TrainConfig
from trainer.data import EvaluationSets, Loader
from trainer.device import prepare_device, wait_for
from trainer.evaluation import evaluate
from trainer.method import Batch
from trainer.state import build_networks, checkpoint_state, load_state, teacher_config
from trainer.step import Replayed, eager
from trainer.train import Training

# The first step compiles and allocates; the last one is timed.
STEPS = 2
# Replayed steps: those of the warm-up, the one that is recorded, and one more before the timed one.
REPLAYED_STEPS = Replayed.WARM_UP + 3
EVALUATED_BATCHES = 2


@dataclass(frozen=True)
class Rehearsal:
    """Measurements of a rehearsal.

    `seconds_per_epoch` extrapolates one training step and some evaluation batches to all images; the training of a
    teacher is not part of it. `launch_share` is the share of that step in which the processor was still launching
    kernels, 1 on a CPU. Memory is the device's, in bytes: `peak_memory_bytes` of tensors, `reserved_memory_bytes` taken
    for them; None on a CPU.
    """

    seconds_per_epoch: float
    launch_share: float
    peak_memory_bytes: int | None
    reserved_memory_bytes: int | None
    checkpoint_bytes: int
    parameters: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers."""
        return asdict(self)


def rehearse(
    config: TrainConfig,
    *,
    device: str | torch.device,
    data_root: Path,
    folder: Path,
    engine: str = "auto",
    deterministic: bool = False,
    report_engine: Callable[[str], None] = lambda engine: None,
    own_metrics: Sequence[str] = (),
) -> Rehearsal:
    """Take a few training steps, evaluate some batches, write a checkpoint to `folder`, read it back, remove it.

    Everything has the size of the real training: the data set on the device, the batches, the state of the methods,
    and steps reach the device in the same way, by the engine that `report_engine` is given. A teacher is there, too,
    though untrained.

    Raises as `trainer.train.train`.
    """
    device = prepare_device(device, deterministic=deterministic)
    on_gpu = device.type == "cuda"
    training = Training(config, device, data_root, engine, own_metrics)
    needed = training.objective.requires.teacher
    training.set_up(build_networks(teacher_config(config), training.num_classes, device)[0] if needed else None)
    if on_gpu:
        _forget_memory(device)

    whole = training.evaluated
    replayed = on_gpu and training.engine != "launched"
    training.loader = few = _FewBatches(training.loader, device, REPLAYED_STEPS if replayed else STEPS)
    training.evaluated = EvaluationSets._make(
        each and each.first(EVALUATED_BATCHES * each.batch_size) for each in whole
    )
    training.epoch(0)
    # Again, because the first batch of a size loads its kernels.
    with eager(training.engine == "compiled"):
        seconds = _evaluation_seconds(training)
    report_engine(training.engine)
    seconds *= _images(whole) / _images(training.evaluated)
    seconds += few.step_seconds / few.images * len(training.splits.train.labels)
    size = _checkpoint_bytes(training, folder)
    return Rehearsal(
        seconds_per_epoch=seconds,
        launch_share=min(1.0, few.launch_seconds / few.step_seconds) if on_gpu else 1.0,
        peak_memory_bytes=torch.cuda.max_memory_allocated(device) if on_gpu else None,
        reserved_memory_bytes=torch.cuda.max_memory_reserved(device) if on_gpu else None,
        checkpoint_bytes=size,
        parameters=training.parameters,
    )


def _forget_memory(device: torch.device) -> None:
    """Reset the peak memory, which setting up and cuDNN's search for kernels raised for a moment."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)


class _FewBatches:
    """The first `steps` batches of a loader, and the seconds of the last step: until it was launched, and was over."""

    def __init__(self, loader: Loader, device: torch.device, steps: int) -> None:
        self.loader, self.device = loader, device
        self.steps = min(steps, len(loader))
        self.launch_seconds = self.step_seconds = 0.0
        self.images = 0

    def __len__(self) -> int:
        return self.steps

    def epoch(self, epoch: int) -> Iterator[Batch]:
        batches = self.loader.epoch(epoch)
        for step in range(self.steps):
            if step == 1 and self.device.type == "cuda":
                wait_for(self.device)
                _forget_memory(self.device)
            if step == self.steps - 1:
                wait_for(self.device)
                began = time.perf_counter()
            batch = next(batches)
            self.images = len(batch.labels)
            yield batch
        self.launch_seconds = time.perf_counter() - began
        wait_for(self.device)
        self.step_seconds = time.perf_counter() - began


def _evaluation_seconds(training: Training) -> float:
    wait_for(training.device)
    began = time.perf_counter()
    evaluate(training.config, training.networks, training.evaluated, training.device, training.own_metrics)
    wait_for(training.device)
    return time.perf_counter() - began


def _images(sets: EvaluationSets) -> int:
    return sum(images.count for images in sets if images is not None)


def _checkpoint_bytes(training: Training, folder: Path) -> int:
    """Write a checkpoint and load it back; return its size."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{training.config.key()}.rehearsal.pt"
    state = training.networks, training.optimizer, training.objective
    try:
        save_checkpoint(path, training.config, checkpoint_state(*state, []))
        with fitting(path):
            load_state(read_checkpoint(path), *state)
        return path.stat().st_size
    finally:
        remove_checkpoint(path)
