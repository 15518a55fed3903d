"""The one network class: a stem, stages, a classifier, and auxiliary heads on every stage but the last."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from torch import nn

from trainer.method import Output

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

M = TypeVar("M", bound=nn.Module)


class Network(nn.Module):
    """An image classifier assembled from its parts.

    The trunk's weights are drawn here, in the order stem, stages, classifier. Heads are appended afterwards, so
    one seed gives the trunk the same weights with and without them.

    Args:
        stem: from images [B, 3, H, W] to the first stage's input.
        stages: the backbone; heads hang on the outputs of all but the last.
        features: D, the channels of the deepest feature.
        num_classes: K.
        final: between the last stage and the pooling, where a pre-activation network normalises; None for nothing.
    """

    def __init__(
        self,
        stem: nn.Module,
        stages: Iterable[nn.Module],
        *,
        features: int,
        num_classes: int,
        final: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(stages)
        self.final = nn.Identity() if final is None else final
        self.classifier = nn.Linear(features, num_classes)
        initialise(self)
        self.heads = nn.ModuleList()

    def forward(self, inputs: Tensor, heads: bool = True) -> Output:
        """Classify `inputs` [B, 3, H, W]; without `heads` they are not run and their outputs are empty."""
        hidden = self.stem(inputs)
        exits: list[tuple[Tensor, Tensor]] = []
        for depth, stage in enumerate(self.stages):
            hidden = stage(hidden)
            if heads and depth < len(self.heads):
                exits.append(self.heads[depth](hidden))
        features = pool(self.final(hidden))
        return Output(
            self.classifier(features),
            features,
            tuple(logits for logits, _ in exits),
            tuple(head_features for _, head_features in exits),
        )


def pool(maps: Tensor) -> Tensor:
    """Average over all pixels: [B, D, H, W] to [B, D]."""
    # Pixels before channels, as they lie in memory: the gradient comes in the same order.
    return maps.permute(0, 2, 3, 1).flatten(1, 2).mean(1)


def initialise(module: M) -> M:
    """Draw the weights of every convolution from Kaiming's normal distribution (fan out, ReLU) and return the module.

    Batch norms (1 and 0), linear layers and biases keep PyTorch's defaults.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
    return module


def scaled(channels: int, width: int) -> int:
    """Return a channel count of the published network at another `width`: times width / 64, rounded, at least 1."""
    return max(1, (channels * width + 32) // 64)
