"""Compute metrics on the probabilities that the database keeps, without training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import OrchestrateError
from orchestrator.exit_codes import BAD_INPUT
from orchestrator.records import trial_in_words
from orchestrator.text import counted, shortlist
from trainer.builtin_metrics import ALWAYS
from trainer.parts import METRICS, MetricFacts
from trainer.plugin_files import Plugin
from trainer.plugins import load_plugins
from trainer.problems import unknown
from trainer.registry import Part

if TYPE_CHECKING:
    from orchestrator.database import Database
    from orchestrator.database.scoring import Kept, Recorded

# Names of trials in one line.
SHOWN = 3


class ScoreError(OrchestrateError):
    """Metrics that cannot be computed as they were asked for; the message says which, and what to do."""

    exit_code = BAD_INPUT


@dataclass
class Score:
    """Outcome of scoring a metric: values that were stored, with their trials, and values that existed.

    `other` names trials that have values by other code, `not_finite` those whose probabilities are not finite;
    `problems` has by message the trials where the metric failed.
    """

    metric: Part[MetricFacts]
    stored: int = 0
    present: int = 0
    trials: set[str] = field(default_factory=set)
    other: dict[str, None] = field(default_factory=dict)
    not_finite: dict[str, None] = field(default_factory=dict)
    problems: dict[str, dict[str, None]] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Return what to print: a line on the values, and one on what was left out."""
        name = self.metric.name
        counts = []
        if self.stored:
            counts.append(f"{counted(self.stored, 'value')} stored, of {counted(len(self.trials), 'trial')}")
        if self.present:
            counts.append(f"{counted(self.present, 'value')} there already")
        lines = [f"{name} ({self.metric.source}): {', '.join(counts) or 'no value stored'}"]
        if self.other:
            lines.append(
                f"{name}: measured by other code already, and left as it is: {names(self.other)}; under another name "
                "both have a column"
            )
        if self.not_finite:
            lines.append(f"{name}: not measured, because the probabilities are not finite: {names(self.not_finite)}")
        return lines

    def failures(self) -> list[str]:
        """Return a line for everything that failed."""
        return [f"{names(trials)}: {message}" for message, trials in self.problems.items()]


@dataclass(frozen=True)
class Scored:
    """The metrics, how many trials have probabilities, and the names of trained trials that have none."""

    scores: list[Score]
    trials: int
    without: list[str]

    def lines(self) -> list[str]:
        """Return what to print."""
        lines = [line for each in self.scores for line in each.lines()] if self.trials else []
        if self.without:
            have = "has no probabilities" if len(self.without) == 1 else "have no probabilities"
            lines.append(
                f"{counted(len(self.without), 'trained trial')} {have}: {names(self.without)}; trials of a grid file "
                "with `outcomes: probabilities` keep them from their training on"
            )
        elif not self.trials:
            lines.append("no trial was trained yet")
        return lines

    @property
    def failures(self) -> list[str]:
        """Return a line for everything that failed."""
        return [line for each in self.scores for line in each.failures()]


def wanted_metrics(files: Sequence[str], asked: Sequence[str]) -> tuple[list[Part[MetricFacts]], list[Plugin]]:
    """Load files of parts; return their metrics, or those `asked` for by name, which may also be built in.

    Raises ScoreError for an unknown metric, for one that every evaluation has, and where there is none; PartError for
    a file that cannot be loaded.
    """
    plugins = load_plugins(files, beside=Path())
    if asked:
        for name in asked:
            if name not in METRICS:
                raise ScoreError(unknown("metric", name, [each for each in METRICS if each not in ALWAYS]))
            if name in ALWAYS:
                raise ScoreError(f"{name} is measured in every evaluation; the tables have it already")
        return [METRICS[name] for name in dict.fromkeys(asked)], plugins
    brought = {path for plugin in plugins for path in plugin.paths}
    listed = [part for part in METRICS.values() if part.file.resolve() in brought]
    if not listed:
        where = f"{', '.join(files)} registers no metric; " if files else ""
        raise ScoreError(f"{where}give a file with a function under @metric(...), or --metric with one that ships")
    return listed, plugins


def score(database: Database, metrics: Sequence[Part[MetricFacts]], grids: Sequence[str] | None = None) -> Scored:
    """Compute metrics on all kept probabilities of these grids' trials, or of all, and store the values.

    What is stored already stays as it is. A metric that fails is in the answer, and the others are computed.
    """
    from orchestrator.provenance import part_row

    listed = [(name, [one for one in kept if one.probabilities]) for name, kept in database.kept(grids)]
    scored = Scored(
        [Score(metric) for metric in metrics],
        sum(bool(kept) for _, kept in listed),
        [name for name, kept in listed if not kept],
    )
    rows = {metric.name: part_row(metric) for metric in metrics}
    recorded = database.recorded([one for _, kept in listed for one in kept], list(rows))
    for _, kept in listed:
        values: dict[tuple[int, str], list[tuple[Kept, float]]] = defaultdict(list)
        for one in kept:
            unmeasured = [entry for entry in scored.scores if _is_open(entry, one, recorded)]
            for entry, value in _measure(database, one, unmeasured):
                values[one.attempt_id, entry.metric.name].append((one, value))
        for entry in scored.scores:
            for attempt in sorted({one.attempt_id for one in kept}):
                if fresh := values.get((attempt, entry.metric.name)):
                    entry.stored += database.record_scores(attempt, rows[entry.metric.name], fresh)
                    entry.trials.add(fresh[0][0].key)
    return scored


def _is_open(entry: Score, one: Kept, recorded: Recorded) -> bool:
    """Return whether an evaluation is to be measured by a metric; notes in its entry why it is not."""
    name = entry.metric.name
    code = recorded.digests.get((one.attempt_id, name))
    if code and entry.metric.digest not in code:
        entry.other[one.trial] = None
        return False
    if (one.evaluation_id, name) in recorded.values:
        entry.present += 1
        return False
    return True


def _measure(database: Database, one: Kept, entries: Sequence[Score]) -> Iterator[tuple[Score, float]]:
    """Yield the values of metrics on the kept probabilities of an evaluation; notes in the entries what fails."""
    import torch

    from orchestrator.database.scoring import Unreadable
    from trainer.own_metrics import MetricError, measure

    if not entries:
        return
    try:
        kept, classes = database.probabilities(one)
    except Unreadable as error:
        for entry in entries:
            message = f"{entry.metric.name} is not measured on the probabilities of epoch {one.epoch + 1}: {error}"
            entry.problems.setdefault(message, {})[one.trial] = None
        return
    probabilities, labels = torch.from_numpy(kept.astype("float64")), torch.from_numpy(classes.astype("int64"))
    for entry in entries:
        name = entry.metric.name
        try:
            value = measure([name], probabilities, labels).get(name)
        except MetricError as error:
            entry.problems.setdefault(str(error), {})[one.trial] = None
            continue
        if value is None:
            entry.not_finite[one.trial] = None
        else:
            yield entry, value


def names(trials: Iterable[str]) -> str:
    """Return the first names of trials, and how many more there are."""
    return shortlist([trial_in_words(name) for name in trials], SHOWN)
