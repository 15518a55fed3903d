"""WRN-28-10, with the auxiliary classifiers of DCM."""

from __future__ import annotations

from torch import nn
from torchvision.models.resnet import conv3x3

from trainer.networks.heads import Head
from trainer.networks.network import Network, initialise, scaled
from trainer.networks.preact_resnet import preactivation_stage

_BLOCKS = 4


def build(name: str, *, num_classes: int, width: int, stages: int, heads: str | None) -> Network:
    """Build WRN-28-10 (Zagoruyko and Komodakis, Wide residual networks).

    DCM's heads repeat the rest of the network: the first the second stage and half of the third, the second the
    third stage at twice its channels, so its features are twice as long as the network's own.
    """
    first, second, third = (scaled(channels, width) for channels in (160, 320, 640))
    stem = conv3x3(3, scaled(16, width))
    blocks = [
        preactivation_stage(stem.out_channels, first, _BLOCKS, stride=1),
        preactivation_stage(first, second, _BLOCKS, stride=2),
        preactivation_stage(second, third, _BLOCKS, stride=2),
    ]
    network = Network(stem, blocks, features=third, num_classes=num_classes, final=_normalised(third))
    if heads is not None:
        shallow = nn.Sequential(
            preactivation_stage(first, second, _BLOCKS, stride=2),
            preactivation_stage(second, third, _BLOCKS // 2, stride=2),
            _normalised(third),
        )
        network.heads.append(initialise(Head(shallow, third, num_classes)))
        deep = nn.Sequential(preactivation_stage(second, 2 * third, _BLOCKS, stride=2), _normalised(2 * third))
        network.heads.append(initialise(Head(deep, 2 * third, num_classes)))
    return network


def _normalised(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
