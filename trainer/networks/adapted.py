"""Adapt a network of one's own, any module from images to logits, to what the trainer expects of a network."""

from __future__ import annotations

from inspect import Parameter, signature
from typing import Any

from torch import Tensor, nn

from trainer.method import Output
from trainer.registry import PartError


class Adapted(nn.Module):
    """A module whose outputs are checked and, where they are logits alone, made an `Output` without features.

    Args:
        module: from images [B, 3, H, W] to logits [B, K] or to an `Output`.
        name: of the network, for messages.
        num_classes: K.
        heads: the number of auxiliary heads that it was built with.
        features: whether it has to give features.
    """

    def __init__(self, module: nn.Module, name: str, *, num_classes: int, heads: int, features: bool) -> None:
        super().__init__()
        self.module = module
        self.name, self.num_classes, self.head_count, self.features = name, num_classes, heads, features
        parameters = signature(module.forward).parameters.values()
        self.takes_heads = any(one.name == "heads" or one.kind is Parameter.VAR_KEYWORD for one in parameters)

    def forward(self, inputs: Tensor, heads: bool = True) -> Output:
        """Classify `inputs` [B, 3, H, W]; raises PartError for outputs of another kind or shape."""
        given: Any = self.module(inputs, heads=heads) if self.takes_heads else self.module(inputs)
        if isinstance(given, Tensor) and not self.features:
            self._check("its output", given, inputs)
            return Output(given, given.new_empty(len(given), 0))
        if not isinstance(given, Output):
            wanted = "an Output (from trainer import Output)" if self.features else "logits [B, K] or an Output"
            raise PartError(f"the network {self.name} gives a {type(given).__name__}; it has to give {wanted}")
        self._check("its logits", given.logits, inputs)
        if self.features and given.features.ndim != 2:
            raise PartError(
                f"the network {self.name}: its features have the shape {_shape(given.features)}; they have to be [B, D]"
            )
        if heads and self.head_count:
            for what, listed in (("head_logits", given.head_logits), ("head_features", given.head_features)):
                if len(listed) != self.head_count:
                    raise PartError(
                        f"the network {self.name} gives {len(listed)} {what}; with so many stages it has to give "
                        f"{self.head_count}, one for every stage but the last"
                    )
            for number, logits in enumerate(given.head_logits, start=1):
                self._check(f"the logits of head {number}", logits, inputs)
        return given

    def _check(self, what: str, logits: Tensor, inputs: Tensor) -> None:
        if logits.shape != (len(inputs), self.num_classes):
            raise PartError(
                f"the network {self.name}, built with num_classes={self.num_classes}: for images {_shape(inputs)} "
                f"{what} has the shape {_shape(logits)}, and has to have {[len(inputs), self.num_classes]}"
            )


def _shape(tensor: Tensor) -> list[int]:
    return list(tensor.shape)
