"""A training configuration: every knob that changes what is learned, checked, with a stable identity. No torch here."""

from __future__ import annotations

import hashlib
import math
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

from trainer.combination import (
    canonical,
    checked_methods,
    checked_part,
    copied,
    merged_requires,
    plus_zero,
    resolved_methods,
    settled_heads,
    unread,
)
from trainer.datasets import ARRAYS_PREFIX, FOLDER_PREFIX, dataset_spec
from trainer.networks import head_count
from trainer.networks.library import LIBRARIES
from trainer.objective import build_methods
from trainer.parts import DATASETS, METHODS, NETWORKS, OPTIMIZERS, REGISTRIES, SCHEDULES
from trainer.problems import Problems, plain_problems, problem, problems, shown, unknown
from trainer.recipe import build_part, named
from trainer.registry import Part, PartError, remembered
from trainer.spec import IMAGENET_MEAN, IMAGENET_STD

if TYPE_CHECKING:
    from trainer.method import Method, Requires

# Part of every key: raise it when the meaning of an existing field changes, and every trial becomes a new one.
CONFIG_VERSION = 1


class TrainConfig(BaseModel):
    """One training run. Everything here is science: paths, devices and workers are arguments of `train`.

    Values are canonical after construction: method order, spelled-out defaults and equivalent values
    (`stages: 4` of a four-stage network, BYOT on `[1, 2, 3]` of three heads) make equal configurations.
    Defaults are the paper's CIFAR recipe.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str = Field("cifar100", description="what is trained on and tested")
    subset: int | None = Field(None, ge=1, le=10**9, description="training images per class; by default all")
    validation: int = Field(0, ge=0, le=10**9, description="images held out of the training set, evaluated every epoch")
    normalization: Literal["dataset", "imagenet"] = Field("dataset", description="whose mean and standard deviation")
    padding: int = Field(4, ge=0, le=64, description="pixels of padding for the random crop; 0 for no crop")
    padding_mode: Literal["zeros", "reflect"] = Field("zeros", description="what the padding consists of")
    flip: bool | None = Field(
        None, description="random horizontal flip; by default where a mirrored image keeps its label"
    )
    ood_dataset: str | None = Field(None, description="a second data set for out-of-distribution detection")

    network: str = Field("resnet18", description="the network")
    peer: str | None = Field(None, description="the second network of DML and DCM; by default another of the same kind")
    width: int = Field(
        64, ge=1, le=4096, description="64 is the published network; others scale its channels by width / 64"
    )
    stages: int | None = Field(None, ge=1, description="backbone stages kept; by default all")
    heads: str = Field(
        "auto",
        description="auxiliary heads: auto (the network's own kind where a method needs heads), native (always), "
        "none, or a kind",
    )

    methods: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="how it is trained, with hyperparameters; by default cross-entropy alone"
    )

    epochs: int = Field(300, ge=1, le=1_000_000, description="times that every training image is seen")
    batch_size: int = Field(128, ge=1, le=1_000_000, description="images per step")
    optimizer: str | dict[str, dict[str, Any]] = Field(
        "sgd", description="what updates the weights, sgd or adamw, with hyperparameters"
    )
    learning_rate: float = Field(
        0.1, gt=0, allow_inf_nan=False, description="its highest value; by default 0.001 for adamw"
    )
    warmup: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="epochs, or part of one, in which the rate rises step by step"
    )
    schedule: str | dict[str, dict[str, Any]] = Field(
        "steps", description="how the rate falls: steps (at milestones), cosine or linear (step by step to the end)"
    )
    milestones: tuple[int, ...] | None = Field(
        None, description="epochs after which the rate falls; by default 1/2 and 3/4 of them"
    )
    gamma: float = Field(0.1, gt=0, allow_inf_nan=False, description="factor on the learning rate at each milestone")
    momentum: float = Field(0.9, ge=0, lt=1, description="of stochastic gradient descent")
    nesterov: bool = Field(True, description="Nesterov's momentum")
    weight_decay: float = Field(
        5e-4, ge=0, allow_inf_nan=False, description="on every parameter; by default 0.01 for adamw"
    )
    precision: Literal["bfloat16", "float32", "float64"] = Field(
        "bfloat16", description="of the networks' arithmetic; losses and metrics are float32 at least"
    )
    seed: int = Field(0, ge=0, lt=2**63, description="decides the initial weights, the order and the augmentation")

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_optimizer(cls, values: Any) -> Any:
        optimizer = named(values.get("optimizer"), OPTIMIZERS) if isinstance(values, dict) else None
        return {**optimizer.make.defaults, **values} if optimizer else values

    @field_validator("dataset", "ood_dataset")
    @classmethod
    def _known_dataset(cls, name: str | None) -> str | None:
        if name is not None:
            try:
                dataset_spec(name)
            except KeyError:
                more = f", {FOLDER_PREFIX}NAME for a folder of images, or {ARRAYS_PREFIX}FILE for one of arrays"
                raise problem(unknown("data set", name, DATASETS, more)) from None
            kind, _, place = name.partition(":")
            if place and (".." in place.split("/") or place.startswith("/") or "\0" in place):
                what = "FILE is one" if f"{kind}:" == ARRAYS_PREFIX else "NAME is a folder"
                raise problem(f"{name!r} leaves the data root; {what} below it")
        return name

    @field_validator("network", "peer")
    @classmethod
    def _known_network(cls, name: str | None) -> str | None:
        try:
            if name is not None and name not in NETWORKS:
                more = f"; or {', '.join(f'{library}:NAME' for library in LIBRARIES)}"
                raise problem(unknown("network", name, NETWORKS, more))
        except PartError as error:
            raise problem(str(error)) from None
        return name

    @field_validator(
        *("subset", "validation", "padding", "width", "stages", "epochs", "batch_size"),
        *("learning_rate", "warmup", "gamma", "momentum", "weight_decay", "seed"),
        mode="before",
    )
    @classmethod
    def _number(cls, value: Any) -> Any:
        # pydantic accepts true as 1, and compares limits with what is not a number.
        if isinstance(value, bool):
            raise problem(f"{shown(value)} is not a number")
        if isinstance(value, float | str) and _not_finite(value):
            raise problem(f"{shown(value)} is not a finite number")
        return plus_zero(value)

    @field_validator("methods", mode="before")
    @classmethod
    def _known_methods(cls, methods: Any) -> Any:
        if not isinstance(methods, dict) or not all(isinstance(name, str) for name in methods):
            raise problem(
                f"{shown(methods)} is not a mapping of methods to their hyperparameters, such as {{pskd: {{}}}}"
            )
        return copied(checked_methods(canonical(methods)))

    @field_validator("optimizer", mode="before")
    @classmethod
    def _known_optimizer(cls, optimizer: Any) -> Any:
        return checked_part("optimizer", optimizer, OPTIMIZERS)

    @field_validator("schedule", mode="before")
    @classmethod
    def _known_schedule(cls, schedule: Any) -> Any:
        return checked_part("schedule", schedule, SCHEDULES)

    @field_validator("milestones")
    @classmethod
    def _rising(cls, milestones: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if milestones is not None and (list(milestones) != sorted(set(milestones)) or min(milestones, default=1) < 1):
            raise problem(f"{list(milestones)} must be rising epoch numbers, 1 or more")
        return milestones

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        spec, dataset = NETWORKS[self.network].facts, dataset_spec(self.dataset)
        methods = canonical(self.methods)
        requires = merged_requires(methods)
        wrong: Problems = []
        settled: dict[str, Any] = {}

        for name in (self.network, self.peer or self.network)[: requires.networks]:
            least, all_stages = NETWORKS[name].facts.min_stages, NETWORKS[name].facts.stages
            takes = NETWORKS[name].facts.takes
            for argument, standard in (("width", 64), ("stages", None)):
                if argument not in takes and (value := getattr(self, argument)) != standard:
                    wrong.append(
                        ((argument,), f"{name} takes no {argument}, so that {value} is not used; leave it out")
                    )
            if "stages" in takes and self.stages is not None and not least <= self.stages <= all_stages:
                allowed = f"{least} to {all_stages}" if least < all_stages else f"only {all_stages}"
                wrong.append((("stages",), f"{name} has {allowed} stages, not {self.stages}"))
        if self.stages == spec.stages:
            settled["stages"] = None
        if self.peer is not None and requires.networks < 2:
            wrong.append((("peer",), f"{self.peer!r} is not used: no method here trains two networks (dml and dcm do)"))
        elif self.peer == self.network:
            settled["peer"] = None
        if self.padding == 0:
            settled["padding_mode"] = "zeros"
        if self.flip is not None and self.flip == dataset.flip:
            settled["flip"] = None
        if self.normalization == "imagenet" and (dataset.mean, dataset.std) == (IMAGENET_MEAN, IMAGENET_STD):
            settled["normalization"] = "dataset"
        given = {name: value for name, value in self.__dict__.items() if value != _DEFAULTS[name]}
        wrong += unread("optimizer", self.optimizer, OPTIMIZERS, given)
        wrong += unread("schedule", self.schedule, SCHEDULES, given)
        if self.warmup >= self.epochs:
            few = f"{self.warmup:g} leaves none of the {self.epochs:,} epochs for training at the full rate"
            wrong.append((("warmup",), few))
        if self.milestones is not None and self.milestones == self.settled_milestones(None):
            settled["milestones"] = None
        images, most = dataset.train_images, dataset.largest_class
        # Every class keeps one.
        if images is not None and dataset.classes is not None and self.validation > images - dataset.classes:
            few = f"{self.validation} leaves too few of the {images:,} training images for {dataset.classes} classes"
            wrong.append((("validation",), few))
        if most is not None and self.subset is not None and self.subset > most:
            wrong.append((("subset",), f"{self.subset} is more than the {most:,} training images of any class"))

        try:
            settled["heads"] = heads = settled_heads(self.network, self.peer, self.heads, methods)
            count = head_count(self.stages or spec.stages, None if heads == "none" else heads)
            if methods != "{}" and not any(path == ("stages",) for path, _ in wrong):
                settled["methods"] = copied(resolved_methods(methods, count))
        except PydanticCustomError as error:
            wrong += (error.context or {})["problems"]
        if wrong:
            raise problems(wrong)
        for name, value in settled.items():
            object.__setattr__(self, name, value)
        return self

    @property
    def requires(self) -> Requires:
        """Return the merged requirements of the methods of this run."""
        return merged_requires(canonical(self.methods))

    @property
    def head_kind(self) -> str | None:
        """Return the kind of auxiliary heads, as `build_network` takes it."""
        return None if self.heads == "none" else self.heads

    @property
    def network_names(self) -> list[str]:
        """Return the networks trained side by side, first to last."""
        return [self.network, self.peer or self.network][: self.requires.networks]

    def settled_milestones(self, milestones: tuple[int, ...] | None) -> tuple[int, ...]:
        """Return the epochs at which the learning rate falls; by default those of the paper in proportion."""
        if milestones is not None:
            return milestones
        return tuple(sorted({self.epochs // 2, self.epochs * 3 // 4} - {0}))

    def learning_rates(self, epoch: int, steps: int) -> list[float]:
        """Return the learning rates of the steps of one epoch (0-based).

        In the warmup the rate rises on a straight line from 0, which no step has, and its last step has the full rate.
        """
        schedule = build_part(self.schedule, SCHEDULES)
        rates = [self.learning_rate * schedule.factor(self, epoch + step / steps) for step in range(steps)]
        if epoch < self.warmup:
            rates = [rate * min(1.0, (epoch + step / steps) / self.warmup) for step, rate in enumerate(rates, start=1)]
        return rates

    def build_methods(self) -> list[Method]:
        """Return the methods of this run, fresh, without state."""
        stages = self.stages or NETWORKS[self.network].facts.stages
        heads = head_count(stages, self.head_kind)
        return [method.resolve(heads) for method in build_methods(self.methods)]

    def science(self) -> dict[str, Any]:
        """Return the fields that differ from their defaults, as plain JSON values: the identity before hashing."""
        optimizer = named(self.optimizer, OPTIMIZERS)
        defaults = {**_DEFAULTS, "heads": "none", **(optimizer.make.defaults if optimizer else {})}
        if self.heads != "none":
            defaults["heads"] = settled_heads(self.network, self.peer, "auto", canonical(self.methods))
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in self.__dict__.items()
            if value != defaults[name]
        }

    def key(self) -> str:
        """Return the identity of a run: sha256 (64 hex digits) of the fields off their defaults, and `CONFIG_VERSION`.

        A field added later with a default leaves every earlier key as it was. The version of a part counts where the
        part is used, unless it is 1.
        """
        used = self.parts() if _any_later_version() else []
        versions = {f"{part.kind} {part.name}": part.version for part in used if part.version != 1}
        identity = {"version": CONFIG_VERSION, **self.science(), **({"parts": versions} if versions else {})}
        return hashlib.sha256(canonical(identity).encode()).hexdigest()

    def cell_key(self) -> str:
        """Return what the runs of this configuration with any seed have in common: its key with seed 0."""
        return self.model_copy(update={"seed": 0}).key()

    def parts(self) -> list[Part[Any]]:
        """Return the registered parts that decide what is learned: methods, networks, data sets and the recipe."""
        data = [DATASETS.get(name) for name in dict.fromkeys((self.dataset, self.ood_dataset)) if name]
        networks = [NETWORKS[name] for name in dict.fromkeys(self.network_names)]
        recipe = [named(self.optimizer, OPTIMIZERS), named(self.schedule, SCHEDULES)]
        parts: list[Part[Any] | None] = [*(METHODS[name] for name in self.methods), *networks, *data, *recipe]
        return [part for part in parts if part is not None]


def _not_finite(value: float | str) -> bool:
    try:
        return not math.isfinite(float(value))
    except ValueError:
        return False


@remembered
def _any_later_version() -> bool:
    """Return whether any part has another version than 1: grids have many keys, and seldom such a part."""
    return any(part.version != 1 for registry in REGISTRIES for part in registry.values())


_DEFAULTS: dict[str, Any] = {
    name: field.get_default(call_default_factory=True) for name, field in TrainConfig.model_fields.items()
}


def config_problems(error: ValidationError) -> Problems:
    """Return every problem of an invalid configuration: the path of its key and a sentence with the value."""
    return plain_problems(error, "key", TrainConfig.model_fields)
