"""Evaluate every classifier of the trained networks, and their ensemble, on every split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from trainer.config import TrainConfig
from trainer.data import EvaluationSet, EvaluationSets
from trainer.device import without_search
from trainer.distributed import all_gather, rank
from trainer.method import Output
from trainer.metrics import auroc_value, metric_values
from trainer.outcomes import Keeper, Kept
from trainer.own_metrics import measure
from trainer.results import Evaluation, Metrics

METRICS = len(fields(Metrics))


def evaluate(
    config: TrainConfig,
    networks: nn.ModuleList,
    sets: EvaluationSets,
    device: torch.device,
    own_metrics: Sequence[str] = (),
    keeper: Keeper | None = None,
    epoch: int = 0,
) -> list[Evaluation]:
    """Evaluate every classifier of every network, and their ensemble (the mean of their softmax), on every split.

    Several processes that train together share the images, and all return the metrics of the whole splits. The device
    is waited for once, at the end, but for the user's own metrics: the first process alone measures those. It alone
    has the `keeper` add outcomes per image to those of an epoch (0-based).

    Raises MetricError where one of them fails.
    """
    named = {"test": sets.test, "validation": sets.validation}
    places: list[tuple[int, str, str, int]] = []
    rows = []
    own: list[dict[str, float]] = []
    kept: dict[int, Kept] = {}
    networks.eval()
    for index, network in enumerate(networks):
        outside = sets.out_of_distribution
        unfamiliar = classifier_probabilities(network, outside, config, device)[0] if outside is not None else {}
        for split, images in named.items():
            if images is None:
                continue
            probabilities, labels = classifier_probabilities(network, images, config, device)
            if keeper and split == "test" and rank() == 0:
                kept |= keeper.collect(index, probabilities["main"], labels)
            for classifier, values in probabilities.items():
                row = metric_values(values, labels)
                if unfamiliar and split == "test":
                    row = torch.cat([row, auroc_value(values.amax(1), unfamiliar[classifier].amax(1))[None]])
                places.append((index, classifier, split, images.count))
                rows.append(row)
                own.append(measure(own_metrics, values, labels) if rank() == 0 else {})
    # In one piece, and read once: the first split's rows may be longer than the others'.
    numbers: Iterator[float] = iter(torch.cat(rows).tolist())
    evaluations = []
    for (index, classifier, split, count), row, measured in zip(places, rows, own, strict=True):
        metrics = Metrics(*islice(numbers, METRICS))
        auroc = next(numbers) if len(row) > METRICS else None
        evaluations.append(Evaluation(index, classifier, metrics, count, split, auroc, measured))
    return keeper.keep(epoch, evaluations, kept) if keeper else evaluations


# In inference mode, autocast would cast all weights anew for every batch.
@torch.no_grad()
def classifier_probabilities(
    network: nn.Module, images: EvaluationSet, config: TrainConfig, device: torch.device
) -> tuple[dict[str, Tensor], Tensor]:
    """Return softmax [N, K] of `main`, each head and, where there are heads, the `ensemble`; and the labels [N]."""
    collected: dict[str, list[Tensor]] = {}
    # One context for all batches: autocast casts the weights once in it.
    with autocast(config, device), without_search():
        for inputs, _ in images.batches():
            output: Output = network(inputs)
            logits = {"main": output.logits}
            logits |= {f"head{i}": values for i, values in enumerate(output.head_logits, start=1)}
            for classifier, values in logits.items():
                wide = values if values.dtype == torch.float64 else values.float()
                collected.setdefault(classifier, []).append(wide.softmax(1))
    probabilities = {classifier: all_gather(torch.cat(parts), images.count) for classifier, parts in collected.items()}
    if len(probabilities) > 1:
        probabilities["ensemble"] = torch.stack(list(probabilities.values())).mean(0)
    return probabilities, all_gather(images.labels, images.count)


def autocast(config: TrainConfig, device: torch.device) -> AbstractContextManager[Any]:
    """Return the context in which networks run and losses are computed: reduced precision if configured."""
    return torch.autocast(device.type, torch.bfloat16) if config.precision == "bfloat16" else nullcontext()
