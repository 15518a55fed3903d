"""Define where and how the trials of a grid run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.scheduler.addresses import cluster_address
from orchestrator.storage import absolute, joined
from trainer.plugin_files import Plugin


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


def run_options(
    grid: str,
    db: str | Path,
    data_root: str | Path = "data",
    address: str | None = None,
    checkpoints: str | Path | None = None,
    given: Mapping[str, Any] | None = None,
    **more: Any,
) -> RunOptions:
    """Say where and how to run; checkpoints and logs lie beside the database file unless a place is given.

    Without an `address` the one in RAY_ADDRESS counts, as in Ray itself; `local` is a private Ray whatever that says.
    `given` are the settings of the grid (`--set`), which another run of its file needs as well.
    """
    from orchestrator.provenance import code_provenance

    address = cluster_address(address)
    # Beside the database file, so that one who finds, moves or removes the file has both.
    on_server = "://" in str(db)
    beside = _beside(db)
    # Options that another run needs to find the same data from any folder; see `orchestrator.console.triage.rerun`.
    places: dict[str, Any] = {"--data-root": absolute(data_root), "--address": address}
    if given:
        places["--set"] = [f"{name}={json.dumps(value)}" for name, value in given.items()]
    folder = checkpoints or checkpoints_beside(db)
    if checkpoints or on_server:
        places["--checkpoints"] = absolute(folder)
    return RunOptions(
        grid=grid,
        data_root=data_root,
        checkpoints=folder,
        logs=beside.with_name(f"{beside.stem}-logs"),
        environment=code_provenance() | {"places": places},
        address=address,
        **more,
    )


def _beside(db: str | Path) -> Path:
    return Path("results.db") if "://" in str(db) else Path(db)


def checkpoints_beside(db: str | Path) -> Path:
    """Return the folder of the checkpoints where none was given."""
    return _beside(db).with_name(f"{_beside(db).stem}-checkpoints")
