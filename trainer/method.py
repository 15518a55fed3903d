"""Define the interface of a method: its slots, requirements, and the tensors it works on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from pydantic import ConfigDict

from trainer.parts import METHODS, register_class

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from random import Random

    from torch import Generator, Tensor
    from torch.nn import Module


class Part(NamedTuple):
    """One image of each mixed input: its `labels` [B] and `indices` [B]; its target counts with `weights` [B]."""

    labels: Tensor
    indices: Tensor
    weights: Tensor


class Batch(NamedTuple):
    """One step's images: `inputs` [B, 3, H, W], `labels` [B], `indices` [B] into the training set.

    `pair_inputs` [B, 3, H, W] holds another image of the same class for each, where a method asks for it. Where several
    processes train together, these are one's part of a batch of `whole` images.

    Where a method mixed images, `parts` are the images of each input (their weights add up to 1), `labels` and
    `indices` are those of the first part, and `unmixed` [B, 3, H, W] holds the images of the first part alone.
    """

    inputs: Tensor
    labels: Tensor
    indices: Tensor
    pair_inputs: Tensor | None = None
    whole: int | None = None
    parts: tuple[Part, ...] = ()
    unmixed: Tensor | None = None

    @property
    def images(self) -> int:
        """Return the number of images of the whole batch."""
        return len(self.labels) if self.whole is None else self.whole

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """Return the batch with every tensor, whose first dimension is that of the images, replaced."""
        pair_inputs, unmixed = (
            value if value is None else function(value) for value in (self.pair_inputs, self.unmixed)
        )
        parts = tuple(Part(*map(function, part)) for part in self.parts)
        inputs, labels, indices = map(function, (self.inputs, self.labels, self.indices))
        return Batch(inputs, labels, indices, pair_inputs, self.whole, parts, unmixed)

    def tensors(self) -> list[Tensor]:
        """Return all tensors, in one order."""
        optional = [value for value in (self.pair_inputs, self.unmixed) if value is not None]
        return [self.inputs, self.labels, self.indices, *optional, *(values for part in self.parts for values in part)]

    def mixed(self, other: Batch, share: float | Tensor, blend: Callable[[Tensor, Tensor], Tensor]) -> Batch:
        """Return this batch with each input blended with that of another one, and the targets mixed in the same way.

        `other` is a batch of as many images, such as `batch.map(lambda values: values.roll(1, 0))`. This batch's
        targets count with `share`, a number or [B], and the other's with the rest. `blend(own, other)` makes inputs
        [B, 3, H, W] of two; pairs are blended alike, so that each stays an image of the same classes as its input.
        """
        pair_inputs = self.pair_inputs
        if pair_inputs is not None and other.pair_inputs is not None:
            pair_inputs = blend(pair_inputs, other.pair_inputs)
        own = [part._replace(weights=part.weights * share) for part in self._parts()]
        rest = [part._replace(weights=part.weights * (1 - share)) for part in other._parts()]
        return self._replace(
            inputs=blend(self.inputs, other.inputs),
            pair_inputs=pair_inputs,
            parts=(*own, *rest),
            unmixed=self.inputs if self.unmixed is None else self.unmixed,
        )

    def _parts(self) -> tuple[Part, ...]:
        return self.parts or (Part(self.labels, self.indices, self.inputs.new_ones(len(self.labels))),)


class Output(NamedTuple):
    """Outputs of a network: `logits` [B, K] and `features` [B, D], then those of its heads, shallow to deep."""

    logits: Tensor
    features: Tensor
    head_logits: tuple[Tensor, ...] = ()
    head_features: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Requires:
    """Requirements of a method; those of several methods are merged with `|`.

    `networks` trained side by side; auxiliary `heads`; `features` of the network, and with heads such as are as long as
    the network's own; `class_pairs` (a second image of the same class per image); a `teacher` (the same network,
    trained beforehand without any method); `single_images`: inputs of one image, so that no other method may mix them.
    """

    networks: int = 1
    heads: bool = False
    features: bool = False
    class_pairs: bool = False
    teacher: bool = False
    single_images: bool = False

    def __or__(self, other: Requires) -> Requires:
        return Requires(
            max(self.networks, other.networks),
            self.heads or other.heads,
            self.features or other.features,
            self.class_pairs or other.class_pairs,
            self.teacher or other.teacher,
            self.single_images or other.single_images,
        )


@dataclass
class Method:
    """A way to train, as a dataclass of hyperparameters. Subclasses name themselves and register.

    A new `version` says that the same hyperparameters now train otherwise: trials with it are new ones.

    State other than hyperparameters is created in `setup` and travels through `state_dict`.
    `mixes` says that `augment` makes inputs of several images.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    version: ClassVar[int] = 1
    mixes: ClassVar[bool] = False
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=False)

    def __init_subclass__(cls) -> None:
        register_class(METHODS, cls)

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

    def augment(self, batch: Batch, generator: Generator) -> Batch:
        """Change inputs, and targets with them, before the networks see a batch.

        `generator` is this method's own stream of the epoch, on the CPU, and the only source of random numbers: then
        a resumed training sees the same inputs. Where several processes train together, all of them change the whole
        batch and go on with their part. This is never recorded, so that numbers may be drawn, and decided by, on the
        host. Methods that mix images come last; see `Batch.mixed`.
        """
        return batch

    def soften(self, targets: Tensor, batch: Batch, network: int) -> Tensor:
        """Replace the targets [B, K] of one network.

        Where inputs are mixed, this is called for each part, with its labels and indices, and the targets are mixed
        afterwards.
        """
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


def over_parts(batch: Batch, function: Callable[[Batch], Tensor]) -> Tensor:
    """Return values [B, K] of the labels and indices of a batch; of a mixed one, the weighted mean over its parts."""
    if not batch.parts:
        return function(batch)
    values = [
        part.weights[:, None] * function(batch._replace(labels=part.labels, indices=part.indices, parts=()))
        for part in batch.parts
    ]
    return reduce(lambda total, more: total + more, values)


def host_random(generator: Generator) -> Random:
    """Return a source of numbers for the host, which starts from one number of a generator on the CPU."""
    from random import Random

    import torch

    return Random(torch.randint(2**62, (1,), generator=generator).tolist()[0])


def random_integers(limit: int, like: Tensor, generator: Generator) -> Tensor:
    """Return an integer from 0 to `limit` - 1 for each row of a tensor, on its device, which is not waited for."""
    import torch

    from trainer.device import upload

    return upload(torch.randint(limit, (len(like),), generator=generator), like.device)


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
