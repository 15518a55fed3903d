"""ResNeXt-29 8x64d for small images."""

from __future__ import annotations

from torchvision.models.resnet import Bottleneck

from trainer.networks.network import Network
from trainer.networks.resnet import residual_stages, stem


def build(name: str, *, num_classes: int, width: int, stages: int, heads: str | None) -> Network:
    """Build ResNeXt-29: three stages of three blocks with 8 groups of 64 channels (Xie et al., section 5.3)."""
    blocks = residual_stages(Bottleneck, (3, 3, 3), width, groups=8)
    return Network(stem(width), blocks, features=4 * width * Bottleneck.expansion, num_classes=num_classes)
