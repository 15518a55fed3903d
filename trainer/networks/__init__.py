"""The networks by name. The catalogue can be read without torch; `build_network` imports what it needs."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainer.networks.network import Network


@dataclass(frozen=True)
class NetworkSpec:
    """Limits of a network's configuration.

    `heads` lists the kinds of auxiliary heads it can carry, its own kind first; `stages` is its number of backbone
    stages; `min_stages` the least number that it can be cut down to. Methods that compare the features of heads with
    the network's own work with `comparable_heads` alone.
    """

    module: str
    title: str
    heads: tuple[str, ...] = ()
    stages: int = 4
    min_stages: int = 2

    @property
    def comparable_heads(self) -> tuple[str, ...]:
        """Return the kinds of heads whose features are as long as the network's own."""
        # DCM's second head gives features twice as long: its published parameter count demands it.
        return tuple(kind for kind in self.heads if kind != "dcm")


_RESNET, _RESNEXT = ("bottleneck", "attention"), ("attention", "bottleneck")

NETWORKS: dict[str, NetworkSpec] = {
    "resnet18": NetworkSpec("resnet", "ResNet-18", _RESNET),
    "resnet34": NetworkSpec("resnet", "ResNet-34", _RESNET),
    "resnet50": NetworkSpec("resnet", "ResNet-50", _RESNET),
    "resnet101": NetworkSpec("resnet", "ResNet-101", _RESNET),
    "resnext50_32x4d": NetworkSpec("resnet", "ResNeXt-50", _RESNEXT),
    "preact_resnet18": NetworkSpec("preact_resnet", "PreAct ResNet-18", min_stages=4),
    "preact_resnet101": NetworkSpec("preact_resnet", "PreAct ResNet-101", min_stages=4),
    "densenet121": NetworkSpec("densenet", "DenseNet-121", min_stages=4),
    "resnext29_8x64d": NetworkSpec("resnext29", "ResNeXt-29", stages=3, min_stages=3),
    "pyramidnet200": NetworkSpec("pyramidnet", "PyramidNet-200", stages=3, min_stages=3),
    "wrn28_10": NetworkSpec("wide_resnet", "WRN-28-10", ("dcm",), stages=3, min_stages=3),
    "mobilenet": NetworkSpec("mobilenet", "MobileNet", ("dcm",), stages=3, min_stages=3),
    "imagenet_resnet152": NetworkSpec("imagenet", "ResNet-152", min_stages=4),
}


def head_count(name: str, stages: int, heads: str | None) -> int:
    """Return the number of auxiliary heads of a network of `stages` stages: one on each stage but the last."""
    return stages - 1 if heads else 0


def build_network(
    name: str, *, num_classes: int, width: int = 64, stages: int | None = None, heads: str | None = None
) -> Network:
    """Build one network with freshly initialised weights.

    Args:
        name: a key of `NETWORKS`.
        num_classes: K, the outputs of every classifier.
        width: 64 is the published network; any other value scales every channel count by width / 64.
        stages: backbone stages kept, None for all.
        heads: None or a kind that `NETWORKS[name].heads` lists.

    Raises:
        KeyError: the name is not in the catalogue.
        ValueError: the network cannot carry these heads or be cut to these stages.
    """
    spec = NETWORKS[name]
    stages = spec.stages if stages is None else stages
    if heads is not None and heads not in spec.heads:
        raise ValueError(f"{name} has no {heads} heads; it can carry: {', '.join(spec.heads) or 'none'}")
    if not spec.min_stages <= stages <= spec.stages:
        allowed = f"{spec.min_stages} to {spec.stages}" if spec.min_stages < spec.stages else f"only {spec.stages}"
        raise ValueError(f"{name} has {allowed} stages, not {stages}")
    module = import_module(f"trainer.networks.{spec.module}")
    network: Network = module.build(name, num_classes=num_classes, width=width, stages=stages, heads=heads)
    return network
