"""Label smoothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from trainer.method import Batch, Method

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class LabelSmoothing(Method):
    """Mix each target with the uniform distribution: t = (1 - smoothing) y + smoothing / K.

    Source: Szegedy et al., Rethinking the Inception Architecture for Computer Vision, section 7.
    """

    name: ClassVar[str] = "label_smoothing"
    title: ClassVar[str] = "Label Smoothing"
    smoothing: Annotated[float, Field(ge=0, le=1)] = 0.1

    def soften(self, targets: Tensor, batch: Batch, network: int) -> Tensor:
        return (1 - self.smoothing) * targets + self.smoothing / targets.shape[-1]
