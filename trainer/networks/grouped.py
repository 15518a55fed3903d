"""Grouped convolutions in the form that a device runs fastest, with the same parameters and results in every form."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

# How wide merged groups are on a GPU, by (input channels, groups). What is not listed runs as cuDNN's own grouped
# convolution: nothing was measured yet that would choose otherwise.
MERGED_CHANNELS: dict[tuple[int, int], int] = {}


class GroupedConv2d(nn.Conv2d):
    """A grouped convolution that can also run with fewer, wider groups.

    Neighbouring groups are merged into one by a block-diagonal weight, whose zeros are multiplied for nothing but may
    suit a GPU better than many narrow groups. `merged_channels` says how many input channels a merged group has: None
    as `MERGED_CHANNELS` says on a GPU and native on a CPU, the layer's own for native, all `in_channels` for a dense
    convolution. The results are equal up to the order of sums.
    """

    merged_channels: int | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        """Convolve inputs [B, C, H, W]. Raises ValueError when the groups cannot be merged to that width."""
        merged = self._merged(inputs.device.type)
        if merged == 1:
            return super().forward(inputs)
        weight = self.weight
        if torch.is_autocast_enabled(inputs.device.type):
            # Before it grows: autocast would cast all the zeros as well.
            weight = weight.to(torch.get_autocast_dtype(inputs.device.type))
        weight, groups = block_diagonal(weight, self.groups, merged), self.groups // merged
        return conv2d(inputs, weight, self.bias, self.stride, self.padding, self.dilation, groups)

    def _merged(self, device: str) -> int:
        """Return the number of groups that are merged into one."""
        own = self.in_channels // self.groups
        channels = self.merged_channels
        if channels is None:
            channels = own if device == "cpu" else MERGED_CHANNELS.get((self.in_channels, self.groups), own)
        merged, rest = divmod(channels, own)
        if rest or not merged or self.groups % merged or self.padding_mode != "zeros":
            raise ValueError(f"{self} cannot run in groups of {channels} input channels")
        return merged


def block_diagonal(weight: Tensor, groups: int, merged: int) -> Tensor:
    """Return the weight of the same convolution with every `merged` neighbouring groups as one.

    From [O, I / groups, h, w] to [O, merged * I / groups, h, w], with zeros between the channels of different groups.
    """
    blocks = weight.unflatten(0, (groups // merged, merged, -1)).movedim(1, -1)
    # [merged groups, group of the output, its channels, group of the input, its channels, h, w]
    wide = torch.diag_embed(blocks, dim1=1, dim2=3)
    return wide.flatten(3, 4).flatten(0, 2)
