"""CS-KD: class-wise self-knowledge distillation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from trainer.losses import kl_divergence, log_softmax
from trainer.method import Batch, Method, Output, Requires, predict, summed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from torch.nn import Module


@dataclass
class CSKD(Method):
    """Predict of each image what the network says of another image of its class.

    Adds weight T^2 KL(softmax(z' / T) || softmax(z / T)), z' from the other image, without gradient, in training
    mode (so batch norm statistics see both images, as in the authors' code). Where a method mixes images, the other
    images are mixed in the same pairs and shares: both inputs are then of the same mixture of classes.
    Source: Yun et al., Regularizing Class-wise Predictions via Self-knowledge Distillation.
    """

    name: ClassVar[str] = "cskd"
    title: ClassVar[str] = "CS-KD"
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 4.0
    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0

    @property
    def requires(self) -> Requires:
        return Requires(class_pairs=True)

    def losses(
        self, networks: Sequence[Module], outputs: Sequence[Output], batch: Batch, targets: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        factor = self.weight * self.temperature**2
        terms = []
        assert batch.pair_inputs is not None
        for network, output in zip(networks, outputs, strict=True):
            own = log_softmax(output.logits, self.temperature)
            # After the pass that has a gradient: autocast keeps the first cast of each weight, and one that was made
            # without a gradient would leave the weight without any.
            other = log_softmax(predict(network, batch.pair_inputs), self.temperature)
            terms.append({"cskd/pairs": factor * kl_divergence(own, other)})
        return summed(terms)
