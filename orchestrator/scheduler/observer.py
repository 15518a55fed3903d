"""Define the callbacks by which a run reports to its audience."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.failures import Failure
from trainer.results import EpochResult

if TYPE_CHECKING:
    from orchestrator.planning import Measured, Plan


@dataclass(frozen=True)
class Batch:
    """Trials of a grid that are about to run together.

    `configs` are the trials' configurations by name, `measured` what earlier runs measured, `plan` that of the whole
    grid before these trials (None where their times are measured).
    """

    grid: str
    configs: Mapping[str, Mapping[str, Any]]
    measured: Sequence[Measured] = ()
    plan: Plan | None = None


@dataclass
class Observer:
    """Callbacks for what happens in a run; the library itself prints nothing, and any of them may be replaced.

    `planned` gets the plan before the first trial, and again after the last where other runs took part. `note` and
    `warning` get a line for a person. `batch` opens a context around trials that run together: the observer that it
    yields hears of them, or this one where it yields None. `ready` gets the address of Ray's dashboard, if there is
    one. The others get a trial's name first; `quality` is a timing label.
    """

    planned: Callable[[Plan], None] = lambda plan: None
    note: Callable[[str], None] = lambda text: None
    warning: Callable[[str], None] = lambda text: None
    batch: Callable[[Batch], AbstractContextManager[Observer | None]] = lambda batch: nullcontext()
    ready: Callable[[str | None], None] = lambda dashboard_url: None
    started: Callable[[str, str, str], None] = lambda name, host, device: None
    epoch: Callable[[str, EpochResult, str], None] = lambda name, result, quality: None
    finished: Callable[[str], None] = lambda name: None
    retried: Callable[[str, str], None] = lambda name, reason: None
    failed: Callable[[str, Failure], None] = lambda name, failure: None
    tick: Callable[[], None] = lambda: None
