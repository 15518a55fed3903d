"""DCM: dense cross-layer mutual distillation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from trainer.losses import cross_entropy, kl_divergence, log_softmax, stack
from trainer.method import Batch, Method, Output, Requires

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from torch.nn import Module


@dataclass
class DCM(Method):
    """Train two networks with heads side by side; every classifier of one learns from every classifier of the other.

    Adds the cross-entropy of all heads, and KL(softmax z_j || softmax z_i) over all pairs of a classifier i and a
    classifier j of the other network, both ways, j without gradient.
    Source: Yao and Sun, Knowledge Transfer via Dense Cross-Layer Mutual-Distillation.
    """

    name: ClassVar[str] = "dcm"
    title: ClassVar[str] = "DCM"

    @property
    def requires(self) -> Requires:
        return Requires(networks=2, heads=True)

    def resolve(self, num_heads: int) -> Method:
        if num_heads == 0:
            raise ValueError("dcm trains auxiliary heads and this network has none; dml works without")
        return self

    def losses(
        self, networks: Sequence[Module], outputs: Sequence[Output], batch: Batch, targets: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        first, second = (log_softmax(stack([*output.head_logits, output.logits])) for output in outputs)
        return {
            "dcm/cross_entropy": cross_entropy(first[:-1], targets[0]) + cross_entropy(second[:-1], targets[1]),
            # One network's classifiers along the first dimension, the other's along the second: every pair.
            "dcm/mutual": kl_divergence(first, second.detach()[:, None])
            + kl_divergence(second, first.detach()[:, None]),
        }
