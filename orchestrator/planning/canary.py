"""Choose the trials to rehearse before a grid, and how many of them share a device then. Pure: it runs nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainer.datasets import dataset_spec

if TYPE_CHECKING:
    from orchestrator.grid import Trial

# Fields that decide the code, the memory and the data of a trial; a learning rate or a seed does not.
SHAPE = (
    *("methods", "network", "peer", "stages", "heads", "width", "batch_size", "precision"),
    *("dataset", "subset", "validation", "ood_dataset"),
)
# A canary takes seconds. Trials with fewer images than this in all their epochs fail as early by themselves.
LEAST_IMAGES = 200_000

# GPU memory of a process beyond what PyTorch reserves: its context and the kernels.
CONTEXT_BYTES = 600 * 2**20
# Share of a device's memory that may be given away; memory use grows after the first steps.
MEMORY_SHARE = 0.9
# Below this share of a step spent by the processor on launching kernels, the device is the bottleneck. So it is where
# steps are replayed: the device gets all of a step's kernels at once and never waits between them.
LAUNCH_BOUND = 0.7
MOST_PACKED = 4


@dataclass(frozen=True)
class Footprint:
    """Measurements of a canary of one trial on a GPU, see `trainer.canary.Rehearsal`."""

    reserved_memory_bytes: int
    launch_share: float


def canary_shape(config: Mapping[str, Any], engine: str = "auto") -> str:
    """Return a value that is equal for configurations, run by the same engine, of which one canary is enough."""
    return json.dumps([engine, *(config.get(name) for name in SHAPE)], sort_keys=True)


def shape_of(trial: Trial) -> str:
    """Return the shape of a trial with its grid's engine."""
    return canary_shape(trial.config.model_dump(mode="json"), trial.resources.engine)


def trained_images(trial: Trial) -> float:
    """Return the training images of all epochs together; infinite where only the files can tell."""
    config, spec = trial.config, dataset_spec(trial.config.dataset)
    if config.subset is not None and spec.classes is not None:
        return config.epochs * config.subset * spec.classes
    return config.epochs * (spec.train_images or math.inf)


def canaries(trials: Iterable[Trial], rehearsed: Collection[str]) -> dict[str, list[Trial]]:
    """Return the trials of each shape; one canary, of the first trial, stands for them all.

    Shapes that were `rehearsed` before are left out, and those whose trials are all small.
    """
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(shape_of(trial), []).append(trial)
    return {
        shape: members
        for shape, members in groups.items()
        if shape not in rehearsed and any(trained_images(trial) >= LEAST_IMAGES for trial in members)
    }


def packed_share(footprint: Footprint, memory_bytes: int, gpus: float, cpus: float, cpu_per_trial: float) -> float:
    """Return the share of a GPU to give to each trial: 1, 1/2, 1/3 or 1/4.

    The GPU's memory (`memory_bytes`) and its node's processors limit how many trials share it; `gpus` and `cpus` are
    the node's. A trial that keeps the GPU busy gets it whole: two would take turns, and gain nothing.
    """
    if footprint.launch_share < LAUNCH_BOUND:
        return 1.0
    by_memory = int(memory_bytes * MEMORY_SHARE // (footprint.reserved_memory_bytes + CONTEXT_BYTES))
    by_processors = int(cpus // (cpu_per_trial * gpus))
    return 1.0 / max(1, min(by_memory, by_processors, MOST_PACKED))
