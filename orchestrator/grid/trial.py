"""Define a grid, its trials and what one of them asks of the machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from orchestrator.grid.search import Tuning
from orchestrator.grid.seeding import SeedRule
from trainer.config import TrainConfig
from trainer.plugin_files import Plugin


@dataclass(frozen=True)
class Resources:
    """Resources that one trial asks of the cluster.

    It runs in `processes` processes, each with its GPU (a fraction packs several trials on one) and CPU cores. `gpu`
    None means one where the machine has GPUs and none elsewhere, see `placed`. `engine` and `deterministic` set how
    steps are run.
    """

    gpu: float | None = None
    cpu: float = 1.0
    processes: int = 1
    engine: str = "auto"
    deterministic: bool = False


@dataclass(frozen=True)
class Trial:
    """A configuration with a seed. `name` is readable, unique in its grid and safe as a path.

    `role` is what it is for: a `row` of the grid, a `draw` of its tuning, or a row as `tuned`.
    """

    key: str
    name: str
    config: TrainConfig
    resources: Resources
    role: Literal["row", "draw", "tuned"] = "row"


@dataclass(frozen=True)
class Grid:
    """A named list of trials, in the order of the file, and its reports.

    `order` is that of training: `depth` as in the file, or `breadth`. `settings` are those of `--set`; `text` has them.
    `plugins` are the files and modules of its own parts; `metrics` names those that are measured beside the usual ones,
    and `outcomes` is what is kept of each test image; neither is part of a trial's key. `tuning` is its section `tune`,
    whose draws are trials of the grid. `seeds` is its rule for adding seeds, and `rows` are then the trials that each
    row may have, by the key of its configuration with seed 0; `trials` are those of the first look.
    """

    name: str
    source: Path
    text: str
    trials: list[Trial]
    report: dict[str, Any]
    order: str = "depth"
    settings: Mapping[str, Any] = field(default_factory=dict)
    plugins: tuple[Plugin, ...] = ()
    metrics: tuple[str, ...] = ()
    outcomes: str = "correct"
    tuning: Tuning | None = None
    seeds: SeedRule | None = None
    rows: Mapping[str, tuple[Trial, ...]] = field(default_factory=dict)
