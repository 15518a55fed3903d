"""Define what a worker needs to run one trial."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Job:
    """A trial as a worker gets it, in plain values, because a job travels between machines.

    A timing pass has no checkpoint, stops after `warm_up` + `timed` epochs and reports the last `timed` of them. A
    canary is a rehearsal: `checkpoint` is the file in whose folder it writes its own. `cpus` and `gpus` are those of
    each of the `processes`. `engine` and `deterministic` are as in `trainer.train.train`. `plugins`
    are those of the grid (`trainer.plugins.Plugin`), whose files are in the folder `plugins` beside the trainer;
    `metrics` names those that are measured beside the usual ones, `outcomes` is what is kept of each test image.
    """

    key: str
    name: str
    config: dict[str, Any]
    cpus: float
    gpus: float
    data_root: str
    checkpoint: str | None
    checkpoint_seconds: float | None
    log_folder: str
    code_digest: str
    warm_up: int = 0
    timed: int | None = None
    canary: bool = False
    processes: int = 1
    engine: str = "auto"
    deterministic: bool = False
    plugins: tuple[dict[str, Any], ...] = ()
    metrics: tuple[str, ...] = ()
    outcomes: str = "correct"


@dataclass(frozen=True)
class Rank:
    """One rank of a trial's processes, see `orchestrator.worker.ranks`.

    `other_pids` are those of the other ranks on its host; `process_group(device)` is the context in which it trains.
    """

    number: int
    device: str
    other_pids: tuple[int, ...]
    log_path: Path
    process_group: Callable[[str], AbstractContextManager[None]]
