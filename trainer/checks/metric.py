"""Check a metric: a finite number, whatever the order of images."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trainer.parts import MetricFacts
from trainer.registry import Part

IMAGES, CLASSES = 200, 10


def cases(classes: int = CLASSES) -> dict[str, tuple[Tensor, Tensor]]:
    """Return probabilities [N, K] and labels [N] of classifiers, from plausible ones to the ends of the scale."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (IMAGES,), generator=generator)
    logits = torch.randn(IMAGES, classes, generator=generator, dtype=torch.float64)
    right = torch.nn.functional.one_hot(labels, classes).double()
    return {
        "a middling classifier": ((logits + 2 * right).softmax(1), labels),
        "a perfect one": (right, labels),
        "one that is always sure and wrong": (right.roll(1, 1), labels),
        "a uniform one": (torch.full_like(right, 1 / classes), labels),
    }


def is_finite(part: Part[MetricFacts]) -> str | None:
    """Find a value that is no finite number."""
    for classes in (CLASSES, 2):
        for case, (probabilities, labels) in cases(classes).items():
            value = part.make(probabilities.clone(), labels.clone())
            try:
                number = float(value)
            except (TypeError, ValueError):
                return f"gives {type(value).__name__} and not a number; return one float for all images"
            if not math.isfinite(number):
                return f"is {number} for {case} with {classes} classes; keep logarithms and quotients away from 0"
    return None


def ignores_the_order(part: Part[MetricFacts]) -> str | None:
    """Find a value that depends on the order of images, or on when it was asked for."""
    probabilities, labels = cases()["a middling classifier"]
    first = float(part.make(probabilities.clone(), labels.clone()))
    again = float(part.make(probabilities.clone(), labels.clone()))
    if first != again:
        return f"gives {first:.6g} and then {again:.6g} for the same images; draw no random numbers and keep no state"
    for seed in range(3):
        order = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(seed))
        other = float(part.make(probabilities[order], labels[order]))
        if not math.isclose(first, other, rel_tol=1e-9, abs_tol=1e-12):
            return (
                f"depends on the order of images: {first:.6g} in one, {other:.6g} in another; images have no order, so "
                "sort by a value first, or average over all of them"
            )
    return None


def points_the_right_way(part: Part[MetricFacts]) -> str | None:
    """Find a direction that prefers a wrong classifier to a perfect one."""
    perfect, wrong = (float(part.make(*cases()[case])) for case in list(cases())[1:3])
    better = "lower" if part.facts.direction == "higher" else "higher"
    if (perfect < wrong) if part.facts.direction == "higher" else (perfect > wrong):
        return (
            f"is {perfect:.6g} for a perfect classifier and {wrong:.6g} for one that is always wrong, and says that "
            f"{part.facts.direction} is better; declare direction={better!r}"
        )
    return None


CHECKS: dict[str, Callable[[Part[Any]], str | None]] = {
    "it is a finite number": is_finite,
    "it does not depend on the order of images": ignores_the_order,
    "its direction prefers a perfect classifier": points_the_right_way,
}
