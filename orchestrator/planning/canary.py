"""Which trials are rehearsed before a grid, and how many of them share a device then. Pure: it runs nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainer.datasets import dataset_spec

if TYPE_CHECKING:
    from orchestrator.grid import Trial

# What decides the code, the memory and the data of a trial; a learning rate or a seed does not.
SHAPE = (
    *("methods", "network", "peer", "stages", "heads", "width", "batch_size", "precision"),
    *("dataset", "subset", "validation", "ood_dataset"),
)
# A canary costs seconds. Trials of fewer images than this in all their epochs fail as early by themselves.
LEAST_IMAGES = 200_000

# What a process takes of a GPU besides what PyTorch reserves: its context and the kernels.
CONTEXT_BYTES = 600 * 2**20
# The share of a device's memory that may be given away, for the rest grows after a few steps.
MEMORY_SHARE = 0.9
# Where the processor spends less than this share of a step on giving out work, the device is the bottleneck. So it is
# where steps are replayed: the device has all of a step's kernels at once, and is idle between none of them.
LAUNCH_BOUND = 0.7
MOST_PACKED = 4


@dataclass(frozen=True)
class Footprint:
    """What a canary has measured of one trial on a GPU, see `trainer.canary.Rehearsal`."""

    reserved_memory_bytes: int
    launch_share: float


def canary_shape(config: Mapping[str, Any], engine: str = "auto") -> str:
    """Return what is equal for configurations, run by the same engine, of which one canary is enough."""
    return json.dumps([engine, *(config.get(name) for name in SHAPE)], sort_keys=True)


def shape_of(trial: Trial) -> str:
    """Return the shape of a trial as its grid has it run."""
    return canary_shape(trial.config.model_dump(mode="json"), trial.resources.engine)


def trained_images(trial: Trial) -> float:
    """Training images of all epochs together; infinite where only the files can tell."""
    config, spec = trial.config, dataset_spec(trial.config.dataset)
    if config.subset is not None and spec.classes is not None:
        return config.epochs * config.subset * spec.classes
    return config.epochs * (spec.train_images or math.inf)


def canaries(trials: Iterable[Trial], known: Collection[str]) -> dict[str, list[Trial]]:
    """The trials that one canary each stands for, the first of which is rehearsed, by shape.

    Shapes that are `known` to work are left out, and those whose trials are all small.
    """
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(shape_of(trial), []).append(trial)
    return {
        shape: members
        for shape, members in groups.items()
        if shape not in known and any(trained_images(trial) >= LEAST_IMAGES for trial in members)
    }


def packed_share(footprint: Footprint, memory_bytes: int, gpus: float, cpus: float, cpu_per_trial: float) -> float:
    """The share of a GPU to give to each trial: 1, 1/2, 1/3 or 1/4.

    As many share a GPU as its memory (`memory_bytes`) and the processors of its node allow, `gpus` and `cpus` in all,
    but none where a single trial keeps the GPU busy: two would take turns, and gain nothing.
    """
    if footprint.launch_share < LAUNCH_BOUND:
        return 1.0
    by_memory = int(memory_bytes * MEMORY_SHARE // (footprint.reserved_memory_bytes + CONTEXT_BYTES))
    by_processors = int(cpus // (cpu_per_trial * gpus))
    return 1.0 / max(1, min(by_memory, by_processors, MOST_PACKED))
