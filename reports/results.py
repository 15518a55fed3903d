"""Read the database as cells: the trials that differ only in their seed, with the numbers a table prints."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from orchestrator.database import origins, progress, queries, times
from orchestrator.records import DEFAULT, TUNING, row_identity
from orchestrator.statistics import Outcomes
from reports.catalogue import metrics, use_parts
from reports.errors import ReportError
from reports.titles import LATER
from reports.tuning import places

if TYPE_CHECKING:
    from orchestrator.database import Database
    from orchestrator.records import Living, Origin

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
        match = re.fullmatch(r"mean_last_([1-9]\d{0,5})", text)
        if text == "last" or match:
            return cls(text, int(match[1]) if match else 1)
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


def grid_reports(database: Database, names: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    """Return the report section of the named grids, of all for None; raises ReportError for an unknown name."""
    use_parts(database)
    with database.reading() as connection:
        return {row.name: row.report or {} for row in chosen_grids(connection, names)}


def load(database: Database, grids: Sequence[str] | None = None, selection: str = "best_test") -> Results:
    """Read the cells of the named grids, or of all.

    Raises ReportError for an unknown grid or selection rule.
    """
    rule = Selection.parse(selection)
    use_parts(database)
    with database.reading() as connection:
        chosen = chosen_grids(connection, grids)
        ids = [row.id for row in chosen]
        trials = {row.id: row for row in queries.trials(connection, ids)}
        attempts = queries.last_attempts(connection, ids)
        newest = queries.last_epochs(connection, ids)
        compiled = queries.compiled_epochs(connection, ids)
        trained_by = origins.origins(connection, list(trials))
        done = [trial for trial, row in trials.items() if row.state == "done"]
        picks = _picks(connection, rule, newest, done)
        measured = _measured(connection, picks, rule)
        training, per_epoch = _times(connection, picks, ids)
        members = queries.members(connection, ids)
        living = database.living(connection)

    configs = {trial: {**row.config, **LATER, **row.config} for trial, row in trials.items()}
    states = {trial: _effective(row, attempts.get(trial), living) for trial, row in trials.items()}
    searched = any((row.report or {}).get("tune") for row in chosen)
    plain = {TUNING: DEFAULT} if searched else {}
    by_grid: dict[int, list[int]] = {grid: [] for grid in ids}
    named: dict[int, list[tuple[int, str]]] = {grid: [] for grid in ids}
    for grid, trial, name in members:
        named[grid].append((trial, name))
        by_grid[grid].append(trial)

    names: dict[int, str] = {}
    cells: dict[str, _Gathering] = {}
    for row in chosen:
        for place in places(named[row.id], configs, (row.report or {}).get("tune")):
            config = plain | place.config
            cell = cells.setdefault(row_identity(config), _Gathering(config))
            cell.grids[row.name] = None
            cell.about = cell.about or place.about
            names.setdefault(place.trial, place.name)
            if place.trial in cell.trials:
                continue
            trial, attempt = place.trial, attempts.get(place.trial)
            cell.trials[trial] = Trial(
                trial,
                trials[trial].key,
                names[trial],
                trials[trial].config["seed"],
                states[trial],
                attempt.parameters if attempt else None,
                newest.get(trial),
                measured.get(trial, {}),
                training.get(trial),
                per_epoch.get(trial),
                compiled[trial] / (newest[trial] + 1) if trial in compiled else 0.0,
                origins=tuple(trained_by.get(trial, ())),
                numbers=trials[trial].numbers_sha256,
            )
    return Results(
        rule,
        tuple(
            GridInfo(
                row.name,
                row.report or {},
                _count(states[trial] for trial in by_grid[row.id]),
                frozenset(trials[trial].key for trial in by_grid[row.id]),
            )
            for row in chosen
        ),
        tuple(cell.done() for cell in cells.values()),
    )


@dataclass
class _Gathering:
    """A cell whose trials are still being gathered, by id; `grids` are the names of those that ask for it."""

    config: dict[str, Any]
    grids: dict[str, None] = field(default_factory=dict)
    trials: dict[int, Trial] = field(default_factory=dict)
    about: str = ""

    def done(self) -> Cell:
        trials = sorted(self.trials.values(), key=lambda trial: trial.seed)
        return Cell(self.config, tuple(self.grids), tuple(trials), self.about)


def _effective(row: Any, attempt: Any, living: Living) -> str:
    state, _ = progress.effective_state(row.state, row.driver, living)
    return _state(state, attempt.error_class if attempt else None)


def chosen_grids(connection: queries.Connection, names: Sequence[str] | None) -> list[Any]:
    """Return rows (id, name, report) of these grids or of all; raises ReportError for an unknown name."""
    rows = list(queries.grids(connection))
    if names is None:
        return rows
    existing = [row.name for row in rows]
    for name in names:
        if name not in existing:
            near = get_close_matches(name, existing, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ReportError(f"the database has no grid {name!r}{hint} (it has: {', '.join(existing) or 'none'})")
    return [row for row in rows if row.name in names]


def _picks(
    connection: queries.Connection,
    rule: Selection,
    newest: Mapping[int, int],
    done: Iterable[int],
) -> dict[int, queries.Pick]:
    """Return the selected epochs of every done trial, by the first network's main classifier where that decides.

    A trial without them is left out: without an evaluation on the split that selects, or with fewer epochs than are
    averaged, since their mean is not what the rule promises.
    """
    if rule.last:
        ends = {trial: newest[trial] for trial in done if newest.get(trial, -1) + 1 >= rule.last}
    else:
        ends = queries.best_epochs(connection, done, _split(rule))
    return {
        trial: queries.Pick(trial, queries.EVERY_NETWORK, end - rule.last + 1 if rule.last else end, end)
        for trial, end in ends.items()
    }


def _split(rule: Selection) -> str:
    return "test" if rule.rule == "best_test" else "validation"


def _measured(
    connection: queries.Connection, picks: Mapping[int, queries.Pick], rule: Selection
) -> dict[int, dict[tuple[int, str], Measurement]]:
    measured: dict[int, dict[tuple[int, str], Measurement]] = defaultdict(dict)

    asked = any(name not in queries.METRICS for name in metrics())

    def take(picks: Mapping[int, queries.Pick]) -> None:
        own: dict[tuple[int, int, str], dict[str, float]] = defaultdict(dict)
        if asked:
            for row in queries.own_measurements(connection, picks.values()):
                # The mean of fewer epochs is not what the rule promises.
                if row.epochs == picks[row.trial_id].last - picks[row.trial_id].first + 1:
                    own[row.trial_id, row.network, row.classifier][row.metric] = row.value
        kept = {}
        if rule.last <= 1:
            for right in queries.outcomes(connection, picks.values()):
                kept[right.trial_id, right.network, "main"] = Outcomes(right.correct, right.images, right.labels_sha256)
        for row in queries.measurements(connection, picks.values()):
            values = {name: getattr(row, name) for name in queries.METRICS}
            place = row.trial_id, row.network, row.classifier
            measured[row.trial_id][place[1:]] = Measurement(
                picks[row.trial_id].last, row.images, values | own.get(place, {}), kept.get(place)
            )

    take(picks)
    if not rule.last:
        # Networks trained side by side are published one by one, each at its own best epoch.
        peers: dict[int, list[int]] = defaultdict(list)
        for trial, by_place in measured.items():
            for network in {network for network, _ in by_place} - {0}:
                peers[network].append(trial)
        for network, of in peers.items():
            best = queries.best_epochs(connection, of, _split(rule), network)
            take({trial: queries.Pick(trial, network, end, end) for trial, end in best.items()})
    return measured


def _times(
    connection: queries.Connection, picks: Mapping[int, queries.Pick], grid_ids: Sequence[int]
) -> tuple[dict[int, Seconds], dict[int, Seconds]]:
    """Return the time to the selected epoch, and of one epoch: from a timing pass, else from the exclusive epochs."""
    training, per_epoch = {}, {}
    for row in times.clocks(connection, {trial: pick.last for trial, pick in picks.items()}):
        training[row.trial_id] = Seconds(row.seconds, row.shared == 0)
        if row.exclusive is not None:
            per_epoch[row.trial_id] = Seconds(row.exclusive, True)
    for trial, mean in times.mean_seconds(connection, training.keys() - per_epoch.keys()).items():
        per_epoch[trial] = Seconds(mean, False)
    passes: dict[int, list[Any]] = defaultdict(list)
    for measured in times.timing_passes(connection, grid_ids):
        passes[measured.trial_id].append(measured)
    for trial, rows in passes.items():
        quiet = [row.seconds for row in rows if row.timing_quality == "exclusive"]
        if quiet or trial not in per_epoch or not per_epoch[trial].exclusive:
            per_epoch[trial] = Seconds(median(quiet or [row.seconds for row in rows]), bool(quiet), True)
    return training, per_epoch


def _state(state: str, error_class: str | None) -> str:
    return "diverged" if state == "failed" and error_class == "diverged" else state


def _count(states: Iterable[str]) -> dict[str, int]:
    counted: dict[str, int] = defaultdict(int)
    for state in states:
        counted[state] += 1
    return dict(counted)
