"""Grouped convolutions in every form, against PyTorch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

from tests.trainer.toy import GPU, fake_gpu, on_fake_gpu
from trainer.networks import build_network, grouped
from trainer.networks.grouped import GroupedConv2d, block_diagonal

SHAPES = [
    # input channels, output channels, groups, stride, channels of a merged group
    (16, 16, 4, 1, 8),
    (16, 16, 4, 2, 16),
    (12, 24, 6, 1, 4),
    (12, 24, 6, 2, 6),
    (12, 24, 6, 1, 12),
    (8, 8, 8, 1, 8),
]


def pair(
    inputs: int, outputs: int, groups: int, stride: int, bias: bool = False, kernel: int = 3
) -> tuple[nn.Conv2d, GroupedConv2d]:
    torch.manual_seed(0)
    arguments = {"stride": stride, "padding": kernel // 2, "groups": groups, "bias": bias, "dtype": torch.float64}
    own, merged = (kind(inputs, outputs, kernel, **arguments) for kind in (nn.Conv2d, GroupedConv2d))
    merged.load_state_dict(own.state_dict())
    return own, merged


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("inputs", "outputs", "groups", "stride", "merged"), SHAPES)
def test_merged_groups_give_the_same(
    inputs: int, outputs: int, groups: int, stride: int, merged: int, layout: torch.memory_format, bias: bool
) -> None:
    own, ours = pair(inputs, outputs, groups, stride, bias)
    ours.merged_channels = merged
    images = torch.randn(3, inputs, 9, 7, dtype=torch.float64).to(memory_format=layout)
    results = []
    for layer in (own, ours):
        given = images.clone().requires_grad_()
        output = layer(given)
        (output * torch.arange(output.numel(), dtype=torch.float64).view_as(output).sin()).sum().backward()
        results.append([output, given.grad, *(parameter.grad for parameter in layer.parameters())])
    for expected, actual in zip(*results, strict=True):
        assert actual.shape == expected.shape
        assert (actual - expected).abs().max() <= 1e-12 * expected.abs().max()


def test_the_weight_is_block_diagonal() -> None:
    weight = torch.arange(1.0, 9).view(4, 2, 1, 1)
    expected = [[1, 2, 0, 0], [3, 4, 0, 0], [0, 0, 5, 6], [0, 0, 7, 8]]
    assert block_diagonal(weight, 2, 2)[:, :, 0, 0].tolist() == expected
    assert torch.equal(block_diagonal(weight, 2, 1), weight)


def test_a_cpu_runs_them_as_they_are() -> None:
    own, merged = pair(16, 16, 4, 1)
    images = torch.randn(2, 16, 8, 8, dtype=torch.float64)
    assert torch.equal(own(images), merged(images))


@pytest.mark.parametrize("merged", [0, 2, 6, 12, 64])
def test_widths_that_do_not_fit_are_refused(merged: int) -> None:
    _, ours = pair(16, 16, 4, 1)
    ours.merged_channels = merged
    with pytest.raises(ValueError, match=f"cannot run in groups of {merged} input channels"):
        ours(torch.zeros(1, 16, 8, 8, dtype=torch.float64))


class Convolutions(torch.utils._python_dispatch.TorchDispatchMode):
    """The groups of every convolution, and the dtype that it runs in."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, torch.dtype]] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket is torch.ops.aten.convolution:
            self.seen.append((args[8], args[1].dtype))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("listed", [{}, {(16, 4): 8}, {(16, 4): 16}, {(32, 4): 32}])
def test_a_gpu_runs_them_as_the_table_says(listed: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouped, "MERGED_CHANNELS", listed)
    merged = GroupedConv2d(16, 16, 3, groups=4)
    with fake_gpu() as traffic, Convolutions() as convolutions, torch.autocast("cuda", torch.bfloat16):
        on_fake_gpu(merged)(torch.zeros(2, 16, 8, 8, device=GPU))
    groups = 4 * 4 // listed.get((16, 4), 4)
    assert convolutions.seen == [(groups, torch.bfloat16)]
    # So that a CUDA graph can hold it.
    assert (traffic.uploads, traffic.waits) == (0, 0)


@pytest.mark.parametrize("merged", [None, 8])
def test_it_compiles_into_one_graph(merged: int | None) -> None:
    _, ours = pair(16, 16, 4, 1)
    ours.merged_channels = merged
    images = torch.randn(2, 16, 8, 8, dtype=torch.float64)
    counter = CompileCounter()
    compiled = torch.compile(ours, backend=counter, fullgraph=True)
    assert torch.equal(compiled(images), ours(images))
    assert counter.frame_count == 1
    torch._dynamo.reset()


@pytest.mark.parametrize(("name", "count"), [("resnext50_32x4d", 16), ("resnext29_8x64d", 9)])
def test_resnext_is_made_of_them(name: str, count: int) -> None:
    torch.manual_seed(0)
    network = build_network(name, num_classes=10, width=8)
    layers = [layer for layer in network.modules() if isinstance(layer, GroupedConv2d)]
    assert len(layers) == count
    assert all(layer.weight.abs().sum() > 0 for layer in layers)
