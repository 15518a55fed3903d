"""A training configuration: every knob that changes what is learned, checked, with a stable identity. No torch here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import fields
from difflib import get_close_matches
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from trainer.datasets import DATASETS, FOLDER_PREFIX, dataset_spec
from trainer.networks import NETWORKS, head_count
from trainer.objective import METHODS, Objective, build_methods, method_parameters

if TYPE_CHECKING:
    from trainer.objective import Method, Requires

# Part of every key: raise it when the meaning of an existing field changes, and every trial becomes a new one.
CONFIG_VERSION = 1


class TrainConfig(BaseModel):
    """One training run. Everything here is science: paths, devices and workers are arguments of `train`.

    Values are canonical after construction: method order, spelled-out defaults and equivalent values
    (`stages: 4` of a four-stage network, BYOT on `[1, 2, 3]` of three heads) make equal configurations.
    Defaults are the paper's CIFAR recipe.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    dataset: str = "cifar100"
    subset: int | None = Field(None, ge=1, description="training images per class; None for all")
    validation: int = Field(0, ge=0, description="images held out of the training set, evaluated every epoch")
    normalization: Literal["dataset", "imagenet"] = "dataset"
    padding: int = Field(4, ge=0, le=64, description="pixels of padding for the random crop; 0 for none")
    padding_mode: Literal["zeros", "reflect"] = "zeros"
    flip: bool | None = Field(None, description="random horizontal flip; None: where a mirrored image keeps its label")
    ood_dataset: str | None = Field(None, description="a second data set for out-of-distribution detection")

    network: str = "resnet18"
    peer: str | None = Field(None, description="the second network of DML and DCM; None for another of the same kind")
    width: int = Field(
        64, ge=1, le=4096, description="64 is the published network; others scale its channels by width / 64"
    )
    stages: int | None = Field(None, ge=1, description="backbone stages kept; None for all")
    heads: str = Field(
        "auto", description="auto: the network's own kind where a method needs heads; native, none, or a kind"
    )

    methods: dict[str, dict[str, Any]] = Field(default_factory=dict)

    epochs: int = Field(300, ge=1)
    batch_size: int = Field(128, ge=1)
    learning_rate: float = Field(0.1, gt=0, allow_inf_nan=False)
    milestones: tuple[int, ...] | None = Field(None, description="epochs at which the rate falls; None: at 1/2 and 3/4")
    gamma: float = Field(0.1, gt=0, allow_inf_nan=False)
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = True
    weight_decay: float = Field(5e-4, ge=0, allow_inf_nan=False)
    precision: Literal["bfloat16", "float32", "float64"] = "bfloat16"
    seed: int = Field(0, ge=0, lt=2**63)

    @field_validator("dataset", "ood_dataset")
    @classmethod
    def _known_dataset(cls, name: str | None) -> str | None:
        if name is not None:
            try:
                dataset_spec(name)
            except KeyError:
                more = f", or {FOLDER_PREFIX}NAME for a folder of images"
                raise problem(unknown("data set", name, DATASETS, more)) from None
            folder = name.removeprefix(FOLDER_PREFIX)
            if folder != name and (".." in folder.split("/") or folder.startswith("/") or "\0" in folder):
                raise problem(f"{name!r} leaves the data root; NAME is a folder below it")
        return name

    @field_validator("network", "peer")
    @classmethod
    def _known_network(cls, name: str | None) -> str | None:
        if name is not None and name not in NETWORKS:
            raise problem(unknown("network", name, NETWORKS))
        return name

    @field_validator("methods", mode="before")
    @classmethod
    def _known_methods(cls, methods: Any) -> Any:
        if not isinstance(methods, dict):
            raise problem(f"{methods!r} is not a mapping of methods to their hyperparameters, such as {{pskd: {{}}}}")
        return _copy(_checked_methods(json.dumps(methods, sort_keys=True, default=repr)))

    @field_validator("milestones")
    @classmethod
    def _rising(cls, milestones: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if milestones is not None and (list(milestones) != sorted(set(milestones)) or min(milestones, default=1) < 1):
            raise problem(f"{list(milestones)} must be rising epoch numbers, 1 or more")
        return milestones

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        spec = NETWORKS[self.network]
        requires = self.requires
        found: list[tuple[tuple[str, ...], str]] = []
        settled: dict[str, Any] = {}

        if self.stages is not None and not spec.min_stages <= self.stages <= spec.stages:
            allowed = f"{spec.min_stages} to {spec.stages}" if spec.min_stages < spec.stages else f"only {spec.stages}"
            found.append((("stages",), f"{self.network} has {allowed} stages, not {self.stages}"))
        elif self.stages == spec.stages:
            settled["stages"] = None
        if self.peer is not None and requires.networks < 2:
            found.append((("peer",), f"{self.peer!r} is not used: no method here trains two networks (dml and dcm do)"))
        elif self.peer == self.network:
            settled["peer"] = None
        if self.padding == 0:
            settled["padding_mode"] = "zeros"
        if self.flip is not None and self.flip == dataset_spec(self.dataset).flip:
            settled["flip"] = None
        if self.milestones is not None and self.milestones == self.settled_milestones(None):
            settled["milestones"] = None
        images = dataset_spec(self.dataset).train_images
        if images is not None and self.validation >= images:
            found.append((("validation",), f"{self.validation} leaves nothing of the {images:,} training images"))

        try:
            settled["heads"] = heads = self._settled_heads(requires)
            stages = self.stages or spec.stages
            count = head_count(self.network, stages, None if heads == "none" else heads)
            settled["methods"] = _copy(_resolved_methods(json.dumps(self.methods), count))
        except PydanticCustomError as error:
            found += (error.context or {})["problems"]
        if found:
            raise problems(found)
        for name, value in settled.items():
            object.__setattr__(self, name, value)
        return self

    def _settled_heads(self, requires: Requires) -> str:
        """The kind of heads every network of this run carries, `none` for none."""
        if self.heads == "none" or (self.heads == "auto" and not requires.heads):
            if requires.heads:
                needing = ", ".join(name for name in self.methods if METHODS[name].requires.heads)
                raise problem(f"'none', but {needing} trains auxiliary heads; leave it out or name a kind", "heads")
            return "none"
        by_default = self.heads in ("auto", "native")
        kind = next(iter(NETWORKS[self.network].heads), None) if by_default else self.heads
        for name in (self.network, self.peer or self.network):
            allowed = NETWORKS[name].heads
            if kind not in allowed:
                able = ", ".join(
                    other for other, spec in NETWORKS.items() if (kind in spec.heads if kind else spec.heads)
                )
                raise problem(
                    f"{name} cannot carry {repr(kind) if kind else 'auxiliary'} heads; it can carry: "
                    f"{', '.join(allowed) or 'none'} (networks that can: {able or 'none'})",
                    "network" if by_default else "heads",
                )
        return str(kind)

    @property
    def requires(self) -> Requires:
        """What the methods of this run need, merged."""
        return _requires(frozenset(self.methods))

    @property
    def head_kind(self) -> str | None:
        """The kind of auxiliary heads, as `build_network` takes it."""
        return None if self.heads == "none" else self.heads

    @property
    def network_names(self) -> list[str]:
        """The networks trained side by side, first to last."""
        return [self.network, self.peer or self.network][: self.requires.networks]

    def settled_milestones(self, milestones: tuple[int, ...] | None) -> tuple[int, ...]:
        """The epochs at which the learning rate falls; without any given, those of the paper in proportion."""
        if milestones is not None:
            return milestones
        return tuple(sorted({self.epochs // 2, self.epochs * 3 // 4} - {0}))

    def learning_rate_at(self, epoch: int) -> float:
        """The learning rate of one epoch (0-based)."""
        passed = sum(epoch >= milestone for milestone in self.settled_milestones(self.milestones))
        return self.learning_rate * self.gamma**passed

    def build_methods(self) -> list[Method]:
        """The methods of this run, fresh, without state."""
        stages = self.stages or NETWORKS[self.network].stages
        heads = head_count(self.network, stages, self.head_kind)
        return [method.resolve(heads) for method in build_methods(self.methods)]

    def science(self) -> dict[str, Any]:
        """The fields that differ from their defaults, as plain JSON values: the identity before hashing."""
        values = self.model_dump(mode="json")
        heads = TrainConfig._settled_heads(self.model_copy(update={"heads": "auto"}), self.requires)
        defaults = {**_DEFAULTS, "heads": heads}
        return {name: value for name, value in values.items() if value != defaults[name]}

    def key(self) -> str:
        """The identity of a run: sha256 (64 hex digits) over what differs from the defaults, and `CONFIG_VERSION`.

        A field added later with a default leaves every earlier key as it was.
        """
        text = json.dumps({"version": CONFIG_VERSION, **self.science()}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


_DEFAULTS: dict[str, Any] = {
    name: field.get_default(call_default_factory=True) for name, field in TrainConfig.model_fields.items()
}


def problems(found: list[tuple[tuple[str, ...], str]]) -> PydanticCustomError:
    """A validation error of one or more problems, each with the path of its key below the one being checked.

    Whoever lists them one by one finds them in the error's context under `problems`.
    """
    message = "; ".join(message for _, message in found)
    return PydanticCustomError("config", "{message}", {"message": message, "problems": found})


def problem(message: str, *path: str) -> PydanticCustomError:
    """A validation error of one problem."""
    return problems([(path, message)])


def unknown(kind: str, name: Any, allowed: Iterable[str], more: str = "") -> str:
    """What to say of a name that is not in a catalogue: the nearest one and all that are allowed."""
    allowed = sorted(allowed)
    near = get_close_matches(str(name), allowed, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {kind} {name!r}{hint} (allowed: {', '.join(allowed) or 'none'}{more})"


# A grid of 100,000 trials has few distinct combinations of methods: each is checked once.


@lru_cache(maxsize=4096)
def _checked_methods(text: str) -> dict[str, dict[str, Any]]:
    import trainer.methods  # noqa: F401  (fills the registry)

    checked: dict[str, dict[str, Any]] = {}
    found: list[tuple[tuple[str, ...], str]] = []
    for name, given in sorted(json.loads(text).items()):
        parameters = {} if given is None else given
        if name not in METHODS:
            found.append(((name,), unknown("method", name, METHODS)))
        elif not isinstance(parameters, dict):
            found.append(((name,), f"{parameters!r} is not a mapping of hyperparameters, such as {{}}"))
        else:
            try:
                checked[name] = method_parameters(build_methods({name: parameters})[0])
            except ValidationError as error:
                found += [((name, *path), message) for path, message in _hyperparameter_problems(name, error)]
    if found:
        raise problems(found)
    return json.loads(json.dumps(checked))


def _hyperparameter_problems(method: str, error: ValidationError) -> Iterator[tuple[tuple[str, ...], str]]:
    names = [field.name for field in fields(METHODS[method])]
    for entry in error.errors():
        path = tuple(str(part) for part in entry["loc"])
        if entry["type"] == "unexpected_keyword_argument":
            yield path, unknown(f"hyperparameter of {method}", path[0], names)
        else:
            yield path, f"{entry['input']!r}: {entry['msg'][0].lower()}{entry['msg'][1:]}"


@lru_cache(maxsize=4096)
def _resolved_methods(text: str, num_heads: int) -> dict[str, dict[str, Any]]:
    resolved: dict[str, dict[str, Any]] = {}
    for method in build_methods(json.loads(text)):
        try:
            resolved[method.name] = method_parameters(method.resolve(num_heads))
        except ValueError as error:
            raise problem(str(error), "methods", method.name) from None
    return json.loads(json.dumps(resolved))


@lru_cache(maxsize=4096)
def _requires(names: frozenset[str]) -> Requires:
    return Objective([METHODS[name]() for name in names], 1).requires


def _copy(methods: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: dict(parameters) for name, parameters in methods.items()}


def config_problems(error: ValidationError) -> list[tuple[tuple[str, ...], str]]:
    """Every problem of a configuration that did not validate: the path of its key and a sentence with the value."""
    found: list[tuple[tuple[str, ...], str]] = []
    for entry in error.errors():
        path = tuple(str(part) for part in entry["loc"])
        if entry["type"] == "config":
            found += [((*path, *below), message) for below, message in entry["ctx"]["problems"]]
        elif entry["type"] == "extra_forbidden":
            found.append((path, unknown("key", path[-1], TrainConfig.model_fields)))
        else:
            found.append((path, f"{entry['input']!r}: {entry['msg'][0].lower()}{entry['msg'][1:]}"))
    return found
