"""ResNet and ResNeXt for small images: a 3x3 stem without pooling, then torchvision's blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, conv1x1, conv3x3

from trainer.networks.heads import attach_heads
from trainer.networks.network import Network

if TYPE_CHECKING:
    from collections.abc import Sequence

# The blocks of each network: their kind, how many each stage has, the groups of the 3x3 convolution and their width.
_BLOCKS: dict[str, tuple[type[BasicBlock | Bottleneck], tuple[int, ...], int, int]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2), 1, 64),
    "resnet34": (BasicBlock, (3, 4, 6, 3), 1, 64),
    "resnet50": (Bottleneck, (3, 4, 6, 3), 1, 64),
    "resnet101": (Bottleneck, (3, 4, 23, 3), 1, 64),
    "resnext50_32x4d": (Bottleneck, (3, 4, 6, 3), 32, 4),
}


def build(name: str, *, num_classes: int, width: int, stages: int, heads: str | None) -> Network:
    """Build a ResNet or ResNeXt that ends after `stages` stages.

    Sources: He et al., Deep residual learning for image recognition; Xie et al., Aggregated residual transformations.
    """
    block, depths, groups, base_width = _BLOCKS[name]
    channels = [width * 2**index * block.expansion for index in range(stages)]
    blocks = residual_stages(block, depths[:stages], width, groups=groups, base_width=base_width)
    network = Network(stem(width), blocks, features=channels[-1], num_classes=num_classes)
    return network if heads is None else attach_heads(network, heads, channels, num_classes)


def stem(width: int) -> nn.Sequential:
    """Build a 3x3 convolution from three channels to `width` at full resolution, normalised and activated."""
    return nn.Sequential(conv3x3(3, width), nn.BatchNorm2d(width), nn.ReLU(inplace=True))


def residual_stages(
    block: type[BasicBlock | Bottleneck], depths: Sequence[int], width: int, *, groups: int = 1, base_width: int = 64
) -> list[nn.Sequential]:
    """Build stages of residual blocks on `width` input channels; each but the first halves size, doubles channels.

    `depths` are the blocks per stage; `groups` and `base_width` are torchvision's: a group of the first stage has
    `base_width` channels at the published width. In narrow networks every group keeps at least one.
    """
    stages, inputs = [], width
    for index, depth in enumerate(depths):
        planes, blocks = width * 2**index, []
        outputs = planes * block.expansion
        # torchvision rounds a group's planes * base_width / 64 channels down.
        wide_enough = max(base_width, -(-64 // planes))
        for position in range(depth):
            stride = 2 if index > 0 and position == 0 else 1
            shortcut = None
            if stride > 1 or inputs != outputs:
                shortcut = nn.Sequential(projection(inputs, outputs, stride), nn.BatchNorm2d(outputs))
            blocks.append(block(inputs, planes, stride, shortcut, groups, wide_enough))
            inputs = outputs
        stages.append(nn.Sequential(*blocks))
    return stages


def projection(channels: int, out_channels: int, stride: int) -> nn.Module:
    """Build the strided 1x1 convolution of a shortcut whose shape changes."""
    if stride > 1 and channels < 16:
        # oneDNN's weight gradient of this convolution writes out of bounds where the channels do not fill a vector
        # (channels last, oneDNN issue 6035): narrow networks crashed on a CPU. The same computed in two steps.
        return nn.Sequential(nn.AvgPool2d(1, stride), conv1x1(channels, out_channels))
    convolution: nn.Module = conv1x1(channels, out_channels, stride)
    return convolution
