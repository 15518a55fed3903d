"""Measure classifiers by the metrics that a user asks for, beside those of every evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Real
from typing import Any, ClassVar

import torch
from torch import Tensor

from trainer.errors import FailureClass, TrainerError
from trainer.parts import METRICS, MetricFacts
from trainer.registry import Part

# How many random images a metric is tried on before a training.
TRIED_IMAGES = 16


class MetricError(TrainerError):
    """A metric that cannot measure; the message names it, its file, and what it gave."""

    failure: ClassVar[FailureClass] = "code"


def measure(names: Iterable[str], probabilities: Tensor, labels: Tensor) -> dict[str, float]:
    """Return the value of each metric for probabilities [N, K] and labels [N], of any device and precision.

    A metric gets copies on the CPU, float64 and int64, so that it changes nothing for anybody else, and random numbers
    that are not those of the training. Probabilities that are not finite are not measured: the training has diverged.

    Raises MetricError where a metric fails or gives something else than a finite number.
    """
    names = list(names)
    if not names or not bool(probabilities.isfinite().all()):
        return {}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        return {name: _value(METRICS[name], probabilities, labels) for name in names}


def try_out(names: Iterable[str], num_classes: int) -> None:
    """Measure random probabilities, so that a metric that fails does so before hours of training.

    Raises MetricError as `measure`.
    """
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.rand(TRIED_IMAGES, num_classes, generator=generator, dtype=torch.float64).softmax(1)
    measure(names, probabilities, torch.arange(TRIED_IMAGES) % num_classes)


def _value(part: Part[MetricFacts], probabilities: Tensor, labels: Tensor) -> float:
    given = (
        probabilities.to("cpu", torch.float64, copy=True),
        labels.to("cpu", torch.int64, copy=True),
    )
    what = f"the metric {part.name!r} ({part.source})"
    shapes = f"probabilities {list(given[0].shape)} and labels {list(given[1].shape)}"
    try:
        returned: Any = part.make(*given)
        if isinstance(returned, Tensor) and returned.ndim == 0:
            returned = returned.item()
    except Exception as error:
        raise MetricError(f"{what} fails for {shapes}: {type(error).__name__}: {error}") from error
    if isinstance(returned, bool) or not isinstance(returned, Real):
        raise MetricError(f"{what} returns a {type(returned).__name__}, not a number, for {shapes}")
    value = float(returned)
    if not math.isfinite(value):
        raise MetricError(f"{what} returns {value}, not a finite number, for {shapes}")
    return value
