"""Define what a report is made of: cells, the trials that differ only in their seed, with their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from orchestrator.records import averaged_epochs
from orchestrator.statistics import Outcomes
from reports.errors import ReportError

if TYPE_CHECKING:
    from orchestrator.records import Origin

RULES = "best_test, best_val, last or mean_last_K (K epochs, such as mean_last_5)"


class Selection(NamedTuple):
    """The rule that picks the epoch whose metrics count. `last` epochs are averaged where it is positive."""

    rule: str
    last: int = 0

    @classmethod
    def parse(cls, text: str) -> Selection:
        """Return a rule by name; raises ReportError for an unknown one."""
        if text in ("best_test", "best_val"):
            return cls(text)
        if last := 1 if text == "last" else averaged_epochs(text):
            return cls(text, last)
        raise ReportError(f"unknown selection {text!r}; allowed: {RULES}")

    @property
    def sentence(self) -> str:
        """Return the rule as a caption states it."""
        if self.rule == "best_test":
            return "Selection: the epoch with the lowest top-1 error on the test split (best_test)."
        if self.rule == "best_val":
            return "Selection: the epoch with the lowest top-1 error on the validation split (best_val)."
        if self.last == 1:
            return f"Selection: the last epoch ({self.rule})."
        return f"Selection: the mean over the last {self.last} epochs ({self.rule})."


class Measurement(NamedTuple):
    """One classifier of one network on the test split at the selected epoch, over `images` images.

    Metrics in the units of the database; `aurc` is times 1000. `outcomes` say which images are right, where they are
    kept: for `main`, at a single epoch.
    """

    epoch: int
    images: int
    metrics: Mapping[str, float | None]
    outcomes: Outcomes | None = None


class Seconds(NamedTuple):
    """A duration, whether every epoch it counts had the device to itself, and whether a timing pass measured it."""

    value: float
    exclusive: bool
    timing_pass: bool = False


@dataclass(frozen=True)
class Trial:
    """One configuration with one seed.

    `state` is pending, running, done, failed or diverged. Measurements, by (network, classifier), and times are
    there for done trials only. `training` is the time to the end of the selected epoch, `epoch` that of one epoch.
    `compiled` is the share of its epochs that were trained with compiled networks, which round differently. `pair` are
    values of other fields that a table averages beside the seed. `origins` are the code and
    data that trained its epochs. `numbers` is the digest of its metrics in all epochs, once it is done.
    `defaults` are the values of hyperparameters that its configuration leaves to a part, as they were when it was
    trained, by the part's kind and name and the hyperparameter; `replaced` are footnotes on those that other trials
    were trained with another value of.
    """

    id: int
    key: str
    name: str
    seed: int
    state: str
    parameters: int | None = None
    last_epoch: int | None = None
    measurements: Mapping[tuple[int, str], Measurement] = field(default_factory=dict)
    training: Seconds | None = None
    epoch: Seconds | None = None
    compiled: float = 0.0
    pair: str = ""
    origins: tuple[Origin, ...] = ()
    numbers: str | None = None
    defaults: Mapping[tuple[str, str, str], Any] = field(default_factory=dict)
    replaced: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cell:
    """The trials of one configuration, `config` without the seed. `grids` names those that ask for it.

    Where a grid that is read has a search (`tune`), every configuration has the field `tuning`: default, or tuned for a
    row with what the search chose. `about` is what a footnote says of that.
    """

    config: Mapping[str, Any]
    grids: tuple[str, ...]
    trials: tuple[Trial, ...]
    about: str = ""

    @property
    def network(self) -> str:
        return str(self.config["network"])

    @property
    def methods(self) -> Mapping[str, Mapping[str, Any]]:
        methods: Mapping[str, Mapping[str, Any]] = self.config["methods"]
        return methods

    @property
    def done(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.state == "done"]


class GridInfo(NamedTuple):
    """A grid of the report: its name, its report section, its trials counted by state, and their keys."""

    name: str
    report: Mapping[str, Any]
    states: Mapping[str, int]
    keys: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Results:
    """Every cell of the chosen grids, in the grids' order, under one selection rule."""

    selection: Selection
    grids: tuple[GridInfo, ...]
    cells: tuple[Cell, ...]
