"""The smallest networks and batches that a training method can be tried on."""

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from trainer.objective import Batch, Objective, Output, build_methods

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
