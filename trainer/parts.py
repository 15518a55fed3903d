"""Register the parts of a training by name: methods, networks, data sets, recipes and metrics.

No torch and no pydantic here: a file of parts imports this through `from trainer import ...`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, Literal, TypeVar

from trainer.registry import Facts, Part, PartError, Registry
from trainer.spec import DatasetSpec

Made = TypeVar("Made", bound=Callable[..., Any])

# The arguments that a network may take beside `num_classes`; what it does not take cannot be configured.
NETWORK_ARGUMENTS = ("width", "stages", "heads")


@dataclass(frozen=True)
class NetworkFacts:
    """Limits of a network's configuration.

    `takes` lists the arguments that can be configured, of `NETWORK_ARGUMENTS`. `heads` lists the kinds of auxiliary
    heads it can carry, its own kind first; `stages` is its number of backbone stages, `min_stages` the least number
    that it can be cut down to. Methods that compare the features of heads with the network's own work with
    `comparable_heads` alone. `features` says whether its output is an `Output` with features [B, D], which some
    methods read; a network that does not gives logits alone.
    """

    takes: tuple[str, ...] = NETWORK_ARGUMENTS
    heads: tuple[str, ...] = ()
    comparable_heads: tuple[str, ...] = ()
    stages: int = 1
    min_stages: int = 1
    features: bool = False


@dataclass(frozen=True)
class MetricFacts:
    """Facts about a metric: which `direction` is better, and the `digits` after the point and the `unit` in print."""

    direction: Literal["lower", "higher"]
    digits: int = 2
    unit: str = ""


METHODS: Registry[None] = Registry("method", "trainer.methods")
NETWORKS: Registry[NetworkFacts] = Registry("network", "trainer.networks")
DATASETS: Registry[DatasetSpec] = Registry("data set", "trainer.data.published")
OPTIMIZERS: Registry[None] = Registry("optimizer", "trainer.recipe")
SCHEDULES: Registry[None] = Registry("schedule", "trainer.recipe")
METRICS: Registry[MetricFacts] = Registry("metric", "trainer.builtin_metrics")
REGISTRIES: tuple[Registry[Any], ...] = (METHODS, NETWORKS, DATASETS, OPTIMIZERS, SCHEDULES, METRICS)


def register_class(registry: Registry[None], cls: type[Any]) -> None:
    """Register a subclass of `Method`, `Optimizer` or `Schedule` that has a name."""
    if not hasattr(cls, "name"):
        return
    file, line = _place_of_class(cls)
    registry.add(
        Part(
            kind=registry.kind,
            name=cls.name,
            title=cls.__dict__.get("title", cls.name),
            version=cls.__dict__.get("version", 1),
            facts=None,
            make=cls,
            file=file,
            line=line,
        )
    )


def network(
    name: str,
    *,
    title: str | None = None,
    version: int = 1,
    heads: tuple[str, ...] = (),
    comparable_heads: tuple[str, ...] | None = None,
    stages: int = 1,
    min_stages: int | None = None,
    features: bool = False,
) -> Callable[[Made], Made]:
    """Register a function that builds a network: any module from images [B, 3, H, W] to logits [B, K].

    The function gets `num_classes`, and those of `width`, `stages` and `heads` that it takes. A network with `heads`
    or `features` gives an `Output`; with heads, its `forward` takes `heads`, a bool. The other arguments are those of
    `NetworkFacts`; by default all heads are comparable, and a network cannot be cut.
    """

    def register(build: Made) -> Made:
        facts = NetworkFacts(
            takes=_arguments(build, name),
            heads=tuple(heads),
            comparable_heads=tuple(heads if comparable_heads is None else comparable_heads),
            stages=stages,
            min_stages=stages if min_stages is None else min_stages,
            features=features or bool(heads),
        )
        return _added(NETWORKS, build, name, title, version, facts)

    return register


def dataset(name: str, *, title: str | None = None, version: int = 1, **facts: Any) -> Callable[[Made], Made]:
    """Register a function that reads a data set: from the data root to its training and its test images.

    Each of the two is a pair of pixels, uint8 [N, H, W, 3], and labels, int64 [N]. The other arguments are those of
    `DatasetSpec`.

    Raises PartError for another argument.
    """

    def register(read: Made) -> Made:
        try:
            spec = DatasetSpec(**facts)
        except TypeError as error:
            reason = str(error).removeprefix("DatasetSpec.__init__() ")
            raise PartError(f"{_where(read)}: the data set {name!r} {reason}") from None
        return _added(DATASETS, read, name, title, version, spec)

    return register


def metric(
    name: str,
    *,
    direction: Literal["lower", "higher"],
    title: str | None = None,
    digits: int = 2,
    unit: str = "",
    version: int = 1,
) -> Callable[[Made], Made]:
    """Register a function that measures a classifier: probabilities [N, K] and labels [N] to a number.

    Both are torch tensors on the CPU, float64 and int64, and the function's own to change; its number is finite, in
    the `unit`. It is called after each evaluation, once per classifier and split, with all images of the split. The
    other arguments are those of `MetricFacts`.

    Raises PartError for another direction.
    """

    def register(measure: Made) -> Made:
        if direction not in ("lower", "higher"):
            wrong = f"the direction of {name!r} is {direction!r}; give 'lower' or 'higher', whichever is better"
            raise PartError(f"{_where(measure)}: {wrong}")
        return _added(METRICS, measure, name, title, version, MetricFacts(direction, digits, unit))

    return register


def _added(registry: Registry[Facts], function: Made, name: str, title: str | None, version: int, facts: Facts) -> Made:
    """Register a function and return it."""
    code = function.__code__
    registry.add(
        Part(
            kind=registry.kind,
            name=name,
            title=name if title is None else title,
            version=version,
            facts=facts,
            make=function,
            file=Path(code.co_filename),
            line=code.co_firstlineno,
        )
    )
    return function


def _where(function: Callable[..., Any]) -> str:
    return f"{function.__code__.co_filename}:{function.__code__.co_firstlineno}"


def _arguments(build: Callable[..., Any], name: str) -> tuple[str, ...]:
    """Return those of `NETWORK_ARGUMENTS` that a function takes; raises PartError for one that it cannot get."""
    parameters = signature(build).parameters
    if any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return NETWORK_ARGUMENTS
    if "num_classes" not in parameters:
        raise PartError(f"{_where(build)}: the network {name!r} takes no num_classes, the number of its outputs")
    for parameter in parameters.values():
        if parameter.default is Parameter.empty and parameter.name not in ("num_classes", *NETWORK_ARGUMENTS):
            raise PartError(
                f"{_where(build)}: the network {name!r} takes {parameter.name!r}, which nothing gives: a network gets "
                f"num_classes, {', '.join(NETWORK_ARGUMENTS)}; give it a default"
            )
    return tuple(argument for argument in NETWORK_ARGUMENTS if argument in parameters)


def _place_of_class(cls: type) -> tuple[Path, int | None]:
    """Return the file of the class statement that is being run, and its line."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__") != cls.__module__:
        frame = frame.f_back
    return Path(frame.f_code.co_filename), frame.f_lineno
