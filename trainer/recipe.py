"""The optimizers and schedules that a configuration names, with their hyperparameters. No torch before one is built."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter

from trainer.parts import OPTIMIZERS, SCHEDULES, register_class
from trainer.registry import Part, Registry

if TYPE_CHECKING:
    import torch
    from torch.nn import Parameter

    from trainer.config import TrainConfig

Beta = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Optimizer(ABC):
    """A way to update parameters, as a frozen dataclass of hyperparameters. Subclasses name themselves and register.

    `reads` names the fields of a configuration that no optimizer reads unless it lists them. `defaults` holds the
    defaults of `learning_rate` and `weight_decay` where they differ from those of the configuration.
    """

    name: ClassVar[str]
    reads: ClassVar[tuple[str, ...]] = ()
    defaults: ClassVar[Mapping[str, float]] = {}
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def __init_subclass__(cls) -> None:
        register_class(OPTIMIZERS, cls)

    @abstractmethod
    def build(self, config: TrainConfig, parameters: Iterable[Parameter]) -> torch.optim.Optimizer:
        """Build the optimizer of these parameters.

        Its state and its count of steps are to be on the device of the parameters, where a recorded step changes them.
        """


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent with momentum; the weight decay is part of the gradient."""

    name = "sgd"
    reads = ("momentum", "nesterov")

    def build(self, config: TrainConfig, parameters: Iterable[Parameter]) -> torch.optim.Optimizer:
        """Build the optimizer of these parameters."""
        import torch

        return torch.optim.SGD(
            parameters,
            lr=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            nesterov=config.nesterov and config.momentum > 0,
            fused=True,
        )


@dataclass(frozen=True)
class AdamW(Optimizer):
    """Adam with decoupled weight decay: each step takes `learning_rate * weight_decay` of every parameter.

    Defaults are PyTorch's. Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019.
    """

    name = "adamw"
    defaults = {"learning_rate": 1e-3, "weight_decay": 1e-2}

    betas: tuple[Beta, Beta] = (0.9, 0.999)
    eps: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-8

    def build(self, config: TrainConfig, parameters: Iterable[Parameter]) -> torch.optim.Optimizer:
        """Build the optimizer of these parameters."""
        import torch

        return torch.optim.AdamW(
            parameters,
            lr=config.learning_rate,
            betas=self.betas,
            eps=self.eps,
            weight_decay=config.weight_decay,
            fused=True,
        )


@dataclass(frozen=True)
class Schedule(ABC):
    """A course of the learning rate, as a frozen dataclass of hyperparameters. Subclasses name themselves and register.

    `reads` names the fields of a configuration that no schedule reads unless it lists them.
    """

    name: ClassVar[str]
    reads: ClassVar[tuple[str, ...]] = ()
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def __init_subclass__(cls) -> None:
        register_class(SCHEDULES, cls)

    @abstractmethod
    def factor(self, config: TrainConfig, epochs: float) -> float:
        """Return the factor on the learning rate after so many epochs (a fraction within an epoch), without warmup."""


@dataclass(frozen=True)
class Steps(Schedule):
    """The rate falls by `gamma` after each of the `milestones`."""

    name = "steps"
    reads = ("milestones", "gamma")

    def factor(self, config: TrainConfig, epochs: float) -> float:
        """Return the factor on the learning rate after so many epochs."""
        passed = sum(epochs >= milestone for milestone in config.settled_milestones(config.milestones))
        return config.gamma**passed


@dataclass(frozen=True)
class Cosine(Schedule):
    """The rate falls along half a period of a cosine, from the end of the warmup, to `final` of the learning rate.

    Source: Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017, without restarts.
    """

    name = "cosine"
    final: Share = 0.0

    def factor(self, config: TrainConfig, epochs: float) -> float:
        """Return the factor on the learning rate after so many epochs."""
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * _progress(config, epochs))) / 2


@dataclass(frozen=True)
class Linear(Schedule):
    """The rate falls on a straight line, from the end of the warmup, to `final` of the learning rate."""

    name = "linear"
    final: Share = 0.0

    def factor(self, config: TrainConfig, epochs: float) -> float:
        """Return the factor on the learning rate after so many epochs."""
        return self.final + (1 - self.final) * (1 - _progress(config, epochs))


def _progress(config: TrainConfig, epochs: float) -> float:
    """Return the share of the training after the warmup that is over."""
    return max(0.0, (epochs - config.warmup) / (config.epochs - config.warmup))


def named(value: Any, registry: Registry[None]) -> Part[None] | None:
    """Return the part that a configuration names, alone or as the only key of a mapping; None where it does not."""
    name = next(iter(value)) if isinstance(value, dict) and len(value) == 1 else value
    return registry.get(name) if isinstance(name, str) else None


def build_part(value: Any, registry: Registry[None]) -> Any:
    """Return the part that a checked configuration names, with its hyperparameters."""
    part = named(value, registry)
    assert part is not None, value
    return _adapter(part.make).validate_python(value[part.name] if isinstance(value, dict) else {})


@cache
def _adapter(part: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(part)
