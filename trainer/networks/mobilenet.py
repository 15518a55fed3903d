"""MobileNet for small images, with the auxiliary classifiers of DCM."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torchvision.ops.misc import Conv2dNormActivation

from trainer.networks.heads import Head
from trainer.networks.network import Network, initialise, scaled

if TYPE_CHECKING:
    from collections.abc import Sequence


def build(name: str, *, num_classes: int, width: int, stages: int, heads: str | None) -> Network:
    """Build MobileNet (Howard et al., MobileNets), whose size is halved twice only.

    DCM's heads repeat the rest of the network: the first with two blocks fewer, the second at twice the channels,
    so its features are twice as long as the network's own.
    """
    base, first, second, third = (scaled(channels, width) for channels in (32, 256, 512, 1024))
    opening = [scaled(channels, width) for channels in (64, 128, 128)] + [first] * 2
    blocks = [_stage(base, opening, stride=1), _stage(first, [second] * 6), _stage(second, [third] * 2)]
    network = Network(Conv2dNormActivation(3, base), blocks, features=third, num_classes=num_classes)
    if heads is not None:
        shallow = nn.Sequential(_stage(first, [second] * 4), _stage(second, [third] * 2))
        network.heads.append(initialise(Head(shallow, third, num_classes)))
        deep = _stage(second, [2 * third] * 2)
        network.heads.append(initialise(Head(deep, 2 * third, num_classes)))
    return network


def _stage(channels: int, outputs: Sequence[int], stride: int = 2) -> nn.Sequential:
    """Build depthwise-separable convolutions to each of the `outputs` channels, the first of them strided."""
    layers: list[nn.Module] = []
    for out_channels in outputs:
        layers += [
            Conv2dNormActivation(channels, channels, stride=stride, groups=channels),
            Conv2dNormActivation(channels, out_channels, kernel_size=1),
        ]
        channels, stride = out_channels, 1
    return nn.Sequential(*layers)
