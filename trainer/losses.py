"""The formulas that several methods share, on logits [B, K], features [B, D] and target distributions [B, K].

Everything is computed in at least float32 and averaged over the batch unless a function says otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """Labels [B] as float32 distributions [B, K]."""
    targets = labels.new_zeros((len(labels), num_classes)).float()
    return targets.scatter_(1, labels[:, None], 1.0)


def soft_cross_entropy(logits: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """Mean over the batch of -sum(targets * log softmax(logits / temperature))."""
    return -(targets * _wide(logits).div(temperature).log_softmax(-1)).sum(-1).mean()


def kl_divergence(logits: Tensor, target_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Mean over the batch of KL(softmax(target_logits / T) || softmax(logits / T)); gradients reach both sides."""
    log_target = _wide(target_logits).div(temperature).log_softmax(-1)
    log_own = _wide(logits).div(temperature).log_softmax(-1)
    return (log_target.exp() * (log_target - log_own)).sum(-1).mean()


def _wide(values: Tensor) -> Tensor:
    """float32 for reduced precisions, unchanged otherwise."""
    return values.float() if values.element_size() < 4 else values
