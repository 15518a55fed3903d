"""DMFL: mutual learning between the features of the heads and of the deepest classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from trainer.losses import log_softmax, stack_alike
from trainer.method import Batch, Method, Output, Requires, summed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from torch.nn import Module


@dataclass
class DMFL(Method):
    """Bring the features of each head and of the deepest classifier together, both ways.

    `equation` is the published one: the mean over the heads of KL(softmax F_i || softmax F_N) and its reverse, added,
    softmax over channels, gradients to both. `released` is what the authors' code computes: cross-entropies in the
    place of the divergences, copied so that no gradient flows; it changes the loss that is reported and nothing else.
    Source: Progressive Self-Knowledge Distillation with Mutual Learning, eq. 3.
    """

    name: ClassVar[str] = "dmfl"
    title: ClassVar[str] = "DMFL"
    variant: Literal["equation", "released"] = "equation"

    @property
    def requires(self) -> Requires:
        return Requires(heads=True, features=True)

    def resolve(self, num_heads: int) -> Method:
        if num_heads == 0:
            raise ValueError("dmfl compares the features of auxiliary heads and this network has none")
        return self

    def losses(
        self, networks: Sequence[Module], outputs: Sequence[Output], batch: Batch, targets: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        return summed({"dmfl/features": self._term(output)} for output in outputs)

    def _term(self, output: Output) -> Tensor:
        features, deepest = stack_alike(output.head_features, output.features), output.features
        if self.variant == "released":
            features, deepest = features.detach(), deepest.detach()
        log_heads, log_deepest = log_softmax(features), log_softmax(deepest)
        if self.variant == "released":
            compared = -(log_heads.exp() * log_deepest + log_deepest.exp() * log_heads)
        else:
            # KL(p || q) + KL(q || p) = sum((p - q) (log p - log q))
            compared = (log_heads.exp() - log_deepest.exp()) * (log_heads - log_deepest)
        return compared.sum() / log_heads[..., 0].numel()
