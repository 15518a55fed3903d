import itertools
import subprocess
import sys

import pytest
import torch
import torchvision
from torch import nn
from torch.nn.functional import interpolate
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from trainer.networks import build_network, head_count
from trainer.networks.heads import AttentionGate
from trainer.networks.network import pool
from trainer.networks.preact_resnet import PreActivationBlock
from trainer.networks.pyramidnet import PyramidBottleneck
from trainer.parts import NETWORKS

# name, heads, stages, parameters, forward GFLOPs (2 x MAC) where published. The ResNet-18 figures of fewer stages
# come from released code that has one more head (3 MFLOPs), within the tolerance of half a percent.
PUBLISHED = [
    ("resnet18", "bottleneck", 4, 13_011_152, 1.191),
    ("resnet18", None, 4, 11_220_132, None),
    ("resnet18", "bottleneck", 3, 3_227_244, 0.870),
    ("resnet18", None, 3, 2_800_804, None),
    ("resnet18", "bottleneck", 2, 773_448, 0.583),
    ("resnet18", None, 2, 688_292, None),
    ("resnet50", "bottleneck", 4, 50_430_928, 3.872),
    ("resnet50", None, 4, 23_705_252, None),
    ("resnext50_32x4d", "attention", 4, 37_898_448, 3.505),
    ("resnext50_32x4d", None, 4, 23_177_124, None),
    ("preact_resnet18", None, 4, 11_217_444, 1.111),
    ("preact_resnet101", None, 4, 42_697_380, 5.020),
    ("densenet121", None, 4, 7_048_548, 1.777),
    ("resnext29_8x64d", None, 3, 34_518_948, 10.775),
    ("pyramidnet200", None, 3, 26_844_952, 9.039),
    ("imagenet_resnet152", None, 4, 60_192_808, 23.027),
    ("wrn28_10", None, 3, 36_536_884, None),
    ("wrn28_10", "dcm", 3, 164_146_364, None),
    ("mobilenet", None, 3, 3_309_476, None),
    ("mobilenet", "dcm", 3, 11_431_276, None),
]
IMAGENET = "imagenet_resnet152"
EVERY_KIND = [(name, heads) for name, part in NETWORKS.items() for heads in (None, *part.facts.heads)]
WITH_HEADS = [(name, heads) for name, heads in EVERY_KIND if heads]
FAMILIES = [
    (name, heads) for name in ("resnet18", "resnet50", "resnext50_32x4d") for heads in ("bottleneck", "attention")
]
REPRESENTATIVE = [*FAMILIES, ("wrn28_10", "dcm"), ("mobilenet", "dcm")]


pytestmark = pytest.mark.usefixtures("one_thread")


def build(name, *, num_classes=5, width=8, seed=0, **options):
    torch.manual_seed(seed)
    return build_network(name, num_classes=num_classes, width=width, **options)


def published(name, heads, stages):
    with torch.device("meta"):
        return build_network(name, num_classes=1000 if name == IMAGENET else 100, stages=stages, heads=heads)


def images(count=2, size=32):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def everything(output):
    return [output.logits, output.features, *output.head_logits, *output.head_features]


@pytest.mark.parametrize(("name", "heads", "stages", "parameters", "gigaflops"), PUBLISHED)
def test_published_parameters_and_operations(name, heads, stages, parameters, gigaflops):
    network = published(name, heads, stages).eval()
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    if gigaflops is not None:
        size = 224 if name == IMAGENET else 32
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.empty(1, 3, size, size, device="meta"))
        assert counter.get_total_flops() / 1e9 == pytest.approx(gigaflops, rel=5e-3)


def torchvision_with_small_stem(name):
    """torchvision's network with the stem for small images in place of its own."""
    reference = torchvision.models.get_model(name, num_classes=100)
    if name == "densenet121":
        reference.features.conv0 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        reference.features.norm0 = reference.features.relu0 = reference.features.pool0 = nn.Identity()
    else:
        reference.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        reference.maxpool = nn.Identity()
    return reference


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d", "densenet121"])
def test_trunk_computes_what_torchvision_computes(name):
    reference = torchvision_with_small_stem(name).eval()
    network = build_network(name, num_classes=100).eval()
    assert len(network.state_dict()) == len(reference.state_dict())
    network.load_state_dict(dict(zip(network.state_dict(), reference.state_dict().values(), strict=True)))
    inputs = images(1)
    with torch.no_grad():
        torch.testing.assert_close(network(inputs).logits, reference(inputs))


def test_imagenet_network_is_torchvisions():
    with torch.device("meta"):
        reference = torchvision.models.resnet152()
    network = published(IMAGENET, None, 4)
    ours, theirs = ([value.shape for value in each.state_dict().values()] for each in (network, reference))
    assert ours == theirs
    assert isinstance(network.stem[-1], nn.MaxPool2d)


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("stages", [2, 3, 4])
@pytest.mark.parametrize(("name", "heads"), FAMILIES)
def test_output_shapes(name, heads, stages, size):
    with torch.device("meta"):
        network = build(name, stages=stages, heads=heads).eval()
        output = network(torch.empty(2, 3, size, size))
    deepest = 8 * 2 ** (stages - 1) * (1 if name == "resnet18" else 4)
    assert output.logits.shape == (2, 5)
    assert output.features.shape == (2, deepest)
    assert [tuple(logits.shape) for logits in output.head_logits] == [(2, 5)] * (stages - 1)
    assert [tuple(features.shape) for features in output.head_features] == [(2, deepest)] * (stages - 1)


@pytest.mark.parametrize(("name", "heads"), REPRESENTATIVE)
def test_heads_reach_the_resolution_of_the_deepest_stage(name, heads):
    network = build(name, heads=heads).eval()
    sizes = []
    for part in (*(head.body for head in network.heads), network.stages[-1]):
        part.register_forward_hook(lambda module, arguments, maps: sizes.append(maps.shape[2:]))
    with torch.no_grad():
        network(images())
    assert len(set(sizes)) == 1


@pytest.mark.parametrize(
    ("name", "heads", "size"),
    [(name, heads, 64 if name == IMAGENET else 32) for name, heads in EVERY_KIND]
    + [("resnet18", "attention", 64), ("resnet18", "bottleneck", 64)],
)
def test_every_parameter_trains_in_one_step(name, heads, size):
    network = build(name, heads=heads).to(memory_format=torch.channels_last)
    inputs = images(2, size).contiguous(memory_format=torch.channels_last)
    output = network(inputs)
    assert len(output.head_logits) == len(output.head_features) == head_count(NETWORKS[name].facts.stages, heads)
    # Squares, because a batch norm that is not followed by an activation leaves a sum constant.
    loss = sum(value.square().sum() for value in everything(output))
    loss.backward()
    before = {key: value.detach().clone() for key, value in network.named_parameters()}
    torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True).step()
    for key, parameter in network.named_parameters():
        assert parameter.grad.isfinite().all(), key
        # A bias before a batch norm has no influence.
        if parameter.ndim > 1:
            assert not torch.equal(parameter, before[key]), key
    with torch.no_grad():
        assert all(value.isfinite().all() for value in everything(network(inputs)))


@pytest.mark.parametrize(("name", "heads"), WITH_HEADS)
def test_trunk_starts_equal_with_and_without_heads(name, heads):
    bare, full = build(name).state_dict(), build(name, heads=heads).state_dict()
    assert not any(key.startswith("heads.") for key in bare)
    assert {key for key in full if not key.startswith("heads.")} == bare.keys()
    for key, value in bare.items():
        assert torch.equal(value, full[key]), key


@pytest.mark.parametrize(("name", "heads"), [("resnet18", "bottleneck"), ("mobilenet", "dcm")])
def test_weights_are_a_function_of_the_seed(name, heads):
    first, again, other = (build(name, heads=heads, seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[key], again[key]) for key in first)
    drawn = [key for key in first if first[key].ndim > 1]
    assert not any(torch.equal(first[key], other[key]) for key in drawn)


def test_initial_weights_follow_the_recipe():
    network = build("resnet18", width=64, stages=2, heads="attention")
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 20_000:
            fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1]
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.03)
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()
        if isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            assert 0.9 * bound < module.weight.abs().max().item() <= bound


@pytest.mark.parametrize(("name", "heads"), REPRESENTATIVE)
def test_heads_can_be_left_out_of_a_pass(name, heads):
    network = build(name, heads=heads).eval()
    inputs = images()
    with torch.no_grad():
        full = network(inputs)
        for head in network.heads:
            head.forward = None
        bare = network(inputs, heads=False)
    assert torch.equal(bare.logits, full.logits)
    assert torch.equal(bare.features, full.features)
    assert bare.head_logits == bare.head_features == ()


@pytest.mark.parametrize(("name", "heads"), REPRESENTATIVE)
def test_comparable_heads_have_features_of_the_deepest_size(name, heads):
    network = build(name, heads=heads).eval()
    with torch.no_grad():
        output = network(images())
    equal = all(features.shape == output.features.shape for features in output.head_features)
    assert equal == (heads in NETWORKS[name].facts.comparable_heads)


def test_first_kind_of_heads_is_the_networks_own():
    assert NETWORKS["resnet50"].facts.heads[0] == "bottleneck"
    assert NETWORKS["resnext50_32x4d"].facts.heads[0] == "attention"
    assert NETWORKS["wrn28_10"].facts.heads == NETWORKS["mobilenet"].facts.heads == ("dcm",)


@pytest.mark.parametrize(("name", "heads"), EVERY_KIND)
def test_any_width_builds_and_scales(name, heads):
    with torch.device("meta"):
        networks = [build_network(name, num_classes=5, width=width, heads=heads) for width in (1, 5, 12)]
        size = 64 if name == IMAGENET else 32
        assert networks[0].eval()(torch.empty(1, 3, size, size)).logits.shape == (1, 5)
    counts = [sum(parameter.numel() for parameter in network.parameters()) for network in networks]
    assert counts == sorted(set(counts))


@pytest.mark.parametrize("width", [1, 5, 8, 12, 32, 64])
def test_groups_of_resnext_scale_and_never_vanish(width):
    with torch.device("meta"):
        network = build_network("resnext50_32x4d", num_classes=5, width=width)
    inner = [stage[0].conv2.out_channels for stage in network.stages]
    assert inner == [32 * max(1, 4 * width * 2**index // 64) for index in range(4)]


def test_bottleneck_networks_put_the_stride_on_the_3x3_convolution():
    with torch.device("meta"):
        network = build_network("resnet50", num_classes=5)
    first = network.stages[1][0]
    assert (first.conv1.stride, first.conv2.stride, first.conv3.stride) == ((1, 1), (2, 2), (1, 1))


def test_bottleneck_head_convolutions_have_biases_and_attention_heads_none():
    bottleneck, attention = (build("resnet18", heads=heads).heads for heads in ("bottleneck", "attention"))
    assert all(module.bias is not None for module in bottleneck.modules() if isinstance(module, nn.Conv2d))
    assert all(module.bias is None for module in attention.modules() if isinstance(module, nn.Conv2d))


@pytest.mark.parametrize("size", [7, 8])
def test_attention_gate_is_a_bounded_mask(size):
    torch.manual_seed(0)
    gate, hidden = AttentionGate(6).eval(), torch.randn(2, 6, size, size)
    with torch.no_grad():
        gated, mask = gate(hidden), gate.mask(hidden)
    assert mask.shape[2:] == (4, 4)
    expected = torch.sigmoid(interpolate(mask, size=(size, size), mode="bilinear", align_corners=False)) * hidden
    torch.testing.assert_close(gated, expected)
    if size == 8:
        doubled = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)(mask)
        torch.testing.assert_close(gated, torch.sigmoid(doubled) * hidden)


def test_preactivation_shortcuts():
    hidden = torch.randn(2, 4, 6, 6)
    same = PreActivationBlock(4, 4)
    nn.init.zeros_(same.residual[-1].weight)
    torch.testing.assert_close(same(hidden), hidden)


@pytest.mark.parametrize("channels", [4, 16])
@pytest.mark.parametrize("size", [5, 6])
def test_projections_subsample_the_activated_input(channels, size):
    hidden = torch.randn(2, channels, size, size)
    block = PreActivationBlock(channels, 6, stride=2)
    nn.init.zeros_(block.residual[-1].weight)
    (weight,) = block.shortcut.parameters()
    activated = nn.BatchNorm2d(channels)(hidden).relu()
    expected = torch.einsum("oc,bchw->bohw", weight[:, :, 0, 0], activated[:, :, ::2, ::2])
    torch.testing.assert_close(block(hidden), expected)


def test_pyramid_shortcuts_pool_and_pad():
    hidden = torch.randn(2, 5, 6, 6)
    for stride in (1, 2):
        block = PyramidBottleneck(5, 2, stride)
        nn.init.zeros_(block.residual[-1].weight)
        output = block(hidden)
        pooled = hidden.unflatten(3, (6 // stride, stride)).unflatten(2, (6 // stride, stride)).mean((3, 5))
        torch.testing.assert_close(output[:, :5], pooled)
        assert not output[:, 5:].any()


def test_pyramid_widens_linearly_to_its_published_end():
    network = published("pyramidnet200", None, 3)
    planes = [block.residual[1].out_channels for stage in network.stages for block in stage]
    assert len(planes) == 66
    assert planes[-1] == 16 + 240
    assert all(narrow + 3 <= wide <= narrow + 4 for narrow, wide in itertools.pairwise(planes))


@pytest.mark.parametrize(("name", "heads"), [("resnext50_32x4d", "attention"), ("wrn28_10", "dcm")])
def test_reduced_precision_keeps_memory_format(name, heads):
    network = build(name, width=4, heads=heads).to(memory_format=torch.channels_last)
    layouts = []
    for stage in network.stages:
        stage.register_forward_hook(
            lambda module, arguments, maps: layouts.append(maps.is_contiguous(memory_format=torch.channels_last))
        )
    with torch.autocast("cpu", torch.bfloat16):
        output = network(images().contiguous(memory_format=torch.channels_last))
    assert all(layouts)
    assert output.logits.dtype == torch.bfloat16
    sum(value.float().sum() for value in everything(output)).backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


def test_double_precision():
    network = build("resnet18", heads="attention").double()
    assert all(value.dtype == torch.float64 for value in everything(network(images().double())))


@pytest.mark.parametrize("heads", [True, False])
def test_compiles_as_one_graph(heads):
    network = build("resnet18", width=2, stages=2, heads="attention").eval()
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    inputs = images()
    with torch.no_grad():
        torch.testing.assert_close(compiled(inputs, heads=heads), network(inputs, heads=heads))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnet18", "heads": "dcm"}, "resnet18 has no dcm heads; it can carry: bottleneck, attention"),
        ({"name": "densenet121", "heads": "attention"}, "densenet121 has no attention heads; it can carry: none"),
        ({"name": "resnet18", "stages": 5}, "resnet18 has 2 to 4 stages, not 5"),
        ({"name": "wrn28_10", "stages": 2}, "wrn28_10 has only 3 stages, not 2"),
    ],
)
def test_refuses_what_a_network_cannot_be(options, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        build_network(num_classes=5, **options)


def test_unknown_network():
    with pytest.raises(KeyError):
        build_network("resnet19", num_classes=5)


def test_catalogue_needs_no_torch():
    code = "import sys, trainer.networks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_gradient_of_pooling_lies_as_its_input():
    # In another order, each operation before it that looks at both takes several times as long.
    maps = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last).requires_grad_()
    (gradient,) = torch.autograd.grad(pool(maps).sum(), [maps])
    assert gradient.is_contiguous(memory_format=torch.channels_last)
    assert_close(gradient, torch.full_like(maps, 1 / 16))
