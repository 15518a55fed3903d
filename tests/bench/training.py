"""The trainer against bare loops of the same network, an ordinary loop, and the machine's own matrix rate.

Everything compared is measured in turns within one process, because machines are noisy; figures are medians over turns.
"""

from __future__ import annotations

import ctypes
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from trainer.config import TrainConfig
from trainer.data import EvaluationSet, EvaluationSets, epoch_loader, evaluation_sets
from trainer.data.splits import BATCH_SIZE
from trainer.device import M_MMAP_MAX, M_TRIM_THRESHOLD, keep_freed_memory
from trainer.evaluation import autocast, evaluate
from trainer.method import Batch
from trainer.objective import Objective
from trainer.outcomes import Keeper
from trainer.results import OUTCOMES
from trainer.state import build_networks
from trainer.train import Training

METHODS = {
    "baseline": {},
    "PS-KD": {"pskd": {}},
    "DMFL": {"dmfl": {}},
    "BYOT": {"byot": {}},
    "all three": {"byot": {}, "dmfl": {}, "pskd": {}},
}
CPU = torch.device("cpu")
Part = Callable[[int, int, int], list[dict[str, object]]]


class Run:
    """One configuration ready to train epochs on synthetic images, as `trainer.train` does it."""

    def __init__(self, methods: dict[str, dict], images: int, width: int, **fields: object) -> None:
        self.config = TrainConfig(
            dataset="synthetic", subset=-(-images // 100), width=width, methods=methods, epochs=1000, **fields
        )
        self.training = Training(self.config, CPU, Path("data"))
        splits = self.training.splits
        # `subset` is of each class, and `images` of all of them.
        self.splits = self.training.splits = replace(splits, train=splits.train.take(torch.arange(images)))
        self.networks, self.objective = self.training.networks, self.training.objective
        self.training.loader = epoch_loader(self.splits, self.config, CPU, class_pairs=False)
        # An epoch evaluates as well, here a single image.
        self.training.evaluated = EvaluationSets(self.training.evaluated.test.first(1), None, None)
        self.training.set_up(None)
        self.epoch = 0

    @property
    def images(self) -> int:
        return len(self.splits.train.labels)

    def train_epoch(self) -> None:
        self.training.epoch(self.epoch)
        self.epoch += 1

    def evaluate(self) -> None:
        evaluate(self.config, self.networks, evaluation_sets(self.splits, self.config, CPU), CPU)

    def forward_only(self) -> None:
        self.networks.eval()
        with torch.inference_mode():
            for inputs, _ in EvaluationSet(self.splits.test, self.config, CPU).batches(BATCH_SIZE):
                with autocast(self.config, CPU):
                    self.networks[0](inputs)

    def step_flops(self) -> int:
        """Floating-point operations of one training step of 8 images."""
        heads = self.objective.requires.heads
        inputs = torch.randn(8, 3, 32, 32)
        with FlopCounterMode(display=False) as counter:
            output = self.networks[0](inputs, heads=heads)
            sum(values.sum() for values in (output.logits, *output.head_logits)).backward()
        self.training.optimizer.zero_grad()
        return counter.get_total_flops()


def bare_loop(run: Run) -> Callable[[], None]:
    """The least that training the same network in the same precision can cost: forward, backward and step.

    The batch is one tensor that is always the same; the loss is the cross-entropy of every classifier that trains.
    """
    network, heads = build_networks(run.config, 100, CPU)[0], run.objective.requires.heads
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, nesterov=True, fused=True
    )
    size = run.config.batch_size
    inputs = torch.randn(size, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(100, (size,))
    sizes = [size] * (run.images // size) + [run.images % size] * (run.images % size > 0)

    def epoch() -> None:
        network.train()
        for count in sizes:
            with autocast(run.config, CPU):
                output = network(inputs[:count], heads=heads)
                logits = (output.logits, *output.head_logits)
                loss = sum(functional.cross_entropy(values.float(), labels[:count]) for values in logits)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    return epoch


class Pictures(Dataset):
    """Images as PIL gives them, transformed one by one."""

    def __init__(self, run: Run) -> None:
        from PIL import Image
        from torchvision import transforms

        pixels = run.splits.train.pixels.numpy()
        self.images = [Image.fromarray(picture) for picture in pixels]
        self.labels = run.splits.train.labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.images[index]), self.labels[index]


def ordinary_loop(run: Run) -> Callable[[], None]:
    """Return an epoch as most people write one: float32, NCHW, a DataLoader, PIL transforms, `.item()` at every step.

    The loss is the same objective as the trainer's.
    """
    config = run.config.model_copy(update={"precision": "float32"})
    network = build_networks(config, 100, CPU)[0].to(memory_format=torch.contiguous_format)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, nesterov=True)
    objective = Objective(config.build_methods(), 100)
    for method in objective.methods:
        method.setup(run.splits.train.labels, 100, 1, None)
        method.start_epoch(0, 1000)
    loader = DataLoader(Pictures(run), batch_size=config.batch_size, shuffle=True)

    def epoch() -> None:
        return_freed_memory()
        try:
            one_epoch()
        finally:
            keep_freed_memory()

    def one_epoch() -> None:
        network.train()
        total = 0.0
        for step, (inputs, labels) in enumerate(loader):
            indices = torch.arange(step * config.batch_size, step * config.batch_size + len(labels))
            terms, outputs = objective([network], Batch(inputs, labels, indices))
            loss = sum(terms.values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            for method in objective.methods:
                method.after_step(outputs, Batch(inputs, labels, indices))
            total += loss.item()

    return epoch


def return_freed_memory() -> None:
    """Set glibc to what it does of its own, once it has seen tensors of this size."""
    m_mmap_threshold = -3
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_MAX, 65536)
    libc.mallopt(m_mmap_threshold, 32 * 2**20)
    libc.mallopt(M_TRIM_THRESHOLD, 64 * 2**20)


def matrix_product(size: int = 4096) -> tuple[Callable[[], None], float]:
    """A large bfloat16 matrix product and its floating-point operations."""
    left, right = torch.randn(size, size).bfloat16(), torch.randn(size, size).bfloat16()
    return (lambda: torch.mm(left, right)), 2.0 * size**3


def in_turns(
    tasks: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each task in each of `rounds` turns, after one turn to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(rounds + 1):
        for name, task in tasks.items():
            started = clock()
            task()
            if turn:
                seconds[name].append(clock() - started)
    return seconds


def ratio(seconds: dict[str, list[float]], name: str, other: str) -> float:
    """Return how many times as long a task takes as another: the median over the turns, so that drifts cancel."""
    return median(ours / theirs for ours, theirs in zip(seconds[name], seconds[other], strict=True))


def alone(part: Part, images: int, width: int, rounds: int) -> Iterator[dict[str, object]]:
    """One part of the figures, measured in a process of its own, as a training is: no other part shapes its memory."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        yield from process.submit(part, images, width, rounds).result()


def loops(images: int, width: int, rounds: int) -> list[dict[str, object]]:
    """Measure the whole trainer against a bare loop, a matrix product and an ordinary loop."""
    keep_freed_memory()
    run = Run(METHODS["all three"], images, width)
    product, operations = matrix_product(4096 if width >= 64 else 1024)
    tasks = {
        "trainer": run.train_epoch,
        "bare": bare_loop(run),
        "product": product,
        "ordinary": ordinary_loop(run),
    }
    seconds = in_turns(tasks, rounds)
    rate = ratio(seconds, "product", "trainer") * run.step_flops() / 8 * run.images / operations
    what = f"ResNet-18 width {width}, all three methods, {run.images} images"
    slower = ratio(seconds, "ordinary", "trainer")
    return [
        row(f"trainer epoch against a bare loop ({what})", ratio(seconds, "bare", "trainer"), ">=", 0.95),
        row(f"arithmetic rate against a bf16 matrix product ({what})", rate, ">=", 0.75),
        row(f"trainer epoch against an ordinary float32 loop ({what})", slower, ">=", 2.4),
        row("trainer images per second", run.images / median(seconds["trainer"])),
        row("bf16 matrix product, GFLOP/s", operations / median(seconds["product"]) / 1e9),
    ]


def evaluation(images: int, width: int, rounds: int) -> list[dict[str, object]]:
    """The evaluation with all metrics against its forward passes."""
    keep_freed_memory()
    run = Run(METHODS["all three"], images, width)
    seconds = in_turns({"evaluation": run.evaluate, "forward": run.forward_only}, rounds)
    slower = ratio(seconds, "evaluation", "forward")
    return [row("evaluation with all metrics against the forward pass", slower, "<=", 1.15)]


def outcomes(images: int, width: int, rounds: int) -> list[dict[str, object]]:
    """An epoch that keeps the outcomes of as many test images as training images, against one that keeps none."""
    keep_freed_memory()
    run = Run(METHODS["baseline"], images, width)
    test = run.training.evaluated.test
    run.training.evaluated = EvaluationSets(test.first(min(images, test.count)), None, None)

    def epoch(kind: str) -> Callable[[], None]:
        def work() -> None:
            # A new keeper takes every epoch for the best so far, which costs most.
            run.training.keeper = Keeper(kind, run.config.epochs)
            run.training.epoch(0)

        return work

    # Processor time, because other processes change the wall time by more than the difference.
    seconds = in_turns({kind: epoch(kind) for kind in OUTCOMES}, rounds, time.process_time)
    return [
        row(
            f"epoch that keeps {kind} against none, processor time",
            ratio(seconds, kind, "none"),
            "<=",
            1.02 if kind == "correct" else 1.1,
        )
        for kind in OUTCOMES[1:]
    ]


def methods(images: int, width: int, rounds: int) -> list[dict[str, object]]:
    """An epoch with each method against the baseline's."""
    keep_freed_memory()
    runs = {name: Run(methods, images, width) for name, methods in METHODS.items()}
    seconds = in_turns({name: each.train_epoch for name, each in runs.items()}, rounds)
    base = runs.pop("baseline").step_flops()
    allowed = {name: 1.02 if name == "PS-KD" else each.step_flops() / base + 0.05 for name, each in runs.items()}
    return [
        row(f"{name}: epoch against the baseline's", ratio(seconds, name, "baseline"), "<=", round(allowed[name], 3))
        for name in runs
    ]


def sizes(images: int, width: int, rounds: int) -> list[dict[str, object]]:
    """The baseline's epoch at three sizes."""
    keep_freed_memory()
    runs = {size: Run({}, size, width) for size in (images // 2, images, images * 2)}
    seconds = in_turns({str(size): run.train_epoch for size, run in runs.items()}, rounds)
    return [
        row(f"milliseconds per image, epoch of {size} images", 1000 * median(seconds[str(size)]) / size)
        for size in runs
    ]


def operations(images: int, width: int, rounds: int) -> list[dict[str, object]]:
    """Measure what the operations of an epoch take, by kind, as shares of all of them."""
    keep_freed_memory()
    rows = []
    for name in ("baseline", "all three"):
        run = Run(METHODS[name], images, width)
        run.train_epoch()
        clock = _Clock()
        for _ in range(rounds):
            with clock:
                run.train_epoch()
        whole = sum(clock.seconds.values())
        rows += [row(f"{name}: share of {kind}", seconds / whole) for kind, seconds in sorted(clock.seconds.items())]
    return rows


class _Clock(TorchDispatchMode):
    """Adds up the seconds of operations on a CPU, by kind."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[str, float] = defaultdict(float)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        started = time.perf_counter()
        result = function(*args, **(kwargs or {}))
        self.seconds[self._kind(function.overloadpacket.__name__)] += time.perf_counter() - started
        return result

    @staticmethod
    def _kind(name: str) -> str:
        if name in ("mm", "addmm") or "convolution" in name:
            return "convolutions and matrix products"
        return "batch norms" if "batch_norm" in name else "everything else"


def row(what: str, value: float, sense: str = "", bound: float | None = None) -> dict[str, object]:
    """A measured figure with its bound, where it has one."""
    met = None if bound is None else (value >= bound if sense == ">=" else value <= bound)
    return {"what": what, "value": value, "sense": sense, "bound": bound, "met": met}
