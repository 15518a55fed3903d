"""CutMix: paste a part of one image into another and mix their targets by area."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from trainer.method import Batch, Method, host_random

if TYPE_CHECKING:
    from torch import Generator, Tensor


@dataclass
class CutMix(Method):
    """Replace a rectangle of each image by that of the one before it in the batch; mix targets by their areas.

    With `probability` a batch is mixed: the area that is left is drawn from Beta(alpha, alpha), the rectangle has the
    shape of the image, its centre lies anywhere, and what sticks out is cut off. The order of images is random, and
    with it the pairs. Published: alpha 1, probability 0.5 on CIFAR and 1 on ImageNet.
    Source: Yun et al., CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features.
    """

    name: ClassVar[str] = "cutmix"
    title: ClassVar[str] = "CutMix"
    mixes: ClassVar[bool] = True
    alpha: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    probability: Annotated[float, Field(ge=0, le=1)] = 0.5

    def augment(self, batch: Batch, generator: Generator) -> Batch:
        random = host_random(generator)
        height, width = batch.inputs.shape[2:]
        share = random.betavariate(self.alpha, self.alpha) if random.random() < self.probability else 1.0
        rows, columns = rectangle(share, random.randrange(height), random.randrange(width), height, width)

        def pasted(own: Tensor, other: Tensor) -> Tensor:
            mixed = own.clone()
            mixed[..., rows, columns] = other[..., rows, columns]
            return mixed

        area = (rows.stop - rows.start) * (columns.stop - columns.start)
        # A batch that is not mixed has the same tensors as the others, so that a recorded step fits it.
        return batch.mixed(batch.map(lambda values: values.roll(1, 0)), 1 - area / (height * width), pasted)


def rectangle(share: float, row: int, column: int, height: int, width: int) -> tuple[slice, slice]:
    """Return the rows and columns around a centre that leave `share` of an image, but for what sticks out of it."""
    ratio = 0.5 * sqrt(1 - share)
    half_height, half_width = int(ratio * height), int(ratio * width)
    rows = slice(max(row - half_height, 0), min(row + half_height, height))
    return rows, slice(max(column - half_width, 0), min(column + half_width, width))
