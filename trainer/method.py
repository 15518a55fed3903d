"""Define the interface of a method: its slots, requirements, and the tensors it works on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from pydantic import ConfigDict

from trainer.parts import register_method

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor
    from torch.nn import Module


class Batch(NamedTuple):
    """One step's images: `inputs` [B, 3, H, W], `labels` [B], `indices` [B] into the training set.

    `pair_inputs` [B, 3, H, W] holds another image of the same class for each, where a method asks for it. Where several
    processes train together, these are one's part of a batch of `whole` images.
    """

    inputs: Tensor
    labels: Tensor
    indices: Tensor
    pair_inputs: Tensor | None = None
    whole: int | None = None

    @property
    def images(self) -> int:
        """Return the number of images of the whole batch."""
        return len(self.labels) if self.whole is None else self.whole


class Output(NamedTuple):
    """Outputs of a network: `logits` [B, K] and `features` [B, D], then those of its heads, shallow to deep."""

    logits: Tensor
    features: Tensor
    head_logits: tuple[Tensor, ...] = ()
    head_features: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Requires:
    """Requirements of a method; those of several methods are merged with `|`.

    `networks` trained side by side; auxiliary `heads`; `features` of the network, and with
    heads such as are as long as the network's own; `class_pairs` (a second image of the same class per image); a
    `teacher` (the same network, trained beforehand without any method).
    """

    networks: int = 1
    heads: bool = False
    features: bool = False
    class_pairs: bool = False
    teacher: bool = False

    def __or__(self, other: Requires) -> Requires:
        return Requires(
            max(self.networks, other.networks),
            self.heads or other.heads,
            self.features or other.features,
            self.class_pairs or other.class_pairs,
            self.teacher or other.teacher,
        )


@dataclass
class Method:
    """A way to train, as a dataclass of hyperparameters. Subclasses name themselves and register.

    A new `version` says that the same hyperparameters now train otherwise: trials with it are new ones.

    State other than hyperparameters is created in `setup` and travels through `state_dict`.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    version: ClassVar[int] = 1
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=False)

    def __init_subclass__(cls) -> None:
        register_method(cls)

    @property
    def requires(self) -> Requires:
        """Return the method's requirements, by its hyperparameters."""
        return Requires()

    @property
    def cross_entropy_weight(self) -> float:
        """Return the factor on the deepest classifier's cross-entropy."""
        return 1.0

    def resolve(self, num_heads: int) -> Method:
        """Return this method for `num_heads` heads, with defaults that depend on them filled in one canonical way.

        Raises ValueError when a hyperparameter does not fit.
        """
        return self

    def setup(self, labels: Tensor, num_classes: int, networks: int, teacher: Module | None = None) -> None:
        """Create the state before the first epoch; `labels` [N] are those of the training set, on the device."""

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Prepare an epoch (0-based) of `epochs`."""

    def soften(self, targets: Tensor, batch: Batch, network: int) -> Tensor:
        """Replace the targets [B, K] of one network."""
        return targets

    def losses(
        self, networks: Sequence[Module], outputs: Sequence[Output], batch: Batch, targets: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """Return loss terms to add, by name; scalars, summed over the networks."""
        return {}

    def after_step(self, outputs: Sequence[Output], batch: Batch) -> None:
        """Update the state after the parameters, with the outputs from before their update."""

    def state_dict(self) -> dict[str, Any]:
        """Return state that a checkpoint must hold."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave; called after `setup`."""


def summed(terms: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Add up the loss terms of several networks by name."""
    return reduce(lambda total, more: {name: total[name] + more[name] for name in total}, terms)


def predict(network: Module, inputs: Tensor) -> Tensor:
    """Return the deepest classifier's logits [B, K], in the network's present mode, without gradient."""
    import torch

    with torch.no_grad():
        logits: Tensor = network(inputs, heads=False).logits
        return logits


def of_whole_batch(values: Tensor, batch: Batch) -> Tensor:
    """All-gather the rows of the global batch from this rank's shard [B, ...]."""
    if batch.whole is None:
        return values
    from trainer.distributed import all_gather

    return all_gather(values, batch.whole)
