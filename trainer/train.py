"""The training loop: one configuration in, one `EpochResult` per epoch out."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from trainer.checkpoint import fitting, keep_newest, remove_checkpoint, resume_from, save_checkpoint
from trainer.config import TrainConfig
from trainer.data import epoch_loader, evaluation_sets, load_splits
from trainer.device import prepare_device
from trainer.distributed import (
    Step,
    added,
    average_statistics,
    from_the_first,
    least,
    part_of,
    process_count,
    process_number,
    training_step,
    watching_peers,
)
from trainer.evaluation import autocast, evaluate
from trainer.memory import keep_freed_memory
from trainer.networks import build_network
from trainer.objective import Batch, Objective
from trainer.results import EpochResult

Report = Callable[[EpochResult], None]


class Loader(Protocol):
    """What training takes its batches from."""

    def epoch(self, epoch: int) -> Iterator[Batch]: ...


class Diverged(Exception):
    """A loss term became NaN or infinite; the message names the term, the step and the epoch (counted from 1)."""


@dataclass(frozen=True)
class _Run:
    """The arguments of `train` that change nothing of what is learned."""

    device: torch.device
    data_root: Path
    checkpoint: Path | None
    checkpoint_seconds: float
    stop_after: int | None


def train(
    config: TrainConfig,
    report: Report,
    *,
    device: str | torch.device = "cpu",
    data_root: Path = Path("data"),
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 0.0,
    stop_after: int | None = None,
    report_teacher: Report | None = None,
    deterministic: bool = False,
) -> EpochResult:
    """Train one configuration and report every epoch, in order.

    With `checkpoint`, training continues from that file if it is there, after reporting the epochs it holds once
    more (`restored`), and writes it after an epoch when `checkpoint_seconds` have passed since the last time, and
    after the last epoch. An epoch is written before it is reported, so whatever was reported from a checkpointed
    epoch is never trained differently again. On one CPU machine with one number of threads, an interrupted run gives
    the bits of an undisturbed one.

    Where a method needs a teacher, it is trained first, with a checkpoint of its own beside the other, and
    `report_teacher` is given its epochs. With `stop_after`, training ends after so many epochs of the configuration's
    schedule; without a checkpoint, as in measuring speed, so does the teacher's.

    With `deterministic`, PyTorch is asked for algorithms that give equal bits every time on a GPU too.

    Within `trainer.distributed.together` several processes train the same networks. Each calls this function and is
    given every epoch, which differ in what is measured of the process: seconds and memory. The first one alone reads
    and writes the checkpoint (the others need not name it), and a training may go on with another number of processes.

    Raises:
        Diverged: a loss term or the output of a classifier is not finite.
        DataError: the data set is missing or damaged.
        CheckpointError: the checkpoint belongs to another configuration, a newer program, or is none.
        OSError: the checkpoint cannot be read or written.
        PeerLost: another process that trains the same networks has ended.
    """
    run = _Run(torch.device(device), data_root, checkpoint, checkpoint_seconds, stop_after)
    prepare_device(run.device, deterministic=deterministic)
    if run.device.type == "cpu":
        keep_freed_memory()
    with watching_peers():
        result, _ = _fit(config, run, report, report_teacher or (lambda result: None))
    return result


def build_networks(config: TrainConfig, num_classes: int, device: torch.device) -> nn.ModuleList:
    """The networks of a configuration with their initial weights, which depend on its seed alone."""
    networks = []
    for index, name in enumerate(config.network_names):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_derived_seed(config.seed, "weights", index))
            networks.append(
                build_network(
                    name, num_classes=num_classes, width=config.width, stages=config.stages, heads=config.head_kind
                )
            )
    dtype = torch.float64 if config.precision == "float64" else torch.float32
    return nn.ModuleList(networks).to(device=device, dtype=dtype, memory_format=torch.channels_last)


def build_optimizer(config: TrainConfig, networks: nn.ModuleList) -> torch.optim.Optimizer:
    """The one optimiser of all networks of a run."""
    return torch.optim.SGD(
        networks.parameters(),
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.nesterov and config.momentum > 0,
        fused=True,
    )


def teacher_config(config: TrainConfig) -> TrainConfig:
    """The configuration of the teacher that is trained before a run: the same network without any method."""
    return TrainConfig(**{**config.model_dump(), "methods": {}, "heads": "auto", "peer": None, "ood_dataset": None})


def checkpoint_state(
    networks: nn.ModuleList, optimizer: torch.optim.Optimizer, objective: Objective, results: list[EpochResult]
) -> dict[str, Any]:
    """All that training needs to go on from here."""
    return {
        "networks": networks.state_dict(),
        "optimizer": optimizer.state_dict(),
        "methods": {method.name: method.state_dict() for method in objective.methods},
        "results": [result.to_dict() for result in results],
    }


def load_state(
    saved: dict[str, Any], networks: nn.ModuleList, optimizer: torch.optim.Optimizer, objective: Objective
) -> None:
    """The inverse of `checkpoint_state`, but for the results."""
    networks.load_state_dict(saved["networks"])
    optimizer.load_state_dict(saved["optimizer"])
    for method in objective.methods:
        method.load_state_dict(saved["methods"][method.name])


def _fit(config: TrainConfig, run: _Run, report: Report, report_teacher: Report) -> tuple[EpochResult, nn.ModuleList]:
    device = run.device
    checkpoint = run.checkpoint if process_number() == 0 else None
    # Read first: a checkpoint that must not be overwritten is refused before any work.
    saved = resume_from(checkpoint, config) if checkpoint else None
    if saved is not None:
        del saved["config"]
    saved = from_the_first(saved, device)
    splits = load_splits(config, run.data_root)
    num_classes = splits.train.num_classes
    networks = build_networks(config, num_classes, device)
    parameters = sum(parameter.numel() for parameter in networks.parameters())
    objective = Objective(config.build_methods(), num_classes)
    optimizer = build_optimizer(config, networks)
    loader = epoch_loader(splits, config, device, class_pairs=objective.requires.class_pairs)
    evaluated = evaluation_sets(splits, config, device)

    teacher = None
    if objective.requires.teacher:
        plain = teacher_config(config)
        # A checkpoint holds the teacher's weights as well.
        taught = build_networks(plain, num_classes, device) if saved else _fit_teacher(plain, run, report_teacher)
        teacher = taught[0]
    for method in objective.methods:
        method.setup(splits.train.labels.to(device), num_classes, len(networks), teacher)

    results: list[EpochResult] = []
    if saved is not None:
        with fitting(run.checkpoint) if run.checkpoint else nullcontext():
            load_state(saved, networks, optimizer, objective)
            results = [replace(EpochResult.from_dict(values), restored=True) for values in saved["results"]]
        del saved
    for result in results:
        report(result)
    step = training_step(networks, objective)

    epochs = config.epochs if run.stop_after is None else min(run.stop_after, config.epochs)
    last_saved = time.monotonic()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    for epoch in range(len(results), epochs):
        rate = config.learning_rate_at(epoch)
        for group in optimizer.param_groups:
            group["lr"] = rate
        # Whatever draws random numbers in a network (dropout) depends on the seed and the epoch alone; of several
        # processes each draws for other images.
        torch.manual_seed(_derived_seed(config.seed, "epoch", epoch) + process_number())
        for method in objective.methods:
            method.start_epoch(epoch, config.epochs)

        wait_for(device)
        started = time.perf_counter()
        losses, images, data_seconds = train_epoch(config, networks, objective, optimizer, loader, epoch, step)
        wait_for(device)
        trained_at = time.perf_counter()
        evaluations = evaluate(config, networks, evaluated, device)
        wait_for(device)
        evaluated_at = time.perf_counter()

        result = EpochResult(
            epoch=epoch,
            learning_rate=rate,
            train_seconds=trained_at - started - data_seconds,
            eval_seconds=evaluated_at - trained_at,
            data_seconds=data_seconds,
            images=images,
            losses=losses,
            evaluations=evaluations,
            parameters=parameters,
            peak_memory_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        )
        _refuse_not_finite(config, result)
        results.append(result)
        due = time.monotonic() - last_saved >= run.checkpoint_seconds or epoch == epochs - 1
        if checkpoint and due:
            save_checkpoint(checkpoint, config, checkpoint_state(networks, optimizer, objective, results))
            last_saved = time.monotonic()
        report(result)
    if checkpoint and len(results) == config.epochs:
        keep_newest(checkpoint)
        remove_checkpoint(_teachers(checkpoint))
    return results[-1], networks


def _fit_teacher(plain: TrainConfig, run: _Run, report: Report) -> nn.ModuleList:
    """Train the same network beforehand without any method."""
    if run.checkpoint:
        run = replace(run, checkpoint=_teachers(run.checkpoint), stop_after=None)
    try:
        return _fit(plain, run, report, report)[1]
    except Diverged as error:
        raise Diverged(f"the teacher: {error}") from None


def _teachers(checkpoint: Path) -> Path:
    return checkpoint.with_name(checkpoint.name + ".teacher")


def train_epoch(
    config: TrainConfig,
    networks: nn.ModuleList,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    loader: Loader,
    epoch: int,
    step: Step | None = None,
) -> tuple[dict[str, float], int, float]:
    """Train on every batch; returns the mean of each loss term, the number of images and the seconds spent on data.

    `step` runs the objective on a batch where several processes train together. Nothing here waits for the device
    until the epoch is over.
    """
    networks.train()
    step = step or training_step(networks, objective)
    device = next(networks.parameters()).device
    names: list[str] = []
    sums = first_bad = torch.zeros(0)
    images = steps = 0
    processes = process_count()
    asked = time.perf_counter()
    batches = loader.epoch(epoch)
    data_seconds = time.perf_counter() - asked
    while True:
        asked = time.perf_counter()
        batch = next(batches, None)
        data_seconds += time.perf_counter() - asked
        if batch is None:
            break
        with autocast(config, device):
            terms, outputs = step(batch)
            loss = torch.stack(list(terms.values())).sum()
        weight = 1.0 if batch.whole is None else part_of(batch.whole).weight
        if weight != 1:
            loss = weight * loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        for method in objective.methods:
            method.after_step(outputs, batch)

        values = torch.stack([value.detach().double() for value in terms.values()])
        if steps == 0:
            names = list(terms)
            sums = torch.zeros_like(values)
            first_bad = torch.full_like(values, math.inf)
        steps += 1
        sums += values * (weight * batch.images / processes)
        first_bad = torch.where(values.isfinite(), first_bad, first_bad.clamp(max=steps))
        images += batch.images
    # Of all processes, so that all of them go on or none.
    sums, first_bad = added(sums), least(first_bad)
    where = dict(zip(names, first_bad.tolist(), strict=True))
    term = min(where, key=where.__getitem__)
    if where[term] < math.inf:
        raise Diverged(
            f"the loss term {term!r} is not finite at step {where[term]:.0f} of {steps} "
            f"in epoch {epoch + 1} of {config.epochs}"
        )
    average_statistics(networks)
    return dict(zip(names, (sums / images).tolist(), strict=True)), images, data_seconds


def _refuse_not_finite(config: TrainConfig, result: EpochResult) -> None:
    # A confident mistake has a finite NLL, however confident: what is not finite here is a logit.
    for evaluation in result.evaluations:
        if not math.isfinite(evaluation.metrics.nll):
            raise Diverged(
                f"the output of classifier {evaluation.classifier!r} of {config.network_names[evaluation.network]} "
                f"is not finite after epoch {result.epoch + 1} of {config.epochs}"
            )


def wait_for(device: torch.device) -> None:
    """Return when the device has finished what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _derived_seed(seed: int, purpose: str, index: int) -> int:
    """Independent streams from one seed: equal seeds of different purposes share nothing."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}/{index}".encode()).digest()[:8]) >> 1
