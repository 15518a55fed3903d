"""Rows that the database returns, frozen and free of SQL."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

# The field that tells the rows of a tuned grid apart in tables: as the file has them, and with what the search chose.
TUNING, DEFAULT, TUNED = "tuning", "default", "tuned"
BY_TEST = "chooses epochs by test images, and the rows of `tune` are chosen without any: its numbers would look better"
_MEAN_LAST = re.compile(r"mean_last_([1-9][0-9]{0,5})")
_DRAW, _TUNED_TRIAL = re.compile(r"(.+)/draw([0-9]+)"), re.compile(r"(.+)/tuned/seed[0-9]+")


def draw_of(trial_name: str) -> tuple[str, int] | None:
    """Return the row and the number of a draw by its name in a grid; None for another trial."""
    draw = _DRAW.fullmatch(trial_name)
    return (draw[1], int(draw[2])) if draw else None


def tuned_row_of(trial_name: str) -> str | None:
    """Return the row that a trial trains as tuned, by its name in a grid; None for another trial."""
    trial = _TUNED_TRIAL.fullmatch(trial_name)
    return trial[1] if trial else None


def row_of(trial_name: str) -> str:
    """Return the name of a trial's row: its own without the seed, and whole where none ends it."""
    return trial_name.rpartition("/seed")[0] or trial_name


def averaged_epochs(rule: str) -> int | None:
    """Return over how many last epochs a rule that selects epochs averages (`mean_last_K`); None for another rule."""
    averaged = _MEAN_LAST.fullmatch(rule)
    return int(averaged[1]) if averaged else None


def without_seed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration without its seed: that of a row, or cell, whose trials differ in nothing else."""
    return {name: value for name, value in config.items() if name != "seed"}


def row_identity(config: Mapping[str, Any]) -> str:
    """Return a text that is equal for configurations that differ in nothing but the seed."""
    return repr(sorted(without_seed(config).items()))


def trial_in_words(trial_name: str) -> str:
    """Return a trial's name for a person: a draw as `draw 3 of resnet18/pskd`."""
    draw = draw_of(trial_name)
    return f"draw {draw[1]} of {draw[0]}" if draw else trial_name


@dataclass(frozen=True)
class Score:
    """The end of a draw: `done` with its metric on the validation images, `failed` with a reason, or still open.

    A draw that is done without a finite value has none, and cannot win.
    """

    state: Literal["open", "done", "failed"]
    value: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class LookRow:
    """A look of sequential seeds at a pair of rows of a grid; see `orchestrator.database.models.Look`."""

    grid: str
    row_key: str
    baseline_key: str
    row_name: str
    baseline_name: str
    look: int
    seeds: int
    shared: int
    difference: float | None
    p: float | None
    level: float
    separated: bool
    rule: dict[str, Any]


@dataclass(frozen=True)
class DrawRow:
    """A draw of a search as the database has it: its trial, and its score on the validation images, None without one.

    `name` is the trial's in its grid; `error_class` that of its newest failure, for a draw that failed.
    """

    key: str
    name: str
    state: str
    seed: int
    score: float | None
    error_class: str | None


@dataclass(frozen=True)
class GridRow:
    """A grid as its file was last stored; `trials` is their number."""

    name: str
    source: str
    report: dict[str, Any]
    trials: int
    created: datetime
    updated: datetime


@dataclass(frozen=True)
class Extent:
    """Extent of a grid: the number of its `trials`, and the `keys` of those that no other grid and no driver has.

    The other counts are of these. `places` are their folders of checkpoints (None: beside the database) by host.
    """

    trials: int
    keys: tuple[str, ...]
    attempts: int
    epochs: int
    evaluations: int
    places: tuple[tuple[str | None, str | None], ...]


@dataclass(frozen=True)
class TrialState:
    """Progress of a trial.

    `epochs` counts the accepted ones, `attempts` the training attempts. The error is the first line of the newest
    failed attempt's. `driver` is the token of the driver that claimed the trial.
    """

    state: str
    epochs: int
    attempts: int
    error_class: str | None
    error: str | None
    driver: int | None
    last_ended: datetime | None


@dataclass(frozen=True)
class AttemptFacts:
    """Facts of an attempt at its start: where it runs, None where no worker has said so, its log and environment."""

    host: str | None = None
    device: str | None = None
    device_uuid: str | None = None
    pid: int | None = None
    log: str | None = None
    environment: dict[str, Any] = field(default_factory=dict)


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
    """The trials that wait after failures with one fingerprint; those from `key` on are of the newest."""

    fingerprint: str | None
    error_class: str | None
    error: str | None
    count: int
    trial_names: tuple[str, ...]
    keys: tuple[str, ...]
    key: str
    host: str | None
    log: str | None
    error_text: str | None
    environment: dict[str, Any]


@dataclass(frozen=True)
class ProgressRow:
    """State, progress and newest attempt of a trial.

    Errors are top-1 percentages of the first network's main classifier on the test set; `seconds_per_epoch` is the mean
    of training, data and evaluation over the accepted epochs. `started`, `error_class`, `host` and `device` are those
    of the newest training attempt. `begun` is true from the first training attempt on, `claimed` while a living driver
    has the trial. `numbers` is the digest of a done trial's metrics in all epochs.
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
    numbers: str | None


@dataclass(frozen=True)
class PartRow:
    """A method, network, data set, part of the recipe or metric (`kind`) as an attempt used it.

    `title` is its name in print, `facts` those of its kind: a metric's direction, digits and unit. `digest` is the
    sha256 of its code without comments, docstrings and formatting, empty where it is unknown; `source` is the file and
    line where it was registered.
    """

    kind: str
    name: str
    version: int
    title: str
    facts: dict[str, Any] = field(hash=False)
    digest: str
    source: str

    @property
    def file(self) -> str:
        """Return the name of the part's file: `my_parts.py`, and of a part that ships `trainer/methods/pskd.py`."""
        return self.path if self.ships else self.path.rpartition("/")[2]

    @property
    def path(self) -> str:
        """Return the path of the part's file, of a part that ships below the folder of the trainer's package."""
        path, _, line = self.source.rpartition(":")
        return path if path and line.isdecimal() else self.source

    @property
    def ships(self) -> bool:
        """Return whether the part is the trainer's own."""
        return self.source.startswith("trainer/")


@dataclass(frozen=True)
class Origin:
    """Code and data that trained epochs of a trial, by the attempt's `number`; None where nothing was recorded.

    `trainer` is the digest of the trainer's own code, `data` the fingerprint of the data sets' content.
    """

    number: int
    trainer: str | None
    data: str | None
    parts: tuple[PartRow, ...]


@dataclass(frozen=True)
class MeasuredRow:
    """Measurements of a trial in training, or in a canary before it (`purpose`).

    `seconds_per_epoch` is the mean of training, data and evaluation over the accepted epochs, or a canary's
    extrapolation; `device` is the attempt's, `engine` the one that the grid asked for. The other four come from a
    canary and are None for training: the size of its checkpoint in bytes, on a GPU the memory reserved and the device's
    total in bytes, and the share of a step spent on launching kernels.
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


# Tells from a driver's token whether that driver lives.
Living = Callable[[int], bool]


@dataclass(frozen=True)
class Driver:
    """A process that runs trials; its `token` is unique and marks the trials that it claimed."""

    token: int
    host: str
    pid: int
