"""The networks by name. The catalogue can be read without torch; `build_network` imports what it needs."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.networks.library import library_network
from trainer.parts import NETWORKS, NetworkFacts
from trainer.registry import Part, PartError

if TYPE_CHECKING:
    from torch import nn

    from trainer.networks.network import Network


_RESNET, _RESNEXT = ("bottleneck", "attention"), ("attention", "bottleneck")


def _register(
    file: str, name: str, title: str, heads: tuple[str, ...] = (), stages: int = 4, min_stages: int | None = None
) -> None:
    """Register a network of this folder; its file is imported when it is built."""

    def build(num_classes: int, width: int, stages: int, heads: str | None) -> Network:
        built: Network = import_module(f"trainer.networks.{file}").build(
            name, num_classes=num_classes, width=width, stages=stages, heads=heads
        )
        return built

    facts = NetworkFacts(
        heads=heads,
        # DCM's second head gives features twice as long: its published parameter count demands it.
        comparable_heads=tuple(kind for kind in heads if kind != "dcm"),
        stages=stages,
        min_stages=stages if min_stages is None else min_stages,
        features=True,
    )
    place = Path(__file__).with_name(f"{file}.py")
    NETWORKS.add(Part(kind="network", name=name, title=title, version=1, facts=facts, make=build, file=place))


_register("resnet", "resnet18", "ResNet-18", _RESNET, min_stages=2)
_register("resnet", "resnet34", "ResNet-34", _RESNET, min_stages=2)
_register("resnet", "resnet50", "ResNet-50", _RESNET, min_stages=2)
_register("resnet", "resnet101", "ResNet-101", _RESNET, min_stages=2)
_register("resnet", "resnext50_32x4d", "ResNeXt-50", _RESNEXT, min_stages=2)
_register("preact_resnet", "preact_resnet18", "PreAct ResNet-18")
_register("preact_resnet", "preact_resnet101", "PreAct ResNet-101")
_register("densenet", "densenet121", "DenseNet-121")
_register("resnext29", "resnext29_8x64d", "ResNeXt-29", stages=3)
_register("pyramidnet", "pyramidnet200", "PyramidNet-200", stages=3)
_register("wide_resnet", "wrn28_10", "WRN-28-10", ("dcm",), stages=3)
_register("mobilenet", "mobilenet", "MobileNet", ("dcm",), stages=3)
_register("imagenet", "imagenet_resnet152", "ResNet-152")


NETWORKS.further = library_network


def head_count(stages: int, heads: str | None) -> int:
    """Return the number of auxiliary heads of a network of `stages` stages: one on each stage but the last."""
    return stages - 1 if heads else 0


def build_network(
    name: str, *, num_classes: int, width: int = 64, stages: int | None = None, heads: str | None = None
) -> nn.Module:
    """Build one network with freshly initialised weights.

    Args:
        name: a key of `NETWORKS`.
        num_classes: K, the outputs of every classifier.
        width: 64 is the published network; any other value scales every channel count by width / 64.
        stages: backbone stages kept, None for all.
        heads: None or a kind that `NETWORKS[name].facts.heads` lists.

    Raises:
        KeyError: the name is not in the catalogue.
        PartError: what was registered under the name builds no module.
        ValueError: the network cannot carry these heads or be cut to these stages.
    """
    spec = NETWORKS[name].facts
    stages = spec.stages if stages is None else stages
    if heads is not None and heads not in spec.heads:
        raise ValueError(f"{name} has no {heads} heads; it can carry: {', '.join(spec.heads) or 'none'}")
    if not spec.min_stages <= stages <= spec.stages:
        allowed = f"{spec.min_stages} to {spec.stages}" if spec.min_stages < spec.stages else f"only {spec.stages}"
        raise ValueError(f"{name} has {allowed} stages, not {stages}")
    arguments = {"width": width, "stages": stages, "heads": heads}
    taken = {argument: value for argument, value in arguments.items() if argument in spec.takes}
    built = NETWORKS[name].make(num_classes=num_classes, **taken)
    from torch import nn

    from trainer.networks.network import Network

    if isinstance(built, Network):
        return built
    if not isinstance(built, nn.Module):
        raise PartError(f"{NETWORKS[name].source}: the network {name} is a {type(built).__name__}, not a torch module")
    from trainer.networks.adapted import Adapted

    count = head_count(stages, heads)
    return Adapted(built, name, num_classes=num_classes, heads=count, features=spec.features)
