"""Auxiliary heads: a small classifier on a stage's output whose features have as many channels as the deepest ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torch.nn.functional import interpolate, relu
from torchvision.models.resnet import conv1x1

from trainer.networks.network import Network, initialise, pool

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class Head(nn.Module):
    """A classifier on a stage's output: `body`, global average pooling, a linear layer.

    Args:
        body: from the stage's output [B, C, H, W] to [B, features, h, w].
        features: D, the channels that `body` gives.
        num_classes: K.
    """

    def __init__(self, body: nn.Module, features: int, num_classes: int) -> None:
        super().__init__()
        self.body = body
        self.classifier = nn.Linear(features, num_classes)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits [B, K] and the features [B, D]."""
        features = pool(self.body(hidden))
        return self.classifier(features), features


def attach_heads(network: Network, kind: str, channels: Sequence[int], num_classes: int) -> Network:
    """Attach a head of one kind, `bottleneck` or `attention`, to every stage but the last.

    `channels` are those of all the stages' outputs, shallow to deep, each twice the one before.
    """
    body = {"bottleneck": _bottleneck, "attention": _attention}[kind]
    for stage in range(1, len(channels)):
        network.heads.append(initialise(Head(body(channels, stage), channels[-1], num_classes)))
    return network


def _bottleneck(channels: Sequence[int], stage: int) -> nn.Sequential:
    """Build BYOT's head after stage 1, 2 or 3: one strided convolution between two 1x1 convolutions.

    The kernel brings any stage down to the resolution of the fourth, however many stages the network keeps.
    """
    features, inner, size = channels[-1], max(1, channels[-1] // 4), 2 ** (4 - stage)
    return nn.Sequential(
        nn.Conv2d(channels[stage - 1], inner, 1),
        nn.BatchNorm2d(inner),
        *_activated(ReLUConv2d(inner, inner, size, stride=size)),
        *_activated(nn.Conv2d(inner, features, 1)),
    )


class ReLUConv2d(nn.Conv2d):
    """A ReLU and a convolution in one module: a checkpoint numbers the modules of a head."""

    def forward(self, hidden: Tensor) -> Tensor:
        return super().forward(relu(hidden, inplace=True))


def _attention(channels: Sequence[int], stage: int) -> nn.Sequential:
    """Build an attention gate and a separable convolution per remaining stage, each halving size, doubling channels."""
    steps = (_separable(channels[depth - 1], channels[depth]) for depth in range(stage, len(channels)))
    return nn.Sequential(AttentionGate(channels[stage - 1]), *steps)


class AttentionGate(nn.Module):
    """Multiply a stage's output [B, C, H, W] by a mask between 0 and 1 that is computed from it at half resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mask = nn.Sequential(_separable(channels, channels), nn.BatchNorm2d(channels), nn.ReLU(inplace=True))

    def forward(self, hidden: Tensor) -> Tensor:
        mask = interpolate(self.mask(hidden), size=hidden.shape[2:], mode="bilinear", align_corners=False)
        return mask.sigmoid() * hidden


def _separable(channels: int, out_channels: int) -> nn.Sequential:
    """Build two depthwise-separable 3x3 convolutions; the first halves the size, the second changes the channels."""

    def depthwise(stride: int) -> nn.Conv2d:
        return nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels, bias=False)

    return nn.Sequential(
        depthwise(2),
        *_activated(conv1x1(channels, channels)),
        depthwise(1),
        *_activated(conv1x1(channels, out_channels)),
    )


def _activated(convolution: nn.Conv2d) -> tuple[nn.Module, ...]:
    return convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU(inplace=True)
