"""Every classifier of the trained networks, and their ensemble, on every split."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from trainer.config import TrainConfig
from trainer.data import Splits, evaluation_batches
from trainer.distributed import gathered, part_of, process_count
from trainer.metrics import compute_metrics, ood_auroc
from trainer.objective import Output
from trainer.reading import Split
from trainer.results import Evaluation

BATCH_SIZE = 500


def evaluate(config: TrainConfig, networks: nn.ModuleList, splits: Splits, device: torch.device) -> list[Evaluation]:
    """Evaluate every classifier of every network, and their ensemble (the mean of their softmax), on every split.

    Several processes that train together share the images, and all return the metrics of the whole splits.
    """
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
    network: nn.Module, images: Split, config: TrainConfig, device: torch.device
) -> tuple[dict[str, Tensor], Tensor]:
    """Softmax [N, K] of `main`, each head and, where there are heads, the `ensemble`; and the labels [N]."""
    collected: dict[str, list[Tensor]] = {}
    labels = []
    count = len(images)
    if process_count() > 1:
        images = images.take(torch.arange(count)[part_of(count).images])
    for inputs, batch_labels in evaluation_batches(images, config, device, BATCH_SIZE):
        with autocast(config, device):
            output: Output = network(inputs)
        logits = {"main": output.logits}
        logits |= {f"head{i}": values for i, values in enumerate(output.head_logits, start=1)}
        for classifier, values in logits.items():
            wide = values if values.dtype == torch.float64 else values.float()
            collected.setdefault(classifier, []).append(wide.softmax(1))
        labels.append(batch_labels)
    probabilities = {classifier: gathered(torch.cat(parts), count) for classifier, parts in collected.items()}
    if len(probabilities) > 1:
        probabilities["ensemble"] = torch.stack(list(probabilities.values())).mean(0)
    return probabilities, gathered(torch.cat(labels), count)


def autocast(config: TrainConfig, device: torch.device) -> AbstractContextManager[Any]:
    """The context in which networks run and losses are computed: reduced precision where the configuration says so."""
    return torch.autocast(device.type, torch.bfloat16) if config.precision == "bfloat16" else nullcontext()
