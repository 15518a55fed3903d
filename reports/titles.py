"""Name networks, methods, data sets and settings as they are printed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.records import DEFAULT, TUNING
from orchestrator.tables.addresses import method_names, parameters, value
from reports.catalogue import title_of

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
    TUNING: "{}",
}


def network(name: str) -> str:
    """Return the printed name of a network."""
    return title_of("network", name)


def dataset(name: str) -> str:
    """Return the printed name of a data set."""
    return title_of("data set", name)


def methods(configured: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a combination of methods as printed, hyperparameters that are not the defaults in parentheses."""
    names = method_names(configured)
    return "+".join(title_of("method", name) + parameters(configured[name]) for name in names) or "baseline"


def field(name: str, given: Any) -> str:
    """Return a field of a configuration with its value, in words."""
    if name == "dataset":
        return dataset(given)
    if name == "ood_dataset" and given is not None:
        given = dataset(given)
    if name == "peer" and given is not None:
        given = network(given)
    if name == "epochs":
        return f"{given} epoch{'s' * (given != 1)}"
    return _FIELDS.get(name, f"{name} {{}}").format("all" if name == "subset" and given is None else value(given))


def setting(fields: Mapping[str, Any]) -> str:
    """Return the fixed fields of a table: data set, epochs, and every departure from the paper's recipe."""
    always = [name for name in ("dataset", "epochs") if name in fields]
    departing = [(name, each) for name, each in departures(fields) if name not in always]
    return ", ".join(field(name, each) for name, each in [*((name, fields[name]) for name in always), *departing])


def departures(fields: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the fields that differ from the paper's recipe on CIFAR-100."""
    recipe = {"dataset": "cifar100", TUNING: DEFAULT, **RECIPE}
    return [(name, each) for name, each in fields.items() if name not in recipe or recipe[name] != each]


def count(number: int) -> str:
    """Return a number of parameters, to three digits."""
    for scale, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= scale:
            digits = number / scale
            return f"{digits:.{max(0, 3 - len(str(int(digits))))}f} {letter}"
    return str(number)
