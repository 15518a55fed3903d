"""Define the callbacks by which a run reports to its audience."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.failures import Failure
from trainer.results import EpochResult


@dataclass
class Observer:
    """What a run tells its audience, by trial name; every part may be replaced."""

    ready: Callable[[str | None], None] = lambda dashboard_url: None
    note: Callable[[str], None] = lambda text: None
    started: Callable[[str, str, str], None] = lambda name, host, device: None
    epoch: Callable[[str, EpochResult, str], None] = lambda name, result, quality: None
    finished: Callable[[str], None] = lambda name: None
    retried: Callable[[str, str], None] = lambda name, reason: None
    failed: Callable[[str, Failure], None] = lambda name, failure: None
    tick: Callable[[], None] = lambda: None
