"""Check an optimizer or a schedule of the learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from trainer.checks.training import config_of, difference, first_trial, learned, ready
from trainer.config import TrainConfig
from trainer.registry import Part


def resumes(part: Part[Any]) -> str | None:
    """Find state of an optimizer or a schedule that an interrupted training does not get back."""
    config = _trial(part)
    if place := difference(first_trial(config), learned(config, stop=True)):
        return (
            f"training that goes on from a checkpoint differs at {place}; keep state in the optimizer's `state` and "
            "`param_groups`, whose tensors its state_dict holds, and compute a schedule from the epochs alone"
        )
    return None


def repeats(part: Part[Any]) -> str | None:
    """Find state that one training leaves to the next in the same process."""
    config = _trial(part)
    if place := difference(first_trial(config), learned(config)):
        return f"a second training in the same process differs at {place}; keep no state in the class or the module"
    return None


def changes_weights(part: Part[Any]) -> str | None:
    """Find an optimizer that leaves parameters as they are."""
    training = ready(_trial(part))
    before = [parameter.detach().clone() for parameter in training.networks.parameters()]
    training.epoch(0)
    if all(parameter.equal(old) for parameter, old in zip(training.networks.parameters(), before, strict=True)):
        return "an epoch changes no parameter; build the optimizer of the `parameters` that it is given"
    return None


def factors_are_numbers(part: Part[Any]) -> str | None:
    """Find a schedule whose factor is negative, or is no finite number, at the end of any step of a training."""
    config = _trial(part)
    for epoch in range(config.epochs):
        for rate in config.learning_rates(epoch, 4):
            if not math.isfinite(rate) or rate < 0:
                return f"the rate in epoch {epoch + 1} is {rate}; return a factor of 0 or more"
    return None


def _trial(part: Part[Any]) -> TrainConfig:
    return config_of(**{part.kind: part.name})


OPTIMIZER_CHECKS: dict[str, Callable[[Part[Any]], str | None]] = {
    "it changes the weights": changes_weights,
    "1 + 1 epochs give the bits of 2": resumes,
    "a trial does not depend on those before it": repeats,
}
SCHEDULE_CHECKS: dict[str, Callable[[Part[Any]], str | None]] = {
    "its rates are finite numbers": factors_are_numbers,
    "1 + 1 epochs give the bits of 2": resumes,
}
