"""Read the database as cells: the trials that differ only in their seed, with the numbers a table prints."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

from orchestrator.database import origins, progress, queries, times
from orchestrator.records import DEFAULT, TUNING, row_identity
from orchestrator.statistics import Outcomes
from reports.catalogue import metrics, title_of, use_parts
from reports.errors import unknown
from reports.results import Cell, GridInfo, Measurement, Results, Seconds, Selection, Trial
from reports.titles import LATER
from reports.tuning import places

if TYPE_CHECKING:
    from orchestrator.database import Database
    from orchestrator.records import Living, Origin


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
    states = {trial: _state(row, attempts.get(trial), living) for trial, row in trials.items()}
    named: dict[int, list[tuple[int, str]]] = {grid: [] for grid in ids}
    for grid, trial, name in members:
        named[grid].append((trial, name))

    defaults = {trial: _defaults(config, trained_by.get(trial, ())) for trial, config in configs.items()}
    replaced = _replaced(defaults)

    def result_of(trial: int, name: str) -> Trial:
        row, attempt = trials[trial], attempts.get(trial)
        return Trial(
            trial,
            row.key,
            name,
            row.config["seed"],
            states[trial],
            attempt.parameters if attempt else None,
            newest.get(trial),
            measured.get(trial, {}),
            training.get(trial),
            per_epoch.get(trial),
            compiled[trial] / (newest[trial] + 1) if trial in compiled else 0.0,
            origins=tuple(trained_by.get(trial, ())),
            numbers=row.numbers_sha256,
            defaults=defaults[trial],
            replaced=replaced[trial],
        )

    grids_read = tuple(
        GridInfo(
            row.name,
            row.report or {},
            Counter(states[trial] for trial, _ in named[row.id]),
            frozenset(trials[trial].key for trial, _ in named[row.id]),
        )
        for row in chosen
    )
    return Results(rule, grids_read, _cells(chosen, named, configs, result_of))


def _defaults(config: Mapping[str, Any], trained_by: Sequence[Origin]) -> dict[tuple[str, str, str], Any]:
    """Return the hyperparameters that a configuration leaves to its parts, with the values they had in training.

    A part's file may be given other defaults later, which changes neither the configuration nor its key.
    """
    left: dict[tuple[str, str, str], Any] = {}
    for part in (part for origin in trained_by for part in origin.parts):
        holder = config.get(part.kind, config.get(f"{part.kind}s"))
        given = holder.get(part.name) if isinstance(holder, Mapping) else None
        values = part.facts.get("defaults")
        if isinstance(given, Mapping) and isinstance(values, Mapping):
            left |= {(part.kind, part.name, name): value for name, value in values.items() if name not in given}
    return left


def _replaced(
    defaults: Mapping[int, Mapping[tuple[str, str, str], Any]],
) -> dict[int, tuple[str, ...]]:
    """Return footnotes per trial: defaults with which it was trained, where other trials were with others."""
    values: dict[tuple[str, str, str], dict[str, None]] = defaultdict(dict)
    for left in defaults.values():
        for place, value in left.items():
            values[place][str(value)] = None

    def footnotes(left: Mapping[tuple[str, str, str], Any]) -> Iterator[str]:
        for (kind, name, parameter), value in left.items():
            others = [other for other in values[kind, name, parameter] if other != str(value)]
            if others:
                then = f"trained with {parameter} {value}, the default of {title_of(kind, name)} then"
                yield f"{then}; in other trials that was {', '.join(others)}"

    return {trial: tuple(footnotes(left)) for trial, left in defaults.items()}


def _cells(
    grids: Sequence[Any],
    named: Mapping[int, Sequence[tuple[int, str]]],
    configs: Mapping[int, Mapping[str, Any]],
    result_of: Callable[[int, str], Trial],
) -> tuple[Cell, ...]:
    """Put the trials of grids, `named` by the grid's id, into cells, in the grids' order."""
    searched = any((grid.report or {}).get("tune") for grid in grids)
    plain = {TUNING: DEFAULT} if searched else {}
    names: dict[int, str] = {}
    cells: dict[str, _Gathering] = {}
    for grid in grids:
        for place in places(named[grid.id], configs, (grid.report or {}).get("tune")):
            config = plain | place.config
            cell = cells.setdefault(row_identity(config), _Gathering(config))
            cell.grids[grid.name] = None
            cell.about = cell.about or place.about
            names.setdefault(place.trial, place.name)
            if place.trial not in cell.trials:
                cell.trials[place.trial] = result_of(place.trial, names[place.trial])
    return tuple(cell.done() for cell in cells.values())


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


def _state(row: Any, attempt: Any, living: Living) -> str:
    """Return a trial's state now, `diverged` apart from other failures."""
    state, _ = progress.effective_state(row.state, row.driver, living)
    return "diverged" if state == "failed" and attempt and attempt.error_class == "diverged" else state


def chosen_grids(connection: queries.Connection, names: Sequence[str] | None) -> list[Any]:
    """Return rows (id, name, report) of these grids or of all; raises ReportError for an unknown name."""
    rows = list(queries.grids(connection))
    if names is None:
        return rows
    existing = [row.name for row in rows]
    for name in names:
        if name not in existing:
            raise unknown("grid", name, existing)
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
