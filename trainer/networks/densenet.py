"""DenseNet-121 for small images: torchvision's layers behind a 3x3 stem."""

from __future__ import annotations

from torch import nn
from torchvision.models.densenet import _DenseBlock, _Transition
from torchvision.models.resnet import conv3x3

from trainer.networks.network import Network, scaled

_GROWTH = 32
_LAYERS = (6, 12, 24, 16)


def build(name: str, *, num_classes: int, width: int, stages: int, heads: str | None) -> Network:
    """Build DenseNet-121 (Huang et al., Densely connected convolutional networks), halving between its stages."""
    growth = scaled(_GROWTH, width)
    channels = 2 * growth
    stem = conv3x3(3, channels)
    blocks: list[nn.Module] = []
    for index, layers in enumerate(_LAYERS):
        block: nn.Module = _DenseBlock(layers, channels, bn_size=4, growth_rate=growth, drop_rate=0.0)
        channels += layers * growth
        if index < len(_LAYERS) - 1:
            block = nn.Sequential(block, _Transition(channels, channels // 2))
            channels //= 2
        blocks.append(block)
    final = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
    return Network(stem, blocks, features=channels, num_classes=num_classes, final=final)
