"""Cutout: hide a square of each image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from trainer.method import Batch, Method, random_integers

if TYPE_CHECKING:
    from torch import Generator, Tensor


@dataclass
class Cutout(Method):
    """Set a square of `length` pixels of each normalised image to 0, the mean colour; targets stay.

    Its centre lies anywhere in the image, and what sticks out is cut off. Published: 8 on CIFAR-100, 16 on CIFAR-10,
    20 on SVHN. Source: DeVries and Taylor, Improved Regularization of Convolutional Neural Networks with Cutout.
    """

    name: ClassVar[str] = "cutout"
    title: ClassVar[str] = "Cutout"
    length: Annotated[int, Field(ge=1)] = 8

    def augment(self, batch: Batch, generator: Generator) -> Batch:
        pairs = batch.pair_inputs
        return batch._replace(
            inputs=self._cut(batch.inputs, batch.labels, generator),
            pair_inputs=None if pairs is None else self._cut(pairs, batch.labels, generator),
        )

    def _cut(self, inputs: Tensor, labels: Tensor, generator: Generator) -> Tensor:
        covered = []
        for size in inputs.shape[2:]:
            first = random_integers(size, labels, generator)[:, None] - self.length // 2
            positions = labels.new_ones(size).cumsum(0) - 1
            covered.append((positions >= first) & (positions < first + self.length))
        rows, columns = covered
        return inputs.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], 0)
