"""Formulas that several methods share.

Distributions are log-probabilities [..., B, K] so that one log-softmax can serve several terms. Everything is computed
in at least float32, also under autocast; losses are averaged over the batch B and summed over the dimensions before it,
such as one for the heads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import Tensor


def log_softmax(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Return log softmax(logits / temperature) over the last dimension."""
    logits = wide(logits)
    return (logits if temperature == 1 else logits / temperature).log_softmax(-1)


def cross_entropy(log_probabilities: Tensor, targets: Tensor) -> Tensor:
    """Return -sum(targets * log_probabilities), a scalar."""
    return (targets * log_probabilities).sum() / -log_probabilities.shape[-2]


def kl_divergence(log_probabilities: Tensor, log_targets: Tensor) -> Tensor:
    """Return KL(targets || probabilities), a scalar; gradients reach both sides."""
    return (log_targets.exp() * (log_targets - log_probabilities)).sum() / log_probabilities.shape[-2]


def one_hot(labels: Tensor, num_classes: int, like: Tensor | None = None) -> Tensor:
    """Return labels [B] as distributions [B, K] in the precision of losses on `like` (float32 without)."""
    return labels.new_zeros((len(labels), num_classes), dtype=_wide_dtype(like)).scatter_(1, labels[:, None], 1.0)


def stack_alike(heads: Sequence[Tensor], deepest: Tensor) -> Tensor:
    """Stack features [B, D] of H heads as one tensor [H, B, D], to be compared with those of the deepest classifier.

    Raises ValueError when a head has another number of channels than the deepest classifier.
    """
    for features in heads:
        if features.shape[-1] != deepest.shape[-1]:
            raise ValueError(
                f"a head has {features.shape[-1]} feature channels and the deepest classifier {deepest.shape[-1]}: "
                "their features can only be compared where both have the same number; choose another kind of heads"
            )
    return stack(heads)


def stack(tensors: Sequence[Tensor]) -> Tensor:
    """Stack tensors of one shape along a new first dimension."""
    import torch

    return wide(torch.stack(list(tensors)))


def wide(values: Tensor) -> Tensor:
    """Convert reduced precisions to float32; leave others unchanged."""
    return values.to(_wide_dtype(values))


def _wide_dtype(values: Tensor | None) -> torch.dtype:
    import torch

    return torch.float32 if values is None else torch.promote_types(values.dtype, torch.float32)
