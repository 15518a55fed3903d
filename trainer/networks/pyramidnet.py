"""PyramidNet-200 with bottleneck blocks for small images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torch.nn.functional import pad
from torchvision.models.resnet import conv1x1, conv3x3

from trainer.networks.network import Network

if TYPE_CHECKING:
    from torch import Tensor

_STEM, _ALPHA, _BLOCKS_PER_STAGE, _STAGES = 16, 240, 22, 3


def build(name: str, *, num_classes: int, width: int, stages: int, heads: str | None) -> Network:
    """Build PyramidNet-200, alpha 240 (Han et al., Deep pyramidal residual networks, eq. 3).

    Every block is a little wider than the one before; the shortcuts carry no parameters.
    """
    channels = _planes(0, width)
    stem = nn.Sequential(conv3x3(3, channels), nn.BatchNorm2d(channels))
    blocks: list[nn.Module] = []
    for stage in range(_STAGES):
        parts = []
        for position in range(_BLOCKS_PER_STAGE):
            planes = _planes(stage * _BLOCKS_PER_STAGE + position + 1, width)
            parts.append(PyramidBottleneck(channels, planes, stride=2 if stage > 0 and position == 0 else 1))
            channels = planes * PyramidBottleneck.expansion
        blocks.append(nn.Sequential(*parts))
    final = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
    return Network(stem, blocks, features=channels, num_classes=num_classes, final=final)


def _planes(blocks: int, width: int) -> int:
    """Return the inner channels after so many blocks: linear in depth, rounded to a whole number, at least 1."""
    return max(1, round((_STEM + _ALPHA * blocks / (_STAGES * _BLOCKS_PER_STAGE)) * width / 64))


class PyramidBottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions between batch norms; the shortcut is pooled and padded with zero channels."""

    expansion = 4

    def __init__(self, channels: int, planes: int, stride: int) -> None:
        super().__init__()
        outputs = planes * self.expansion
        self.residual = nn.Sequential(
            nn.BatchNorm2d(channels),
            conv1x1(channels, planes),
            nn.BatchNorm2d(planes),
            nn.ReLU(inplace=True),
            conv3x3(planes, planes, stride),
            nn.BatchNorm2d(planes),
            nn.ReLU(inplace=True),
            conv1x1(planes, outputs),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Identity() if stride == 1 else nn.AvgPool2d(stride, ceil_mode=True)
        self.new_channels = outputs - channels

    def forward(self, hidden: Tensor) -> Tensor:
        residual: Tensor = self.residual(hidden)
        return residual + pad(self.shortcut(hidden), (0, 0, 0, 0, 0, self.new_channels))
