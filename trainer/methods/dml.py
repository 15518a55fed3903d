"""DML: deep mutual learning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from trainer.losses import kl_divergence, log_softmax
from trainer.method import Batch, Method, Output, Requires

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from torch.nn import Module


@dataclass
class DML(Method):
    """Train two networks side by side, each with KL(softmax z_peer || softmax z) added, the peer without gradient.

    Source: Zhang et al., Deep Mutual Learning.
    """

    name: ClassVar[str] = "dml"
    title: ClassVar[str] = "DML"

    @property
    def requires(self) -> Requires:
        return Requires(networks=2)

    def losses(
        self, networks: Sequence[Module], outputs: Sequence[Output], batch: Batch, targets: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        first, second = (log_softmax(output.logits) for output in outputs)
        return {"dml/mutual": kl_divergence(first, second.detach()) + kl_divergence(second, first.detach())}
