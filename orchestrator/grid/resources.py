"""Read the section `resources` of a grid file: what a trial asks of the machine, and how its steps are run."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from orchestrator.grid.document import Node
from orchestrator.grid.fields import ELSEWHERE, RESOURCES
from orchestrator.grid.reader import Reader
from orchestrator.grid.trial import Resources, Trial
from trainer.config import TrainConfig
from trainer.parts import NETWORKS
from trainer.problems import shown
from trainer.results import ENGINES

# Limit of one trial's GPUs, CPU cores and processes; a larger number is a typing mistake.
MAX_AMOUNT = 4096


def read_resources(
    reader: Reader, node: Node | None, configs: dict[str, TrainConfig]
) -> tuple[Resources, dict[str, Resources]]:
    """Return the resources of every trial, and those of single networks that differ."""
    entries = reader.mapping(node, "resources", RESOURCES, elsewhere=ELSEWHERE)
    shared = _amounts(reader, entries, "resources", Resources())
    trained = {name for config in configs.values() for name in (config.network, config.peer)}
    per_network = {}
    listed = entries.get("per_network")
    allowed = dict.fromkeys([*NETWORKS, *(name for name in trained if name)])
    for name, child in reader.mapping(listed, "resources.per_network", allowed, "network", ELSEWHERE).items():
        key = f"resources.per_network.{name}"
        per_network[name] = _amounts(
            reader, reader.mapping(child, key, RESOURCES[:-1], elsewhere=ELSEWHERE), key, shared
        )
        if listed is not None and not reader.problems and name not in trained:
            reader.note(listed.places[name], key, "no trial of this grid trains this network")
    return shared, per_network


def _amounts(reader: Reader, entries: dict[str, Node], key: str, otherwise: Resources) -> Resources:
    gpu, cpu = otherwise.gpu, otherwise.cpu
    for name in ("gpu", "cpu"):
        if (node := entries.get(name)) is None:
            continue
        value = node.value if isinstance(node.value, (int, float)) and not isinstance(node.value, bool) else -1
        if name == "gpu" and value in range(2, MAX_AMOUNT + 1):
            what = (
                f"{value:g} GPUs would be kept and one used, because a process trains on one; write "
                f"gpus_per_trial: {value:g} for a process on each, or gpu: 1"
            )
            reader.note(node.place, f"{key}.{name}", what)
        elif name == "gpu" and (0.01 <= value <= 1 or value == 0):
            gpu = round(float(value), 4)
        elif name == "cpu" and (0.01 <= value <= 1 or value in range(1, MAX_AMOUNT + 1)):
            cpu = round(float(value), 4)
        else:
            allowed = "0, 1, or a fraction from 0.01" if name == "gpu" else "a fraction from 0.01, or a whole number"
            what = f"{shown(node.plain())} is not an amount; give {allowed}"
            reader.note(node.place, f"{key}.{name}", what)
    processes = otherwise.processes
    for name, counted in (("processes", "processes"), ("gpus_per_trial", "GPUs")):
        if (node := entries.get(name)) is None:
            continue
        if type(node.value) is int and 1 <= node.value <= MAX_AMOUNT:
            processes = node.value
        else:
            what = f"{shown(node.plain())} is not a number of {counted}; give a whole number from 1"
            reader.note(node.place, f"{key}.{name}", what)
    if "gpus_per_trial" in entries:
        gpu = 1.0
        for name in ("gpu", "processes"):
            if name in entries:
                what = "is given by gpus_per_trial as well, which starts a process with one GPU for each; leave one out"
                reader.note(entries[name].place, f"{key}.{name}", what)
    elif processes > 1 and gpu not in (None, 0, 1):
        name = "gpu" if "gpu" in entries else "processes"
        what = f"each of {processes} processes would get {gpu:g} GPUs; it uses one (gpu: 1) or none (gpu: 0)"
        reader.note(entries[name].place, f"{key}.{name}", what)
    return Resources(gpu=gpu, cpu=cpu, processes=processes, **_manner(reader, entries, key, otherwise))


def _manner(reader: Reader, entries: dict[str, Node], key: str, otherwise: Resources) -> dict[str, Any]:
    engine = reader.one_of(entries.get("engine"), f"{key}.engine", "engine", ENGINES, otherwise.engine)
    options: dict[str, Any] = {"engine": engine, "deterministic": otherwise.deterministic}
    if (node := entries.get("deterministic")) is not None:
        options["deterministic"] = node.value
        if not isinstance(node.value, bool):
            reader.note(node.place, f"{key}.deterministic", f"{shown(node.plain())} is neither true nor false")
    return options


def largest(config: TrainConfig, shared: Resources, per_network: dict[str, Resources]) -> Resources:
    """Return the resources for all networks of a trial together."""
    asked = [per_network.get(name, shared) for name in config.network_names]
    amounts = [1.0 if one.gpu is None else one.gpu for one in asked]
    processes = max(one.processes for one in asked)
    gpu: float | None = math.ceil(max(amounts)) if processes > 1 else max(amounts)
    # Left open only where no network of the trial sets a number of GPUs.
    if any(one.gpu is None for one in asked) and not any(one.gpu for one in asked):
        gpu = None
    # The first network's settings decide how steps are run: there is one step for both.
    return replace(asked[0], gpu=gpu, cpu=max(one.cpu for one in asked), processes=processes)


def placed(trials: Iterable[Trial], gpus: bool) -> list[Trial]:
    """Return the trials with their number of GPUs: one if the grid leaves it open and there are `gpus`."""
    amount = 1.0 if gpus else 0.0
    return [
        trial if trial.resources.gpu is not None else replace(trial, resources=replace(trial.resources, gpu=amount))
        for trial in trials
    ]
