"""Define a grid, its trials and what one of them asks of the machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.config import TrainConfig


@dataclass(frozen=True)
class Resources:
    """What one trial asks of the cluster.

    It runs in so many `processes`, and each has its GPU (a fraction packs several trials on one) and CPU cores. Without
    a number, `gpu` is one where there is one and none where there is none, see `placed`. `engine` and `deterministic`
    say how its steps are run.
    """

    gpu: float | None = None
    cpu: float = 1.0
    processes: int = 1
    engine: str = "auto"
    deterministic: bool = False


@dataclass(frozen=True)
class Trial:
    """One configuration with one seed. `name` is readable, unique in its grid and safe as a path."""

    key: str
    name: str
    config: TrainConfig
    resources: Resources


@dataclass(frozen=True)
class Grid:
    """A named list of trials, in the order of the file, and what its reports are."""

    name: str
    source: Path
    text: str
    trials: list[Trial]
    report: dict[str, Any]
