"""Mixup: train on convex combinations of images and of their targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from trainer.method import Batch, Method, host_random

if TYPE_CHECKING:
    from torch import Generator


@dataclass
class Mixup(Method):
    """Blend each image with the one before it in the batch: x = share x_i + (1 - share) x_j, targets alike.

    The share of a batch is drawn from Beta(alpha, alpha); the order of images is random, and with it the pairs.
    Published: alpha 1 on CIFAR, 0.2 to 0.4 on ImageNet.
    Source: Zhang et al., mixup: Beyond Empirical Risk Minimization.
    """

    name: ClassVar[str] = "mixup"
    title: ClassVar[str] = "Mixup"
    mixes: ClassVar[bool] = True
    alpha: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0

    def augment(self, batch: Batch, generator: Generator) -> Batch:
        share = host_random(generator).betavariate(self.alpha, self.alpha)
        previous = batch.map(lambda values: values.roll(1, 0))
        return batch.mixed(previous, share, lambda own, other: share * own + (1 - share) * other)
