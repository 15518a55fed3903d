"""Define where and how the trials of a grid run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.storage import absolute, joined
from trainer.plugins import Plugin


@dataclass(frozen=True)
class RunOptions:
    """Options of running the trials of `grid`; none changes what the trials compute.

    `data_root` and `checkpoints` are paths or URLs. `environment` is the launch's provenance; `checkpoint_seconds` the
    least time between two checkpoints of a trial (None: see `trainer.train.train`); `stall_seconds` the silence after
    which a trial counts as hung (`orchestrator.scheduler.callbacks.START_SECONDS` is the least for a trial that
    starts). `wait_for_nodes` starts although no node is large enough yet: one may join. `plugins`
    `metrics` and `outcomes` are the grid's.
    """

    grid: str
    data_root: str | Path
    checkpoints: str | Path
    logs: Path
    environment: dict[str, Any]
    address: str | None = None
    checkpoint_seconds: float | None = None
    stall_seconds: float = 3600.0
    same_failure_limit: int = 5
    canaries: bool = True
    pack: bool = False
    trackers: tuple[str, ...] = ()
    dashboard: bool = True
    wait_for_nodes: bool = False
    plugins: tuple[Plugin, ...] = ()
    metrics: tuple[str, ...] = ()
    outcomes: str = "correct"

    def checkpoint(self, key: str) -> str:
        """Return the path or URL of a trial's checkpoint."""
        return joined(absolute(self.checkpoints), f"{key}.pt")
