"""BYOT: be your own teacher."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from trainer.losses import cross_entropy, log_softmax, stack, stack_alike, wide
from trainer.method import Batch, Method, Output, Requires, summed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from torch.nn import Module


@dataclass
class BYOT(Method):
    """Teach auxiliary heads on shallow stages with the labels, the deepest classifier and its features.

    With logits z_i and features F_i of the heads in `blocks` (1 the shallowest, None for all), z_N and F_N of the
    deepest classifier, both without gradient where they teach, and targets t:
    (1 - alpha) [CE(t, z_N) + sum_i CE(t, z_i)] + alpha T^2 sum_i CE(softmax(z_N / T), softmax(z_i / T))
    + feature_weight sum_i |F_i - F_N|^2, summed over batch and channels where F_i > 0 or F_N > 0. CE(t, z_N) comes
    on top of the deepest cross-entropy that every run has, as in the authors' code.
    Source: Zhang et al., Be Your Own Teacher.
    """

    name: ClassVar[str] = "byot"
    title: ClassVar[str] = "BYOT"
    blocks: Annotated[tuple[int, ...], Field(min_length=1)] | None = None
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 3.0
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.1
    feature_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-6

    @property
    def requires(self) -> Requires:
        return Requires(heads=True, features=self.feature_weight > 0)

    def resolve(self, num_heads: int) -> Method:
        if num_heads == 0:
            raise ValueError("byot trains auxiliary heads and this network has none")
        if self.blocks is None:
            return self
        for block in self.blocks:
            if not 1 <= block <= num_heads:
                allowed = f"1 to {num_heads}" if num_heads > 1 else "only 1"
                raise ValueError(f"blocks: there is no block {block} on this network; allowed: {allowed}")
        blocks = tuple(sorted(set(self.blocks)))
        return replace(self, blocks=None if len(blocks) == num_heads else blocks)

    def losses(
        self, networks: Sequence[Module], outputs: Sequence[Output], batch: Batch, targets: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        return summed(self._terms(output, batch, target) for output, target in zip(outputs, targets, strict=True))

    def _terms(self, output: Output, batch: Batch, targets: Tensor) -> dict[str, Tensor]:
        chosen = [block - 1 for block in self.blocks or range(1, len(output.head_logits) + 1)]
        logits = stack([*(output.head_logits[head] for head in chosen), output.logits])
        teacher = log_softmax(logits[-1].detach(), self.temperature).exp()
        heads = log_softmax(logits[:-1], self.temperature)
        terms = {
            "byot/cross_entropy": (1 - self.alpha) * cross_entropy(log_softmax(logits), targets),
            "byot/distillation": self.alpha * self.temperature**2 * cross_entropy(heads, teacher),
        }
        if self.feature_weight:
            features = stack_alike([output.head_features[head] for head in chosen], output.features)
            deepest = wide(output.features.detach())
            active = features.detach().maximum(deepest) > 0
            # A sum over the whole batch, of which this may be a part, and not a mean as everything else.
            weight = self.feature_weight * (batch.images / len(batch.labels))
            terms["byot/features"] = weight * ((features - deepest) * active).square().sum()
        return terms
