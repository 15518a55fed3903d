"""How networks, methods, data sets and settings are called in print."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from reports.catalogue import title_of

# Methods in the order in which the papers chain them; others follow by name.
CHAIN = ("label_smoothing", "cskd", "tfkd", "dml", "dcm", "pskd", "byot", "dmfl")

# The paper's CIFAR recipe: a setting is described by where it departs from it.
RECIPE: dict[str, Any] = {
    "subset": None,
    "validation": 0,
    "normalization": "dataset",
    "padding": 4,
    "padding_mode": "zeros",
    "flip": None,
    "ood_dataset": None,
    "width": 64,
    "stages": None,
    "epochs": 300,
    "batch_size": 128,
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "warmup": 0.0,
    "schedule": "steps",
    "milestones": None,
    "gamma": 0.1,
    "momentum": 0.9,
    "nesterov": True,
    "weight_decay": 5e-4,
    "precision": "bfloat16",
}

# Fields that configurations have not always had, and what every training did before.
LATER = {name: RECIPE[name] for name in ("optimizer", "warmup", "schedule")}

_FIELDS = {
    "subset": "{} training images per class",
    "validation": "{} training images held out for validation",
    "normalization": "{} normalisation",
    "padding": "crop padding {}",
    "padding_mode": "{} padding",
    "ood_dataset": "out-of-distribution set {}",
    "width": "width {}",
    "stages": "{} stages",
    "peer": "with {}",
    "heads": "{} heads",
    "batch_size": "batch size {}",
    "optimizer": "optimizer {}",
    "learning_rate": "learning rate {}",
    "warmup": "warmup of {} epochs",
    "schedule": "{} schedule",
    "milestones": "milestones {}",
    "weight_decay": "weight decay {}",
}


def network(name: str) -> str:
    """Return the printed name of a network."""
    return title_of("network", name)


def dataset(name: str) -> str:
    """Return the printed name of a data set."""
    return title_of("data set", name)


def method_names(methods: Iterable[str]) -> list[str]:
    """Methods in the order in which the papers chain them."""
    chosen = sorted(methods, key=lambda name: (CHAIN.index(name) if name in CHAIN else len(CHAIN), name))
    # The paper's only exception.
    return ["dmfl", "byot"] if chosen == ["byot", "dmfl"] else chosen


def methods(configured: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a combination of methods as printed, hyperparameters that are not the defaults in parentheses."""
    names = method_names(configured)
    return "+".join(title_of("method", name) + parameters(configured[name]) for name in names) or "baseline"


def parameters(given: Mapping[str, Any]) -> str:
    """Hyperparameters in parentheses, nothing for none; of a list with one value, its name in the singular."""
    named = [
        (name.removesuffix("s") if isinstance(each, list | tuple) and len(each) == 1 else name, each)
        for name, each in sorted(given.items())
    ]
    return " (" + ", ".join(f"{name} {value(each)}" for name, each in named) + ")" if named else ""


def value(each: Any) -> str:
    """Return a configuration value as a reader writes it; an optimizer or a schedule with its hyperparameters."""
    if isinstance(each, Mapping):
        return "+".join(name + parameters(given) for name, given in each.items())
    if isinstance(each, list | tuple):
        return ", ".join(map(value, each))
    if each is None:
        return "default"
    if isinstance(each, bool):
        return "yes" if each else "no"
    return f"{each:g}" if isinstance(each, float) else str(each)


def field(name: str, each: Any) -> str:
    """Return a field of a configuration with its value, in words."""
    if name == "dataset":
        return dataset(each)
    if name == "ood_dataset" and each is not None:
        each = dataset(each)
    if name == "peer" and each is not None:
        each = network(each)
    if name == "epochs":
        return f"{each} epoch{'s' * (each != 1)}"
    return _FIELDS.get(name, f"{name} {{}}").format("all" if name == "subset" and each is None else value(each))


def setting(fields: Mapping[str, Any]) -> str:
    """Return the fixed fields of a table: data set, epochs, and every departure from the paper's recipe."""
    always = [name for name in ("dataset", "epochs") if name in fields]
    others = [(name, each) for name, each in departures(fields) if name not in always]
    return ", ".join(field(name, each) for name, each in [*((name, fields[name]) for name in always), *others])


def departures(fields: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the fields that differ from the paper's recipe on CIFAR-100."""
    recipe = {"dataset": "cifar100", **RECIPE}
    return [(name, each) for name, each in fields.items() if name not in recipe or recipe[name] != each]


def slug(text: str) -> str:
    """Return a text as part of a file name or an address."""
    return re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-") or "x"


def count(number: int) -> str:
    """Return a number of parameters, to three digits."""
    for scale, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= scale:
            digits = number / scale
            return f"{digits:.{max(0, 3 - len(str(int(digits))))}f} {letter}"
    return str(number)


def plain(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Methods with their default hyperparameters, as a configuration has them."""
    return {name: {} for name in names}


def methods_key(configured: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a combination of methods as part of an address."""
    names = method_names(configured)
    keys = [f"{name}-{slug(parameters(configured[name]))}" if configured[name] else name for name in names]
    return "+".join(keys) or "baseline"
