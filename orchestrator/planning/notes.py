"""Say what is allowed in a grid and probably not meant: batches larger than the data, milestones that never come."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from orchestrator.text import counted
from trainer.datasets import dataset_spec

if TYPE_CHECKING:
    from orchestrator.grid import Grid
    from trainer.config import TrainConfig


def grid_notes(grid: Grid) -> list[str]:
    """Return a line for every such fact, with the number of trials that it is true of."""
    facts: Counter[str] = Counter()
    for trial in grid.trials:
        facts.update(_facts(trial.config))
    return [f"{fact} ({counted(count, 'trial')})" for fact, count in facts.items()]


def _facts(config: TrainConfig) -> list[str]:
    facts = []
    late = [milestone for milestone in config.milestones or () if milestone >= config.epochs]
    if late:
        listed = ", ".join(map(str, late))
        ends = f"training ends after {counted(config.epochs, 'epoch')}"
        facts.append(f"milestones {listed} never come: {ends}, so the learning rate does not fall there")
    images = _images(config)
    if images is not None and config.batch_size > images:
        facts.append(
            f"batch_size {config.batch_size:,} is more than the {counted(images, 'training image')} of "
            f"{config.dataset}: every epoch is one step"
        )
    return facts


def _images(config: TrainConfig) -> int | None:
    """Return the number of training images; None where only the files can tell."""
    spec = dataset_spec(config.dataset)
    if config.subset is not None and spec.classes is not None:
        return config.subset * spec.classes
    return None if spec.train_images is None else spec.train_images - config.validation
