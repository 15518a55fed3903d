"""ResNet and ResNeXt for small images: a 3x3 stem without pooling, then torchvision's blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, conv1x1, conv3x3

from trainer.networks.heads import attach_heads
from trainer.networks.network import Network

if TYPE_CHECKING:
    from collections.abc import Sequence

# The blocks of each network: their kind, how many a stage has, and how many groups their 3x3 convolution has.
_BLOCKS: dict[str, tuple[type[BasicBlock | Bottleneck], tuple[int, ...], int]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2), 1),
    "resnet34": (BasicBlock, (3, 4, 6, 3), 1),
    "resnet50": (Bottleneck, (3, 4, 6, 3), 1),
    "resnet101": (Bottleneck, (3, 4, 23, 3), 1),
    "resnext50_32x4d": (Bottleneck, (3, 4, 6, 3), 32),
}


def build(name: str, *, num_classes: int, width: int, stages: int, heads: str | None) -> Network:
    """Build a ResNet or ResNeXt that ends after `stages` stages (He et al., Deep residual learning; Xie et al.)."""
    block, depths, groups = _BLOCKS[name]
    # ResNeXt's groups are 4 channels wide at the published width, and never less than one.
    base_width = 64 if groups == 1 else max(4, -(-64 // width))
    network = Network(
        stem(width),
        residual_stages(block, depths[:stages], width, groups=groups, base_width=base_width),
        features=width * 2 ** (stages - 1) * block.expansion,
        num_classes=num_classes,
    )
    if heads is not None:
        channels = [width * 2**index * block.expansion for index in range(stages)]
        attach_heads(network, heads, channels, num_classes)
    return network


def stem(width: int) -> nn.Sequential:
    """A 3x3 convolution from three channels to `width` at full resolution, normalised and activated."""
    return nn.Sequential(conv3x3(3, width), nn.BatchNorm2d(width), nn.ReLU(inplace=True))


def residual_stages(
    block: type[BasicBlock | Bottleneck], depths: Sequence[int], width: int, *, groups: int = 1, base_width: int = 64
) -> list[nn.Sequential]:
    """Stages of residual blocks on an input of `width` channels; each but the first halves size, doubles channels.

    `depths` are the blocks per stage; `groups` and `base_width` are torchvision's.
    """
    stages, inputs = [], width
    for index, depth in enumerate(depths):
        planes, blocks = width * 2**index, []
        outputs = planes * block.expansion
        for position in range(depth):
            stride = 2 if index > 0 and position == 0 else 1
            shortcut = None
            if stride > 1 or inputs != outputs:
                shortcut = nn.Sequential(conv1x1(inputs, outputs, stride), nn.BatchNorm2d(outputs))
            blocks.append(block(inputs, planes, stride, shortcut, groups, base_width))
            inputs = outputs
        stages.append(nn.Sequential(*blocks))
    return stages
