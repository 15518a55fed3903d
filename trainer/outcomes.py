"""Keep which images a network has right, and on request its probabilities, at the best and the last epochs."""

from __future__ import annotations

import hashlib
import zlib
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from trainer.results import EpochResult, Evaluation, Outcomes

# What is kept of one network: which images are right [N], its probabilities [N, K] where they are kept, the labels [N].
Kept = tuple[Tensor, Tensor | None, Tensor]


class Keeper:
    """Decides whose outcomes are kept: those of epochs that are the best so far on a split, and of the last one.

    `kind` is `none`, `correct` or `probabilities`, `epochs` the length of the training.
    """

    def __init__(self, kind: str, epochs: int) -> None:
        self.kind, self.epochs = kind, epochs
        self.best: dict[tuple[int, str], float] = {}

    def collect(self, network: int, probabilities: Tensor, labels: Tensor) -> dict[int, Kept]:
        """Return by network what may be kept of its probabilities, still on their device; nothing for `none`."""
        if self.kind == "none":
            return {}
        # In half precision a probability has three digits, and the smallest ones become 0.
        half = probabilities.half() if self.kind == "probabilities" else None
        return {network: (probabilities.argmax(1) == labels, half, labels)}

    def see(self, results: Iterable[EpochResult]) -> None:
        """Take note of epochs that were trained before."""
        for result in results:
            self._better(result.evaluations)

    def keep(self, epoch: int, evaluations: Sequence[Evaluation], kept: Mapping[int, Kept]) -> list[Evaluation]:
        """Return an epoch's evaluations, with the outcomes of the networks for which it is a best or the last one."""
        better = self._better(evaluations)
        if epoch == self.epochs - 1:
            better |= kept.keys()
        return [
            replace(evaluation, outcomes=_outcomes(*kept[evaluation.network]))
            if evaluation.network in better & kept.keys()
            and (evaluation.classifier, evaluation.split) == ("main", "test")
            else evaluation
            for evaluation in evaluations
        ]

    def _better(self, evaluations: Iterable[Evaluation]) -> set[int]:
        """Return the networks that are better than ever on a split."""
        better = set()
        for evaluation in evaluations:
            place = evaluation.network, evaluation.split
            if evaluation.classifier == "main" and evaluation.metrics.top1_error < self.best.get(place, float("inf")):
                self.best[place] = evaluation.metrics.top1_error
                better.add(evaluation.network)
        return better


def drop_surpassed(results: list[EpochResult]) -> None:
    """Remove the outcomes that a checkpoint need not carry on: those of no best epoch, and not of the newest."""
    needed = {len(results) - 1}
    best: dict[tuple[int, str], tuple[float, int]] = {}
    for place, result in enumerate(results):
        for evaluation in result.evaluations:
            if evaluation.classifier == "main":
                key = evaluation.network, evaluation.split
                best[key] = min(best.get(key, (float("inf"), -1)), (evaluation.metrics.top1_error, place))
    needed |= {place for _, place in best.values()}
    for place, result in enumerate(results):
        if place not in needed and any(each.outcomes for each in result.evaluations):
            results[place] = replace(result, evaluations=[replace(each, outcomes=None) for each in result.evaluations])


def _outcomes(correct: Tensor, probabilities: Tensor | None, labels: Tensor) -> Outcomes:
    import numpy as np

    order = labels.to("cpu", torch.int32).numpy()
    packed = np.packbits(correct.cpu().numpy())
    more = () if probabilities is None else (_compressed(probabilities.cpu().numpy()), _compressed(order))
    return Outcomes(hashlib.sha256(order.tobytes()).hexdigest(), b64encode(packed.tobytes()).decode(), *more)


def _compressed(numbers: Any) -> str:
    return b64encode(zlib.compress(numbers.tobytes(), 1)).decode()
