"""What the database answers: one frozen row per question, free of SQL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class GridRow:
    """A grid as its file gave it last; `trials` counts them."""

    name: str
    source: str
    report: dict[str, Any]
    trials: int
    created: datetime
    updated: datetime


@dataclass(frozen=True)
class TrialState:
    """How far a trial is.

    `epochs` counts the accepted ones, `attempts` those that train. The error is the newest failed attempt's, its
    first line. `driver` is the token of the driver that claimed it.
    """

    state: str
    epochs: int
    attempts: int
    error_class: str | None
    error: str | None
    driver: int | None
    last_ended: datetime | None


@dataclass(frozen=True)
class AttemptRow:
    """One try at running a trial, every column of it; `epochs` counts its rows, accepted or not."""

    id: int
    number: int
    purpose: str
    driver: int | None
    host: str | None
    device: str | None
    device_uuid: str | None
    pid: int | None
    environment: dict[str, Any]
    started: datetime
    ended: datetime | None
    outcome: str | None
    error_class: str | None
    error_text: str | None
    fingerprint: str | None
    log: str | None
    parameters: int | None
    epochs: int


@dataclass(frozen=True)
class FailureRow:
    """The trials that wait after failures with one fingerprint; the last three are of the newest."""

    fingerprint: str | None
    error_class: str | None
    error: str | None
    count: int
    trial_names: tuple[str, ...]
    keys: tuple[str, ...]
    log: str | None
    error_text: str | None
    environment: dict[str, Any]


@dataclass(frozen=True)
class ProgressRow:
    """A trial at a glance.

    Errors are top-1 percentages of the first network's main classifier on the test set; `seconds_per_epoch` is the
    mean of training, data and evaluation over the accepted epochs. `started`, `error_class`, `host` and `device` are
    those of the newest training attempt. `begun` is true from the first training attempt on, `claimed` while a living
    driver has the trial.
    """

    trial_name: str
    key: str
    config: dict[str, Any]
    state: str
    epochs_done: int
    epochs_total: int
    last_top1_error: float | None
    best_top1_error: float | None
    seconds_per_epoch: float | None
    started: datetime | None
    error_class: str | None
    host: str | None
    device: str | None
    begun: bool
    claimed: bool


@dataclass(frozen=True)
class MeasuredRow:
    """What was measured of a trial by training it, or by a canary before it (`purpose`).

    `seconds_per_epoch` is the mean of training, data and evaluation over the accepted epochs, or a canary's
    extrapolation; `device` is as in its attempt, `engine` as its grid asked for it. The other four are a canary's, None
    for training: the size of its checkpoint, and on a GPU the memory that was taken of how much, and the share of a
    step spent on giving out work.
    """

    key: str
    config: dict[str, Any]
    purpose: str
    device: str | None
    seconds_per_epoch: float
    peak_memory_bytes: int | None
    checkpoint_bytes: int | None = None
    reserved_memory_bytes: int | None = None
    device_memory_bytes: int | None = None
    launch_share: float | None = None
    engine: str = "auto"


# Whether the driver of a token still lives.
Living = Callable[[int], bool]


@dataclass(frozen=True)
class Driver:
    """The process that runs trials; `token` is unique to it and marks what it claimed."""

    token: int
    host: str
    pid: int
