"""The smallest networks and batches that a training method can be tried on."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode

from trainer.method import Batch, Output
from trainer.objective import Objective, build_methods

CLASSES = 5
SAMPLES = 12
BATCH = 4


class ToyNetwork(nn.Module):
    """Linear stages of one width, with a linear classifier on each; all but the last are heads."""

    def __init__(self, seed: int = 0, heads: int = 3, width: int = 6, head_width: int | None = None) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.stages = nn.ModuleList(nn.Linear(12 if i == 0 else width, width) for i in range(heads + 1))
            self.adapters = nn.ModuleList(nn.Linear(width, head_width or width) for _ in range(heads))
            self.classifiers = nn.ModuleList(nn.Linear(head_width or width, CLASSES) for _ in range(heads))
            self.classifier = nn.Linear(width, CLASSES)

    def forward(self, inputs: Tensor, heads: bool = True) -> Output:
        features, head_features = inputs.flatten(1), []
        for index, stage in enumerate(self.stages):
            features = stage(features)
            if heads and index < len(self.adapters):
                head_features.append(self.adapters[index](features))
        head_logits = [classifier(values) for classifier, values in zip(self.classifiers, head_features, strict=False)]
        return Output(self.classifier(features), features, tuple(head_logits), tuple(head_features))


def toy_batch(seed: int = 0, dtype: torch.dtype = torch.float64) -> Batch:
    """BATCH of the SAMPLES images, with a second image for each."""
    generator = torch.Generator().manual_seed(seed)
    indices = torch.randperm(SAMPLES, generator=generator)[:BATCH]
    images = torch.randn(2, BATCH, 3, 2, 2, generator=generator, dtype=dtype)
    return Batch(images[0], toy_labels()[indices], indices, images[1])


def toy_labels() -> Tensor:
    """The labels of all SAMPLES images."""
    return torch.arange(SAMPLES) % CLASSES


def toy_objective(
    methods: dict[str, dict], networks: int | None = None, heads: int = 3, dtype: torch.dtype = torch.float64
) -> tuple[Objective, nn.ModuleList]:
    """The objective of these methods, set up at the second of four epochs, and as many networks as it asks for."""
    objective = Objective([method.resolve(heads) for method in build_methods(methods)], CLASSES)
    count = networks or objective.requires.networks
    for method in objective.methods:
        method.setup(toy_labels(), CLASSES, count, ToyNetwork(seed=9).to(dtype))
        method.start_epoch(1, 4)
    return objective, nn.ModuleList(ToyNetwork(seed, heads) for seed in range(count)).to(dtype)


def augmented(objective: Objective, batch: Batch, seed: int = 0) -> Batch:
    """A batch as the methods change it."""
    for method in objective.augmenting:
        batch = method.augment(batch, torch.Generator().manual_seed(seed))
    return batch


def train_step(objective: Objective, networks: nn.ModuleList, batch: Batch) -> dict[str, Tensor]:
    """One step of gradient descent; returns the loss terms."""
    terms, outputs = objective(networks, batch)
    networks.zero_grad()
    sum(terms.values()).backward()
    with torch.no_grad():
        for parameter in networks.parameters():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad
    for method in objective.methods:
        method.after_step(outputs, batch)
    return terms


class RefuseWaiting(TorchDispatchMode):
    """Raises on operations whose result, or the shape of it, the host would have to wait for."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function.overloadpacket not in (
            torch.ops.aten._local_scalar_dense,
            torch.ops.aten.nonzero,
            torch.ops.aten.masked_select,
            torch.ops.aten.is_nonzero,
        ), f"{function} waits for the device"
        return function(*args, **(kwargs or {}))


GPU = torch.device("cuda:0")
# In inference mode `to` stays whole.
COPYING = {torch.ops.aten._to_copy, torch.ops.aten.to, torch.ops.aten.copy_}
WAITING = {torch.ops.aten.nonzero, torch.ops.aten.masked_select, torch.ops.aten._local_scalar_dense}


class Traffic(TorchDispatchMode):
    """Counts what passes between the host and a fake GPU: uploads, those that block, and reads that wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.uploads = self.blocking = self.waits = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        name = function.overloadpacket
        if name in COPYING:
            # Looking up names takes longer than the fake operation itself, so they are looked up here alone.
            named = dict(zip((each.name for each in function._schema.arguments), args, strict=False)) | (kwargs or {})
            origin, target = (named["src"], named["self"]) if name is torch.ops.aten.copy_ else (named["self"], result)
            self._moved(origin.device, target.device, named.get("non_blocking"))
        elif name in WAITING:
            self.waits += args[0].device.type == "cuda"
        return result

    def _moved(self, origin: torch.device, target: torch.device, non_blocking: bool | None) -> None:
        if origin.type == "cpu" and target.type == "cuda":
            self.uploads += 1
            self.blocking += not non_blocking
        elif origin.type == "cuda" and target.type == "cpu":
            self.waits += not non_blocking


@contextmanager
def fake_gpu() -> Iterator[Traffic]:
    """Let tensors be on `GPU`, which nobody has: they have no values, so that nothing is computed.

    What has to have values on the host is computed there: the order of an epoch. Reading from the GPU gives zeros and
    counts as waiting for it.
    """
    from trainer.data import augmentation, streaming

    traffic = Traffic()

    def drawn(*args, **kwargs):
        with unset_fake_temporarily():
            return draw(*args, **kwargs)

    def read(values: Tensor) -> list[float]:
        traffic.waits += values.device.type == "cuda"
        return [0.0] * values.numel()

    draw = augmentation.draw_epoch
    with ExitStack() as stack:
        for patched in (
            patch.object(augmentation, "draw_epoch", drawn),
            patch.object(streaming, "draw_epoch", drawn),
            patch("torch.cuda.is_bf16_supported", lambda *args, **kwargs: True),
            patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False),
            # Pinning needs the driver.
            patch.object(Tensor, "pin_memory", lambda values: values),
            patch.object(FakeTensor, "tolist", read),
            FakeTensorMode(allow_non_fake_inputs=True),
            traffic,
        ):
            stack.enter_context(patched)
        yield traffic


def on_fake_gpu(networks: nn.Module) -> nn.Module:
    """Move a module's parameters and buffers within `fake_gpu`."""
    for module in networks.modules():
        for name, values in module.named_parameters(recurse=False):
            module._parameters[name] = nn.Parameter(_twin(values), values.requires_grad)
        for name, values in module.named_buffers(recurse=False):
            module._buffers[name] = _twin(values)
    return networks


def _twin(values: Tensor) -> Tensor:
    """Return a tensor as this one on `GPU`; asking for one by `empty_like` would first make a fake of this one."""
    return torch.empty_strided(values.shape, values.stride(), dtype=values.dtype, device=GPU)
