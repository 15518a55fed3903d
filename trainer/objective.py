"""The training objective: a cross-entropy that methods compose with in four slots.

A method may change the inputs (`augment`), replace the target (`soften`), add loss terms (`losses`), and declare what
it needs (`requires`). Inputs come first, then targets, then terms, so the order in which methods are named never
matters.

Nothing here or in `trainer.methods` imports torch: tensors bring their operations with them, and a grid can check
the hyperparameters of its methods without loading it.
"""

from __future__ import annotations

from dataclasses import fields
from functools import cache, partial, reduce
from math import prod
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from trainer.losses import cross_entropy, log_softmax, one_hot
from trainer.method import Batch, Method, Output, Requires, over_parts, summed
from trainer.parts import METHODS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor
    from torch.nn import Module


def build_methods(parameters: Mapping[str, Mapping[str, Any]]) -> list[Method]:
    """Build methods from `{name: {hyperparameter: value}}`, in the order of their names.

    Raises KeyError for an unknown name and pydantic's ValidationError for a wrong hyperparameter.
    """
    return [_adapter(METHODS[name].make).validate_python(dict(parameters[name])) for name in sorted(parameters)]


@cache
def _adapter(method: Any) -> TypeAdapter[Method]:
    return TypeAdapter(method)


def method_parameters(method: Method) -> dict[str, Any]:
    """Return the hyperparameters of a method that differ from their defaults."""
    return {f.name: getattr(method, f.name) for f in fields(method) if getattr(method, f.name) != f.default}


class Objective:
    """Sum of the deepest classifiers' cross-entropy and every method's terms."""

    def __init__(self, methods: Sequence[Method], num_classes: int) -> None:
        self.methods = sorted(methods, key=lambda method: method.name)
        self.num_classes = num_classes
        self.requires = reduce(Requires.__or__, (method.requires for method in methods), Requires())
        # What changes single images comes before what mixes them.
        augmenting = (method for method in self.methods if type(method).augment is not Method.augment)
        self.augmenting = sorted(augmenting, key=lambda method: method.mixes)
        self.cross_entropy_weight = prod(method.cross_entropy_weight for method in self.methods)

    def __call__(self, networks: Sequence[Module], batch: Batch) -> tuple[dict[str, Tensor], list[Output]]:
        """Run the networks on a batch.

        Returns the loss terms by name (scalars; their sum is the loss; `cross_entropy` is the deepest
        classifiers') and one output per network.
        """
        outputs = [network(batch.inputs, heads=self.requires.heads) for network in networks]
        return self.terms(networks, outputs, batch), outputs

    def terms(self, networks: Sequence[Module], outputs: Sequence[Output], batch: Batch) -> dict[str, Tensor]:
        """Return the loss terms for outputs that were already computed."""
        targets = [over_parts(batch, partial(self._softened, index, outputs[0])) for index in range(len(outputs))]
        terms = summed(
            {"cross_entropy": cross_entropy(log_softmax(output.logits), target)}
            for output, target in zip(outputs, targets, strict=True)
        )
        if self.cross_entropy_weight != 1:
            terms["cross_entropy"] = self.cross_entropy_weight * terms["cross_entropy"]
        for method in self.methods:
            own = method.losses(networks, outputs, batch, targets)
            if not isinstance(own, dict):
                raise TypeError(
                    f"{type(method).__name__}.losses gives a {type(own).__name__}, not a dict of loss terms by name; "
                    f'return {{"{method.name}": ...}}'
                )
            terms |= own
        return terms

    def _softened(self, network: int, like: Output, batch: Batch) -> Tensor:
        """Return the targets [B, K] of one network for single images, in the precision of losses on its outputs."""
        target = one_hot(batch.labels, self.num_classes, like=like.logits)
        for method in self.methods:
            target = method.soften(target, batch, network)
        return target
