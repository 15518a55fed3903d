"""PreAct ResNet-18 and -101 for small images, as PS-KD and CS-KD train them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torchvision.models.resnet import Bottleneck, conv3x3

from trainer.networks.network import Network
from trainer.networks.resnet import projection, residual_stages, stem

if TYPE_CHECKING:
    from torch import Tensor


def build(name: str, *, num_classes: int, width: int, stages: int, heads: str | None) -> Network:
    """Build PreAct ResNet-18 or what PS-KD calls PreAct ResNet-101.

    The published parameter counts fix what He et al. (Identity mappings) leave open: PreAct ResNet-18 normalises
    after its stem and not before the pooling. That of PreAct ResNet-101 is the ordinary ResNet-101's, and
    the released code of PS-KD does build ordinary bottlenecks, activated after the addition, under that name.
    """
    if name == "preact_resnet101":
        blocks, expansion = residual_stages(Bottleneck, (3, 4, 23, 3), width), Bottleneck.expansion
    else:
        blocks, expansion = _preactivation_stages(width), 1
    return Network(stem(width), blocks, features=8 * width * expansion, num_classes=num_classes)


def _preactivation_stages(width: int) -> list[nn.Sequential]:
    wider = [preactivation_stage(width * scale, width * scale * 2, 2, stride=2) for scale in (1, 2, 4)]
    return [preactivation_stage(width, width, 2, stride=1), *wider]


def preactivation_stage(channels: int, out_channels: int, depth: int, stride: int) -> nn.Sequential:
    """Build a stage of `depth` pre-activation blocks, the first of them strided and changing the channels."""
    first = PreActivationBlock(channels, out_channels, stride)
    return nn.Sequential(first, *(PreActivationBlock(out_channels, out_channels) for _ in range(1, depth)))


class PreActivationBlock(nn.Module):
    """Two 3x3 convolutions, each after batch norm and ReLU, beside a shortcut (He et al., Identity mappings, fig. 4e).

    Where the shape changes the shortcut is a 1x1 convolution of the activated input, elsewhere the input itself.
    """

    def __init__(self, channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.activation = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
        self.residual = nn.Sequential(
            conv3x3(channels, out_channels, stride),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            conv3x3(out_channels, out_channels),
        )
        reshapes = stride > 1 or channels != out_channels
        self.shortcut = projection(channels, out_channels, stride) if reshapes else None

    def forward(self, hidden: Tensor) -> Tensor:
        activated = self.activation(hidden)
        shortcut = hidden if self.shortcut is None else self.shortcut(activated)
        residual: Tensor = self.residual(activated)
        return residual + shortcut
