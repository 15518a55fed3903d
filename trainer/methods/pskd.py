"""PS-KD: progressive self-knowledge distillation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from trainer.losses import one_hot, wide
from trainer.method import Batch, Method, Output, of_whole_batch, predict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from torch.nn import Module


@dataclass
class PSKD(Method):
    """Soften each target with what the network itself said of that image one epoch ago.

    t = (1 - a_e) y + a_e p_prev with a_e = alpha (e + 1) / E for the 0-based epoch e of E. p_prev is the softmax
    of the previous epoch in training mode, on that epoch's augmented view, before that step's update; in the first
    epoch it is y. Source: Kim et al., Self-Knowledge Distillation with Progressive Refinement of Targets, eq. 4-5.

    Where another method mixes images (CutMix, Mixup), the label of each of them is softened with what the network said
    of that image, and then the targets are mixed like the inputs, as the source combines both. What it says of a
    mixture is not of one image: p_prev is of the images before they are mixed, in a pass of its own without gradient,
    in training mode as well, so that batch norm statistics see both. The pass costs a third of a step.
    """

    name: ClassVar[str] = "pskd"
    title: ClassVar[str] = "PS-KD"
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.8

    def setup(self, labels: Tensor, num_classes: int, networks: int, teacher: Module | None = None) -> None:
        # One table of [samples, classes] per network; in the first epoch it holds the labels themselves.
        self.tables = [one_hot(labels, num_classes) for _ in range(networks)]
        # On the device, so that a captured graph of the step reads the weight of the present epoch.
        self.weight = labels.new_zeros(()).double()

    def start_epoch(self, epoch: int, epochs: int) -> None:
        self.weight.fill_(self.alpha * (epoch + 1) / epochs)

    def soften(self, targets: Tensor, batch: Batch, network: int) -> Tensor:
        previous = self.tables[network].index_select(0, batch.indices)
        return targets + self.weight * (previous - targets)

    def losses(
        self, networks: Sequence[Module], outputs: Sequence[Output], batch: Batch, targets: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        # After the pass that has a gradient, as in CS-KD, and before the update.
        if batch.unmixed is None:
            self.logits = [output.logits.detach() for output in outputs]
        else:
            self.logits = [predict(network, batch.unmixed) for network in networks]
        return {}

    def after_step(self, outputs: Sequence[Output], batch: Batch) -> None:
        indices = of_whole_batch(batch.indices, batch)
        for network, logits in enumerate(self.logits):
            predictions = of_whole_batch(wide(logits).softmax(-1), batch)
            # A float64 run keeps float64 predictions; the labels that were there until now are exact either way.
            self.tables[network] = self.tables[network].to(predictions.dtype)
            self.tables[network].index_copy_(0, indices, predictions)

    def state_dict(self) -> dict[str, Any]:
        return {"tables": self.tables}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pairs = zip(self.tables, state["tables"], strict=True)
        self.tables = [table.to(saved.dtype).copy_(saved) for table, saved in pairs]
