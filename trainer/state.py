"""The state of a training: initial networks and optimizer, and the content of a checkpoint."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import nn

from trainer.config import TrainConfig
from trainer.networks import build_network
from trainer.objective import Objective
from trainer.parts import OPTIMIZERS
from trainer.recipe import build_part
from trainer.results import EpochResult
from trainer.step import hold_rate


def build_networks(config: TrainConfig, num_classes: int, device: torch.device) -> nn.ModuleList:
    """Build the networks of a configuration; their initial weights depend on its seed alone."""
    networks = []
    for index, name in enumerate(config.network_names):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(config.seed, "weights", index))
            networks.append(
                build_network(
                    name, num_classes=num_classes, width=config.width, stages=config.stages, heads=config.head_kind
                )
            )
    dtype = torch.float64 if config.precision == "float64" else torch.float32
    return nn.ModuleList(networks).to(device=device, dtype=dtype).to(memory_format=torch.channels_last)


def build_optimizer(config: TrainConfig, networks: nn.ModuleList) -> torch.optim.Optimizer:
    """Build the one optimizer of all networks of a run.

    On a GPU the learning rate is a float32 number on the device, so that every engine computes the same bits. In
    float64 it stays a float, as on a CPU: nothing is replayed then.
    """
    optimizer: torch.optim.Optimizer = build_part(config.optimizer, OPTIMIZERS).build(config, networks.parameters())
    if next(networks.parameters()).device.type == "cuda" and config.precision != "float64":
        hold_rate(optimizer)
    return optimizer


def teacher_config(config: TrainConfig) -> TrainConfig:
    """Return the configuration of a run's teacher: the same network without any method."""
    return TrainConfig(**{**config.model_dump(), "methods": {}, "heads": "auto", "peer": None, "ood_dataset": None})


def checkpoint_state(
    networks: nn.ModuleList, optimizer: torch.optim.Optimizer, objective: Objective, results: list[EpochResult]
) -> dict[str, Any]:
    """Return the state that training needs to continue."""
    optimizing = optimizer.state_dict()
    for group in optimizing["param_groups"]:
        group["lr"] = float(group["lr"])
    return {
        "networks": networks.state_dict(),
        "optimizer": optimizing,
        "methods": {method.name: method.state_dict() for method in objective.methods},
        "results": [result.to_dict() for result in results],
    }


def load_state(
    saved: dict[str, Any], networks: nn.ModuleList, optimizer: torch.optim.Optimizer, objective: Objective
) -> None:
    """Restore the state of `checkpoint_state`, except the results."""
    networks.load_state_dict(saved["networks"])
    # The rate of the next epoch is set when the epoch starts; until then it stays where it is, on the device or not.
    rates = [group["lr"] for group in optimizer.param_groups]
    optimizer.load_state_dict(saved["optimizer"])
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    for method in objective.methods:
        method.load_state_dict(saved["methods"][method.name])


def derived_seed(seed: int, purpose: str, index: int) -> int:
    """Derive a seed for one purpose: equal seeds of different purposes give independent streams."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}/{index}".encode()).digest()[:8]) >> 1
