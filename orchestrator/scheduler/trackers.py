"""Experiment trackers beside the database: which there are, what they need, and what they are told of an epoch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any, Literal, get_args

from orchestrator.exit_codes import BAD_INPUT

Tracker = Literal["tensorboard", "mlflow", "wandb"]

# The module that each is written with; the extra of the same name installs it.
MODULES: dict[Tracker, str] = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}


class TrackerError(Exception):
    """A tracker cannot be used; the message says what is missing."""

    exit_code = BAD_INPUT


def check_trackers(names: Iterable[str]) -> None:
    """Raise TrackerError where one of these trackers does not exist or is not installed."""
    for name in names:
        if name not in MODULES:
            raise TrackerError(f"--log-to {name}: there is no such tracker (allowed: {', '.join(get_args(Tracker))})")
        module = MODULES[name]
        if find_spec(module) is None:
            raise TrackerError(
                f"--log-to {name} needs the package {module}, which is not installed: "
                f"pip install 'orchestrate-ablations[{name}]'"
            )


def flat_metrics(result: dict[str, Any]) -> dict[str, float]:
    """The finite numbers of an epoch (an `EpochResult` as a dict) by name: `loss/cross_entropy`, `test/main/nll`.

    The second of two networks has its number in the name: `test/1/main/nll`.
    """
    found = {name: result[name] for name in ("learning_rate", "train_seconds", "eval_seconds", "data_seconds")}
    found |= {f"loss/{name}": value for name, value in result["losses"].items()}
    for evaluation in result["evaluations"]:
        network = f"{evaluation['network']}/" if evaluation["network"] else ""
        place = f"{evaluation['split']}/{network}{evaluation['classifier']}"
        metrics = evaluation["metrics"] | {"ood_auroc": evaluation["ood_auroc"]}
        found |= {f"{place}/{name}": value for name, value in metrics.items()}
    return {name: float(value) for name, value in found.items() if value is not None and math.isfinite(value)}
