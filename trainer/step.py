"""One training step: launched operation by operation, replayed as a CUDA graph, or with compiled networks."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainer.config import TrainConfig
from trainer.device import without_search
from trainer.distributed import all_reduce_min, all_reduce_sum, process_count, shard
from trainer.evaluation import autocast
from trainer.method import Batch, Output
from trainer.objective import Objective
from trainer.results import COMPILED, LAUNCHED, REPLAYED

log = logging.getLogger(__name__)

Forward = Callable[[Batch], tuple[dict[str, Tensor], Sequence[Output]]]
Replay = Callable[[], None]


class Tally:
    """The loss terms of an epoch, added up on the device; nothing here waits for the device before `read`."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def start(self) -> None:
        """Begin an epoch. The tensors stay where they are, because a graph holds their addresses."""
        if self.names:
            self.sums.zero_()
            self.steps.zero_()
            self.first_bad.fill_(math.inf)

    def add(self, terms: Mapping[str, Tensor], share: float) -> None:
        """Add the terms of a step, which counts as `share` images."""
        values = torch.stack([value.detach().double() for value in terms.values()])
        if not self.names:
            self.names = list(terms)
            self.sums = torch.zeros_like(values)
            self.steps = torch.zeros_like(values)
            self.first_bad = torch.full_like(values, math.inf)
        self.steps += 1
        self.sums += values * share
        bad = torch.where(values.isfinite(), math.inf, self.steps)
        torch.minimum(self.first_bad, bad, out=self.first_bad)

    def read(self, images: int) -> tuple[dict[str, float], dict[str, float]]:
        """Return the mean of each term over `images` and the first step (from 1, or infinity) that spoilt it.

        Both are of all processes that train together.
        """
        # In one piece, because reading waits for the device.
        values = torch.cat([all_reduce_sum(self.sums) / images, all_reduce_min(self.first_bad)]).tolist()
        count = len(self.names)
        return dict(zip(self.names, values[:count], strict=True)), dict(zip(self.names, values[count:], strict=True))


class Step:
    """Forward, backward, update of the parameters and of the methods' state, on one batch.

    `size` is the number of labels of a full batch. A smaller one, the last of an epoch, is neither compiled nor worth a
    search for kernels.
    """

    def __init__(
        self, config: TrainConfig, networks: nn.ModuleList, objective: Objective, optimizer: torch.optim.Optimizer
    ) -> None:
        self.config, self.networks, self.objective, self.optimizer = config, networks, objective, optimizer
        self.device = next(networks.parameters()).device
        self.size = len(range(config.batch_size)[shard(config.batch_size).images])
        self.forward = training_step(networks, objective)
        self.tally = Tally()
        self.compiled = False

    def __call__(self, batch: Batch) -> None:
        """Train on a batch."""
        with self._without_special_kernels() if len(batch.labels) != self.size else nullcontext():
            with autocast(self.config, self.device):
                terms, outputs = self.forward(batch)
                loss = torch.stack(list(terms.values())).sum()
            weight = 1.0 if batch.whole is None else shard(batch.whole).weight
            if weight != 1:
                loss = weight * loss
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
        self.optimizer.step()
        for method in self.objective.methods:
            method.after_step(outputs, batch)
        self.tally.add(terms, weight * batch.images / process_count())

    @contextmanager
    def _without_special_kernels(self) -> Iterator[None]:
        with without_search(), eager(self.compiled):
            yield

    def compile(self, backend: str | Callable[..., Any] = "inductor") -> None:
        """Compile the networks; the losses and the optimizer stay as they are."""
        # A promise of the configuration, which the compiler takes for an oversight.
        warnings.filterwarnings("ignore", message="TensorFloat32 tensor cores", category=UserWarning)
        for network in self.networks:
            network.compile(dynamic=False, backend=backend)
        self.compiled = True

    def stream(self) -> AbstractContextManager[None]:
        """Return the context in which an epoch runs."""
        return nullcontext()


class Replayed:
    """A step whose full batches are recorded once and then replayed, without launching each operation again.

    The same kernels run on the same addresses, so replaying changes no number. `record` runs nothing: it returns what
    replays the work that it is given. Other batches are launched, and so are the first `WARM_UP`: the optimizer has its
    state then, cuDNN its kernels, and the allocator its memory.
    """

    WARM_UP = 3

    def __init__(self, step: Step, record: Callable[[Callable[[], None]], Replay] | None = None) -> None:
        self.step, self.record = step, record or cuda_graph
        self.launched = 0
        self.replay: Replay | None = None
        self.held: Batch | None = None
        self.given_up = False
        self.side: torch.cuda.Stream | None = None
        hold_rate(step.optimizer)

    @property
    def tally(self) -> Tally:
        """Return the tally of the step."""
        return self.step.tally

    @property
    def compiled(self) -> bool:
        """Return whether the networks are compiled."""
        return self.step.compiled

    def __call__(self, batch: Batch) -> None:
        """Train on a batch."""
        if self.given_up or len(batch.labels) != self.step.size or not self._fits(batch):
            return self.step(batch)
        if self.launched < self.WARM_UP:
            self.launched += 1
            return self.step(batch)
        if self.replay is None:
            self.held = batch.map(torch.clone)
            try:
                with recordable(self.step.optimizer):
                    self.replay = self.record(partial(self.step, self.held))
            except RuntimeError as error:
                # Nothing was executed while it was recorded. To end a recording that was spoilt is an error of its own.
                cause = error.__context__ or error
                log.warning("steps are launched, not replayed: recording one failed (%s)", str(cause).split("\n")[0])
                self.given_up, self.held = True, None
                return self.step(batch)
        elif self.held is not None:
            for held, value in zip(self.held.tensors(), batch.tensors(), strict=True):
                held.copy_(value)
        self.replay()

    def _fits(self, batch: Batch) -> bool:
        """Return whether a batch has the tensors of the recorded one: a method may mix some batches and not others."""
        return self.held is None or _shapes(batch) == _shapes(self.held)

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Run an epoch on a stream of its own: CUDA records no graph on the default one.

        Gradients belong to the stream of the step before, so that all of an epoch has to run there.
        """
        if self.step.device.type != "cuda":
            yield
            return
        if self.side is None:
            self.side = torch.cuda.Stream(self.step.device)
        main = torch.cuda.current_stream(self.step.device)
        self.side.wait_stream(main)
        with torch.cuda.stream(self.side):
            yield
        main.wait_stream(self.side)


def _shapes(batch: Batch) -> list[object]:
    return [values.shape for values in batch.tensors()] + [batch.pair_inputs is None, len(batch.parts)]


def cuda_graph(work: Callable[[], None]) -> Replay:
    """Record work as a CUDA graph on the current stream; return the function that replays it."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        work()
    return graph.replay


def choose_engine(
    engine: str, config: TrainConfig, device: torch.device, *, in_memory: bool, processes: int | None = None
) -> str:
    """Return the engine that a training in so many processes (by default those there are) uses where one is asked for.

    Steps are replayed on a GPU by a single process whose images are in memory, but not in float64: PyTorch's optimizer
    reads a learning rate that is on the device as float32. What cannot be replayed is launched; `compiled` networks are
    replayed where steps can be.
    """
    if engine == COMPILED:
        return COMPILED
    able = _replayable(config, device, process_count() if processes is None else processes, in_memory=in_memory)
    return REPLAYED if able and engine != LAUNCHED else LAUNCHED


def build_step(step: Step, engine: str, *, in_memory: bool) -> Step | Replayed:
    """Return a step as the engine (one that `choose_engine` gave) runs it."""
    if engine == COMPILED:
        step.compile()
    replayed = engine != LAUNCHED and _replayable(step.config, step.device, process_count(), in_memory=in_memory)
    return Replayed(step) if replayed else step


def _replayable(config: TrainConfig, device: torch.device, processes: int, *, in_memory: bool) -> bool:
    # The thread that pins streamed batches calls CUDA while a graph is recorded, and so does NCCL.
    return device.type == "cuda" and in_memory and processes == 1 and config.precision != "float64"


def eager(compiled: bool) -> AbstractContextManager[None]:
    """Run compiled networks as they were written, for shapes that are not worth compiling."""
    # Asking for it loads the compiler, which takes seconds.
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()


def hold_rate(optimizer: torch.optim.Optimizer) -> None:
    """Keep the learning rate on the device, where a recorded step reads it."""
    for group in optimizer.param_groups:
        if not isinstance(group["lr"], Tensor):
            group["lr"] = torch.tensor(group["lr"], dtype=torch.float32, device=group["params"][0].device)


@contextmanager
def recordable(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Have PyTorch record the steps of a fused optimizer in this context.

    Its count of steps is on the device, recorded or not, and its numbers are the same. PyTorch asks all the same for an
    option that says so, and warns of the option outside a recording.
    """
    groups = [group for group in optimizer.param_groups if group.get("fused") and group.get("capturable") is False]
    for group in groups:
        group["capturable"] = True
    try:
        yield
    finally:
        for group in groups:
            group["capturable"] = False


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give all parameters a learning rate."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def training_step(networks: nn.ModuleList, objective: Objective) -> Forward:
    """Return the objective on these networks as a function of a batch.

    Where several processes train together, its backward pass averages the gradients over all of them.
    """
    if process_count() == 1:
        return partial(objective, _listed(networks))
    joined = _Together(networks, objective)
    # The running statistics are averaged at the end of an epoch, and nobody reads them before.
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(
        joined, [name for name, _ in joined.named_buffers()]
    )
    # The first step shows which parameters no loss reads (heads that a method leaves out). They get no gradient, as in
    # a single process, so that weight decay leaves them alone.
    return DistributedDataParallel(joined, static_graph=True, gradient_as_bucket_view=True)


class _Together(nn.Module):
    """All networks as one module, so that a step averages all gradients once, however often it runs a network."""

    def __init__(self, networks: nn.ModuleList, objective: Objective) -> None:
        super().__init__()
        self.networks, self.objective = networks, objective

    def forward(self, batch: Batch) -> tuple[dict[str, Tensor], Sequence[Output]]:
        terms, outputs = self.objective(_listed(self.networks), batch)
        # Whatever leaves here with a gradient counts as read by the loss.
        return terms, [Output(*map(_detached, output)) for output in outputs]


def _listed(networks: nn.ModuleList) -> Sequence[nn.Module]:
    # PyTorch declares no more of a ModuleList than that it can be walked.
    return cast(Sequence[nn.Module], networks)


def _detached(values: Any) -> Any:
    return tuple(map(_detached, values)) if isinstance(values, tuple) else values.detach()
