"""ResNet-152 for large images: the 7x7 stem with pooling."""

from __future__ import annotations

from torch import nn
from torchvision.models.resnet import Bottleneck

from trainer.networks.network import Network
from trainer.networks.resnet import residual_stages


def build(name: str, *, num_classes: int, width: int, stages: int, heads: str | None) -> Network:
    """Build ResNet-152 as torchvision has it, the stride on the 3x3 convolution (He et al.)."""
    stem = nn.Sequential(
        nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, padding=1),
    )
    blocks = residual_stages(Bottleneck, (3, 8, 36, 3), width)
    return Network(stem, blocks, features=8 * width * Bottleneck.expansion, num_classes=num_classes)
