"""The quality of a classifier from its probabilities: error, calibration, and how well confidence ranks its errors.

Everything is computed on the device of the tensors and read from it once, at the end. The classes of one image are
ranked by probability and, where equal, by index, as argmax does. The order of the images changes nothing but rounding:
where several have the same confidence, AURC is its mean over all their orders, unless the sources' rule is asked for.
NaN anywhere in the probabilities makes every number NaN; nothing here raises on it.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from trainer.results import Metrics

Ties = Literal["shared", "ordered"]


def compute_metrics(probabilities: Tensor, labels: Tensor, bins: int = 10, ties: Ties = "shared") -> Metrics:
    """Return the five metrics of one classifier, with hard labels.

    Args:
        probabilities: [N, K], rows that sum to 1.
        labels: [N], int64.
        bins: of equal width for the ECE, closed on the right: (lo, hi]; 0 belongs to the first.
        ties: how AURC ranks images of equal confidence: `shared` gives its mean over all their orders, `ordered` ranks
            them as they come, as the sources' code does.

    Probabilities of 0 count as the smallest normal number of their precision (87 nats in float32), so that the NLL of
    an image is finite. With K < 5, the top-5 error is 0. AURC: Geifman et al., Bias-Reduced Uncertainty Estimation for
    Deep Neural Classifiers; ECE: Guo et al., On Calibration of Modern Neural Networks.

    Raises ValueError when the shapes do not match or there are no images.
    """
    return Metrics(*metric_values(probabilities, labels, bins, ties).tolist())


def metric_values(probabilities: Tensor, labels: Tensor, bins: int = 10, ties: Ties = "shared") -> Tensor:
    """Return the numbers of `compute_metrics` [5] float64, still on the device."""
    confidence, rank, own = _ranked(probabilities, labels)
    wrong = rank > 0
    smallest = torch.finfo(own.dtype).tiny

    numbers = torch.arange(bins, device=confidence.device)
    bin_of = torch.bucketize(confidence, numbers[1:].to(confidence.dtype) / bins)
    # As a comparison with every bin and not as scattered additions: their order, and so the last digit, would vary.
    member = bin_of[:, None] == numbers
    gaps = (member * (confidence.double() - 1 + wrong.double())[:, None]).sum(0)

    values = torch.stack(
        [
            100 * wrong.double().mean(),
            100 * (rank >= 5).double().mean(),
            -own.double().clamp(min=smallest).log().mean(),
            100 * gaps.abs().sum() / len(labels),
            1000 * _aurc(confidence, wrong, ties),
        ]
    )
    return _spoiled_by_nan(values, confidence)


def excess_aurc(probabilities: Tensor, labels: Tensor, ties: Ties = "shared") -> float:
    """E-AURC times 1000: the AURC minus that of the same errors ranked last. Arguments as for `compute_metrics`."""
    confidence, rank, _ = _ranked(probabilities, labels)
    wrong = rank > 0
    value = 1000 * (_aurc(confidence, wrong, ties) - _aurc(-wrong.double(), wrong, ties))
    return _spoiled_by_nan(value, confidence).item()


def ood_auroc(in_confidence: Tensor, out_confidence: Tensor) -> float:
    """Return how well the top probability separates images of the data set [N] from others [M]: AUROC in percent.

    It is the share of pairs in which the image of the data set has the greater confidence, ties counted half.

    Raises ValueError when one of them is empty.
    """
    return auroc_value(in_confidence, out_confidence).item()


def auroc_value(in_confidence: Tensor, out_confidence: Tensor) -> Tensor:
    """Return the number of `ood_auroc` [] float64, still on the device."""
    if not len(in_confidence) or not len(out_confidence):
        raise ValueError(f"AUROC needs images of both kinds, got {len(in_confidence)} and {len(out_confidence)}")
    ordered = out_confidence.sort().values
    below = torch.searchsorted(ordered, in_confidence)
    below_or_equal = torch.searchsorted(ordered, in_confidence, right=True)
    pairs = 2 * len(in_confidence) * len(out_confidence)
    value = 100 * (below + below_or_equal).sum().double() / pairs
    return _spoiled_by_nan(_spoiled_by_nan(value, in_confidence), out_confidence)


def _ranked(probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return top probability, number of classes ranked before the label, and probability of the label, all [N]."""
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or not len(labels):
        raise ValueError(
            f"metrics need probabilities [N, K] and labels [N] of at least one image, "
            f"got {list(probabilities.shape)} and {list(labels.shape)}"
        )
    own = probabilities.gather(1, labels[:, None])
    lower_index = torch.arange(probabilities.shape[1], device=labels.device) < labels[:, None]
    before = (probabilities > own) | ((probabilities == own) & lower_index)
    return probabilities.amax(1), before.sum(1), own[:, 0]


def _aurc(confidence: Tensor, wrong: Tensor, ties: Ties) -> Tensor:
    """Return the mean over k of the error rate among the k most confident images."""
    ordered = (-confidence).sort(stable=True)
    errors = wrong[ordered.indices].cumsum(0)
    numbers = torch.arange(1, len(wrong) + 1, dtype=torch.float64, device=wrong.device)
    if ties == "shared":
        # The errors before a group of equal ones and at its end, and between them a straight line.
        before = torch.searchsorted(ordered.values, ordered.values)
        after = torch.searchsorted(ordered.values, ordered.values, right=True)
        sums = torch.cat([errors.new_zeros(1), errors])
        errors = sums[before] + (sums[after] - sums[before]) * ((numbers - before) / (after - before))
    return (errors / numbers).mean()


def _spoiled_by_nan(values: Tensor, confidence: Tensor) -> Tensor:
    """Return `values`, or NaN where a confidence is not finite; a comparison would have to wait for the device."""
    return values + 0 * confidence.sum()
