"""Compare two rows, cells or trials: how far apart they are, by the test of the bold rule, and what else differs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from orchestrator import identity
from orchestrator.database import queries
from orchestrator.records import row_of
from orchestrator.statistics import ENOUGH_SEEDS, Comparison, mean_of
from orchestrator.statistics import compare as compare_candidates
from reports.columns import Column, column_of
from reports.errors import ReportError, unknown
from reports.gathering import Gathered, gather
from reports.layouts.entries import candidate_of, sample
from reports.layouts.twins import twins
from reports.loading import load
from reports.results import Cell, Results, Trial
from reports.table import Entry, Sample, entries_of

if TYPE_CHECKING:
    from orchestrator.database import Database

# A key may be shortened to so many characters, as everywhere.
SHORTEST_KEY = 6


@dataclass(frozen=True)
class Side:
    """One of the two that are compared: what it was called, its cell's configuration, and its trials."""

    name: str
    config: Mapping[str, Any]
    trials: tuple[Trial, ...]


def compare(
    database: Database,
    first: str,
    second: str,
    *,
    metric: str = "top1",
    grids: Sequence[str] | None = None,
    selection: str | None = None,
    tables: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return the comparison of two, as plain values: `difference` is first minus second, in the metric's unit.

    Each is a row of a table (`table1:resnet18/pskd`), a trial's name or the beginning of its key, or a trial's name
    without its seed, which is all seeds. A row is read by its table's rule of selection, and a trial by that of the
    other side's table, else of its grid. Raises ReportError for an unknown name, a row of several configurations, a
    metric without values, and two sides whose rules differ.
    """
    also = [name.partition(":")[0] for name in (first, second) if ":" in name]
    gathered = gather(database, grids=grids, selection=selection, tables=tables, also=dict.fromkeys(also))
    results = _results(database, gathered, (first, second), grids, selection)
    one, two = (_side(gathered, results, name) for name in (first, second))
    if {trial.key for trial in one.trials} == {trial.key for trial in two.trials}:
        raise ReportError(f"{first} and {second} are the same trials; name two that differ")
    column = column_of(metric)
    samples = [_samples(side, column) for side in (one, two)]
    comparison = compare_candidates(candidate_of(samples[0]), candidate_of(samples[1]))
    result: dict[str, Any] = {
        "first": _described(one, samples[0]),
        "second": _described(two, samples[1]),
        "metric": metric,
        "unit": column.unit,
        "selection": results.selection.rule,
        "comparison": asdict(comparison) if comparison else None,
        "fields": _fields(one.config, two.config),
        "code_and_data": sorted({str(each) for each in _differences(one, two)}),
        "devices": _devices(database, (one, two)),
        "shared_device": [
            sum(trial.epoch is not None and not trial.epoch.exclusive for trial in side.trials) for side in (one, two)
        ],
        "same_numbers": twins(one.trials, two.trials),
    }
    result["text"] = _text(result, column, comparison)
    return result


def _results(
    database: Database, gathered: Gathered, names: Sequence[str], grids: Sequence[str] | None, selection: str | None
) -> Results:
    """Return the results by the rule of selection that both sides have."""
    rules = {name: _rule(gathered, name) for name in names}
    if not any(rules.values()) and selection is None:
        reports = {grid.name: grid.report for grid in gathered.results.grids}
        for name in names:
            of = _found(gathered, gathered.results, name)[0][0].grids[0]
            rules[name] = reports[of].get("selection") or "best_test"
    chosen = [rule for rule in rules.values() if rule]
    if len(set(chosen)) > 1:
        read = " and ".join(f"{name} ({rule})" for name, rule in rules.items())
        raise ReportError(f"{read} select their epochs differently, and cannot be compared; give --selection")
    rule = chosen[0] if chosen else gathered.results.selection.rule
    return gathered.loaded.get(rule) or load(database, grids, rule)


def _rule(gathered: Gathered, name: str) -> str | None:
    """Return the rule of selection of a row's table, None for a trial."""
    table = gathered.table(name.partition(":")[0]) if ":" in name else None
    return table.selection.rule if table is not None and table.selection is not None else None


def _side(gathered: Gathered, results: Results, name: str) -> Side:
    """Return the trials of a name."""
    matches = _found(gathered, results, name)
    if len({id(cell) for cell, _ in matches}) > 1:
        several = ", ".join(dict.fromkeys(trial.name for _, trial in matches[:4]))
        raise ReportError(
            f"{name!r} names trials of several configurations ({several}, ...), and a comparison takes those of one: "
            "name a number of that row (TABLE:ROW/COLUMN), a cell or a trial; a mean over networks, say, has no test"
        )
    return Side(name, matches[0][0].config, tuple(trial for _, trial in matches))


def _found(gathered: Gathered, results: Results, name: str) -> list[tuple[Cell, Trial]]:
    """Return the trials of a name with their cells; raises ReportError where there are none."""
    by_key = {trial.key: (cell, trial) for cell in results.cells for trial in cell.trials}
    if ":" in name:
        matches = [by_key[key] for key in _row_keys(gathered, name) if key in by_key]
    else:
        matches = [pair for pair in by_key.values() if name in (pair[1].name, pair[1].key)]
        matches = matches or [pair for pair in by_key.values() if row_of(pair[1].name) == name]
        if not matches and len(name) >= SHORTEST_KEY:
            matches = [pair for key, pair in by_key.items() if key.startswith(name)]
    if not matches:
        names = [trial.name for _, trial in by_key.values()]
        cut = dict.fromkeys(row_of(each) for each in names)
        raise unknown("row, cell or trial", name, [*cut, *names])
    return matches


def _row_keys(gathered: Gathered, address: str) -> list[str]:
    """Return the keys of the trials of a row, or of a number, of a table."""
    name, _, place = address.partition(":")
    table = gathered.table(name)
    rows = {row.key: row for row in table.rows}
    places = {f"{row.key}/{column.key}": entry for row, column, entry in entries_of(table)}
    if place in rows:
        entries: Sequence[Entry] = rows[place].entries
    elif place in places:
        entries = [places[place]]
    else:
        raise unknown(f"row of {name}", place, [*rows, *places])
    # A difference and a p-value have the trials of their reference too, which are of another row.
    own = [entry for entry in entries if not entry.quantity.removesuffix("-median").endswith(("-minus", "-p"))]
    keys = [each.key for entry in own for each in entry.samples]
    if not keys and any(entry.samples for entry in entries):
        raise ReportError(f"{address} has only differences from other rows, or p-values; name the rows themselves")
    if not keys:
        raise ReportError(f"{address} has no number yet")
    return list(dict.fromkeys(keys))


def _samples(side: Side, column: Column) -> list[Sample]:
    samples = [each for trial in side.trials if (each := sample(trial, column.quantity)) is not None]
    if not samples:
        states = ", ".join(dict.fromkeys(trial.state for trial in side.trials))
        raise ReportError(f"{side.name} has no value of {column.key} (its trials are {states})")
    return samples


def _described(side: Side, samples: Sequence[Sample]) -> dict[str, Any]:
    mean = mean_of([each.value for each in samples])
    return {"name": side.name, "mean": mean, "seeds": [each.seed for each in samples], "keys": [x.key for x in samples]}


def _fields(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the fields of the configuration that differ, with both values."""
    names = dict.fromkeys([*first, *second])
    return {name: [first.get(name), second.get(name)] for name in names if first.get(name) != second.get(name)}


def _differences(one: Side, two: Side) -> Iterable[identity.Difference]:
    for first in one.trials:
        for second in two.trials:
            for before in first.origins:
                for after in second.origins:
                    yield from identity.differences(before, after)


def _devices(database: Database, sides: Sequence[Side]) -> list[list[str]]:
    devices = []
    with database.reading() as connection:
        for side in sides:
            rows = queries.attempts(connection, [trial.key for trial in side.trials])
            devices.append(sorted({row.device or "unknown" for row in rows if row.purpose == "train"}))
    return devices


def _text(result: Mapping[str, Any], column: Column, comparison: Comparison | None) -> str:
    """Return the comparison in words."""
    lines = []
    for place in ("first", "second"):
        side = result[place]
        seeds = ", ".join(map(str, side["seeds"]))
        lines.append(f"{side['name']}: {column.heading} {side['mean']:.{column.digits}f}, seeds {seeds}")
    lines += _verdict(comparison, column)
    if result["same_numbers"]:
        lines.append(f"Both have {result['same_numbers']}: this difference changes nothing.")
    fields = ", ".join(f"{name}: {one!r} / {two!r}" for name, (one, two) in result["fields"].items())
    lines.append(f"Fields that differ: {fields or 'none but the seed'}.")
    lines.append(f"Code and data: {'; '.join(result['code_and_data']) or 'no difference recorded'}.")
    one, two = (", ".join(each) or "unknown" for each in result["devices"])
    lines.append(f"Device: {one}, both." if one == two else f"Device: {one} / {two}.")
    shared = result["shared_device"]
    if any(shared):
        lines.append(f"Times: the device was shared in {shared[0]} / {shared[1]} of the trials.")
    lines.append(f"Selected epochs: {result['selection']}.")
    return "\n".join(lines)


def _verdict(comparison: Comparison | None, column: Column) -> list[str]:
    if comparison is None:
        return [
            f"No test: it takes an error rate over test images, or {ENOUGH_SEEDS} seeds that both have and whose "
            "differences scatter."
        ]
    digits = column.digits + 1
    low, high = comparison.difference - comparison.margin, comparison.difference + comparison.margin
    seeds = f"{comparison.n} seed{'s' if comparison.n != 1 else ''}"
    images = f"{comparison.images or 0:,} test images"
    tests = {
        "paired": f"t test paired over {seeds}",
        "images": f"exact test paired over {images} of {seeds} ({comparison.over_images})",
        "unpaired": f"binomial noise of {images}, unpaired: no outcomes per image",
    }
    p = "< 0.0001" if comparison.p < 0.0001 else f"= {comparison.p:.4f}"
    verdict = "told apart" if comparison.p < 0.05 else "not told apart"
    lines = [
        f"Difference {comparison.difference:+.{digits}f}, 95 % interval {low:+.{digits}f} to {high:+.{digits}f}, "
        f"p {p}: {verdict} at 5 % ({tests[comparison.test]})."
    ]
    if comparison.test == "images":
        lines.append("This is about these trained networks; those of another seed may compare the other way.")
        if comparison.n > 1:
            lines.append(
                "Sign flips over two seeds are exact where the two are exchangeable, not only equal on average."
            )
    if comparison.flips:
        lines.append(
            f"Images that only the first has right: {comparison.flips[0]:,}; only the second: {comparison.flips[1]:,}."
        )
    return lines
