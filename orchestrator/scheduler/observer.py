"""Define the callbacks by which a run reports to its audience; all of them are silent unless they are replaced."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.failures import Failure
from trainer.results import EpochResult

if TYPE_CHECKING:
    from orchestrator.planning import Measured, Plan

Configs = Mapping[str, Mapping[str, Any]]


@dataclass
class Observer:
    """Callbacks for the trials while they run, by trial name."""

    ready: Callable[[str | None], None] = lambda dashboard_url: None
    note: Callable[[str], None] = lambda text: None
    started: Callable[[str, str, str], None] = lambda name, host, device: None
    epoch: Callable[[str, EpochResult, str], None] = lambda name, result, quality: None
    finished: Callable[[str], None] = lambda name: None
    retried: Callable[[str, str], None] = lambda name, reason: None
    failed: Callable[[str, Failure], None] = lambda name, failure: None
    tick: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Audience:
    """Callbacks for a whole run: `say` and `warn` take a line, `plan` the grid's plan before the run and after it.

    `watch` is entered while trials run, and gives their observer. Its arguments are the grid's name, the configurations
    by trial name, the earlier measurements, and the plan, if any.
    """

    say: Callable[[str], None] = lambda line: None
    warn: Callable[[str], None] = lambda line: None
    plan: Callable[[Plan], None] = lambda plan: None
    watch: Callable[[str, Configs, Sequence[Measured], Plan | None], AbstractContextManager[Observer]] = (
        lambda grid, configs, known, plan: nullcontext(Observer())
    )


SILENT = Audience()
