"""The training loop: one configuration in, one `EpochResult` per epoch out."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainer.checkpoint import resume_from, save_checkpoint
from trainer.config import TrainConfig
from trainer.data import Images, Splits, epoch_loader, evaluation_batches, load_splits
from trainer.metrics import compute_metrics, ood_auroc
from trainer.networks import build_network
from trainer.objective import Objective, Output
from trainer.results import EpochResult, Evaluation

EVALUATION_BATCH = 500


class Diverged(Exception):
    """A loss term became NaN or infinite; the message names the epoch, the step and the term."""


def train(
    config: TrainConfig,
    report: Callable[[EpochResult], None],
    *,
    device: str | torch.device = "cpu",
    data_root: Path = Path("data"),
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 0.0,
    stop_after: int | None = None,
) -> EpochResult:
    """Train one configuration and report every epoch, in order.

    With `checkpoint`, training continues from that file if it is there, after reporting the epochs it holds once
    more (`restored`), and writes it after an epoch when `checkpoint_seconds` have passed since the last time, and
    after the last epoch. An epoch is written before it is reported, so whatever was reported from a checkpointed
    epoch is never trained differently again. On one CPU machine, an interrupted run gives the bits of an undisturbed
    one. With `stop_after`, training ends after so many epochs of the configuration's schedule.

    Raises:
        Diverged: a loss term is not finite.
        DataError: the data set is missing or damaged.
        CheckpointError: the checkpoint belongs to another configuration or a newer program.
    """
    result, _ = _fit(config, report, torch.device(device), data_root, checkpoint, checkpoint_seconds, stop_after)
    return result


def evaluate(config: TrainConfig, networks: nn.ModuleList, splits: Splits, device: torch.device) -> list[Evaluation]:
    """Evaluate every classifier of every network, and their ensemble (the mean of their softmax), on every split."""
    named = {"test": splits.test, "validation": splits.validation}
    evaluations = []
    networks.eval()
    for index, network in enumerate(networks):
        outside = splits.out_of_distribution
        unfamiliar = classifier_probabilities(network, outside, config, device)[0] if outside is not None else {}
        for split, images in named.items():
            if images is None:
                continue
            probabilities, labels = classifier_probabilities(network, images, config, device)
            for classifier, values in probabilities.items():
                auroc = None
                if unfamiliar and split == "test":
                    auroc = ood_auroc(values.amax(1), unfamiliar[classifier].amax(1))
                metrics = compute_metrics(values, labels)
                evaluations.append(Evaluation(index, classifier, metrics, len(labels), split, auroc))
    return evaluations


@torch.inference_mode()
def classifier_probabilities(
    network: nn.Module, images: Images, config: TrainConfig, device: torch.device
) -> tuple[dict[str, Tensor], Tensor]:
    """Softmax [N, K] of `main`, each head and, where there are heads, the `ensemble`; and the labels [N]."""
    collected: dict[str, list[Tensor]] = {}
    labels = []
    for inputs, batch_labels in evaluation_batches(images, config, device, EVALUATION_BATCH):
        with _autocast(config, device):
            output: Output = network(inputs)
        logits = {"main": output.logits}
        logits |= {f"head{i}": values for i, values in enumerate(output.head_logits, start=1)}
        for classifier, values in logits.items():
            wide = values if values.dtype == torch.float64 else values.float()
            collected.setdefault(classifier, []).append(wide.softmax(1))
        labels.append(batch_labels)
    probabilities = {classifier: torch.cat(parts) for classifier, parts in collected.items()}
    if len(probabilities) > 1:
        probabilities["ensemble"] = torch.stack(list(probabilities.values())).mean(0)
    return probabilities, torch.cat(labels)


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


def _fit(
    config: TrainConfig,
    report: Callable[[EpochResult], None],
    device: torch.device,
    data_root: Path,
    checkpoint: Path | None,
    checkpoint_seconds: float,
    stop_after: int | None = None,
) -> tuple[EpochResult, nn.ModuleList]:
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.cuda.reset_peak_memory_stats(device)
    # Read first: a checkpoint that must not be overwritten is refused before any work.
    saved = resume_from(checkpoint, config) if checkpoint else None
    splits = load_splits(config, data_root)
    num_classes = splits.train.num_classes
    networks = build_networks(config, num_classes, device)
    parameters = sum(parameter.numel() for parameter in networks.parameters())
    objective = Objective(config.build_methods(), num_classes)
    optimizer = torch.optim.SGD(
        networks.parameters(),
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.nesterov and config.momentum > 0,
        fused=True,
    )
    loader = epoch_loader(splits, config, device, class_pairs=objective.requires.class_pairs)

    teacher = None
    if objective.requires.teacher:
        # The teacher is the same network trained beforehand without any method, with a checkpoint of its own.
        plain = TrainConfig(**{**config.model_dump(), "methods": {}, "heads": "auto", "peer": None})
        beside = checkpoint.with_name(checkpoint.name + ".teacher") if checkpoint else None
        _, trained = _fit(plain, lambda result: None, device, data_root, beside, checkpoint_seconds)
        teacher = trained[0].eval().requires_grad_(False)
    for method in objective.methods:
        method.setup(splits.train.labels.to(device), num_classes, len(networks), teacher)

    results: list[EpochResult] = []
    if saved is not None:
        networks.load_state_dict(saved["networks"])
        optimizer.load_state_dict(saved["optimizer"])
        for method in objective.methods:
            method.load_state_dict(saved["methods"][method.name])
        results = [replace(EpochResult.from_dict(values), restored=True) for values in saved["results"]]
        del saved
    for result in results:
        report(result)

    epochs = config.epochs if stop_after is None else min(stop_after, config.epochs)
    last_saved = time.monotonic()
    for epoch in range(len(results), epochs):
        rate = config.learning_rate_at(epoch)
        for group in optimizer.param_groups:
            group["lr"] = rate
        # Whatever draws random numbers in a network (dropout) depends on the seed and the epoch alone.
        torch.manual_seed(_derived_seed(config.seed, "epoch", epoch))
        for method in objective.methods:
            method.start_epoch(epoch, config.epochs)

        _wait_for(device)
        started = time.perf_counter()
        losses, images, data_seconds = _train_epoch(config, networks, objective, optimizer, loader.epoch(epoch), epoch)
        _wait_for(device)
        trained_at = time.perf_counter()
        evaluations = evaluate(config, networks, splits, device)
        _wait_for(device)
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
        _refuse_not_finite(result)
        results.append(result)
        due = time.monotonic() - last_saved >= checkpoint_seconds or epoch == epochs - 1
        if checkpoint and due:
            save_checkpoint(
                checkpoint,
                config,
                {
                    "networks": networks.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "methods": {method.name: method.state_dict() for method in objective.methods},
                    "results": [result.to_dict() for result in results],
                },
            )
            last_saved = time.monotonic()
        report(result)
    return results[-1], networks


def _train_epoch(
    config: TrainConfig,
    networks: nn.ModuleList,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[Any],
    epoch: int,
) -> tuple[dict[str, float], int, float]:
    """Train on every batch; returns the mean of each loss term, the number of images and the seconds spent on data.

    Nothing here waits for the device until the epoch is over.
    """
    networks.train()
    device = next(networks.parameters()).device
    names: list[str] = []
    sums = first_bad = torch.zeros(0)
    images = step = 0
    data_seconds = 0.0
    while True:
        asked = time.perf_counter()
        batch = next(batches, None)
        data_seconds += time.perf_counter() - asked
        if batch is None:
            break
        with _autocast(config, device):
            terms, outputs = objective(networks, batch)
            loss = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        for method in objective.methods:
            method.after_step(outputs, batch)

        values = torch.stack([value.detach().double() for value in terms.values()])
        if step == 0:
            names = list(terms)
            sums = torch.zeros_like(values)
            first_bad = torch.full_like(values, math.inf)
        sums += values * len(batch.labels)
        first_bad = torch.where(values.isfinite(), first_bad, first_bad.clamp(max=step))
        images += len(batch.labels)
        step += 1
    where = dict(zip(names, first_bad.tolist(), strict=True))
    term = min(where, key=where.__getitem__)
    if where[term] < math.inf:
        raise Diverged(f"the loss term {term!r} is not finite at step {int(where[term])} of epoch {epoch}")
    return dict(zip(names, (sums / images).tolist(), strict=True)), images, data_seconds


def _refuse_not_finite(result: EpochResult) -> None:
    for evaluation in result.evaluations:
        if not math.isfinite(evaluation.metrics.nll):
            raise Diverged(
                f"the output of classifier {evaluation.classifier!r} is not finite after epoch {result.epoch}"
            )


def _autocast(config: TrainConfig, device: torch.device) -> AbstractContextManager[Any]:
    return torch.autocast(device.type, torch.bfloat16) if config.precision == "bfloat16" else nullcontext()


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _derived_seed(seed: int, purpose: str, index: int) -> int:
    """Independent streams from one seed: equal seeds of different purposes share nothing."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}/{index}".encode()).digest()[:8]) >> 1
