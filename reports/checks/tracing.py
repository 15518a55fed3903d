"""Trace a printed number to the trials that it comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.database import queries
from reports.errors import ReportError, unknown
from reports.gathering import gather, plotted
from reports.results import Results
from reports.table import Entry, entries_of
from reports.text import words

if TYPE_CHECKING:
    from orchestrator.database import Database


def explain(
    database: Database,
    address: str,
    *,
    grids: Sequence[str] | None = None,
    selection: str | None = None,
    tables: Sequence[Mapping[str, Any]] = (),
    figures: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Return all about one number, named table:row/column as in `table1:resnet18/pskd/top1`: grids, selection rule,
    trials, seeds, epochs, attempts, devices, commits and logs.

    The number is that of a report with the same `grids` and `selection`, in a table or a figure. Methods may be named
    in any order. Raises ReportError for an address that no table or figure has, for an unknown grid or rule, and for
    grids that disagree about a rule.
    """
    name, _, place = address.partition(":")
    if not place:
        raise ReportError(
            f"{address!r} does not name a number; write table:row/column, as in table1:resnet18/pskd/top1"
        )
    vs_paper = name.endswith("-vs-paper")
    gathered = gather(database, grids=grids, selection=selection, vs_paper=vs_paper, tables=tables, also=[name])
    if not any(table.name == name for table in gathered.tables):
        # A figure's numbers are those of its table, which no file has.
        plots = plotted(database, gathered, grids=grids, selection=selection, figures=figures)
        shown = [plot.table for plot in plots if plot.spec.kind != "clock"]
        gathered = gathered._replace(tables=[*gathered.tables, *shown])
    table = gathered.table(name)
    places = {f"{row.key}/{column.key}": (row, column, entry) for row, column, entry in entries_of(table)}
    match = {_any_order(known): known for known in places}.get(_any_order(place))
    if match is None:
        raise unknown(f"number of {name}", place, places)
    row, column, entry = places[match]
    printed = words(entry, column, row).plain
    lines = [
        f"{name}:{match}",
        f"  {' '.join(filter(None, [row.group, *row.labels]))}: {column.heading} = {printed}",
        f"  {_grids(gathered.results, entry)}",
        f"  {table.selection.sentence if table.selection else 'No epoch is selected for it.'}",
    ]
    if entry.value is not None and entry.samples:
        lines.append(f"  value {entry.value!r}" + (f", ± {entry.spread!r}" if entry.spread is not None else ""))
    lines.append(f"  {entry.n} of {entry.planned} seeds" + (f", {entry.diverged} diverged" if entry.diverged else ""))
    lines += [f"  its trials are not alike: {what}" for what in entry.differing.footnotes]
    lines += [f"  note: its trials were {what}" for what in entry.differing.notes]
    return "\n".join([*lines, *_origins(database, entry)])


def _grids(results: Results, entry: Entry) -> str:
    """Name the grids that ask for the trials behind an entry, among those read: another choice is another number."""
    keys = {sample.key for sample in entry.samples} | {key for key, *_ in entry.absent}
    behind = {grid.name for grid in results.grids if not keys.isdisjoint(grid.keys)}
    read = [grid.name for grid in results.grids]
    asking = [name for name in read if name in behind]
    return f"Grids of its trials: {', '.join(asking) or 'none'}. Grids read: {', '.join(read) or 'none'}."


def _any_order(place: str) -> str:
    return "/".join("+".join(sorted(part.split("+"))) for part in place.lower().split("/"))


def _origins(database: Database, entry: Entry) -> Iterator[str]:
    """Return the trials behind an entry and those that it lacks, with their attempts."""
    lines: dict[str, str] = {}
    for sample in entry.samples:
        number = sample.epoch
        epoch = "" if number is None else f", epoch {number} (epochs.epoch = {number - 1} in the database)"
        shared = "" if sample.exclusive else ", device shared"
        lines[sample.key] = f"  trial {sample.name}: {sample.value!r}, seed {sample.seed}{epoch}{shared}"
    lines |= {key: f"  trial {name}: no value, {state}" for key, name, state in entry.absent}
    with database.reading() as connection:
        attempts: dict[str, list[Any]] = {}
        for row in queries.attempts(connection, lines):
            attempts.setdefault(row.key, []).append(row)
    for key, line in lines.items():
        yield line
        yield f"    key {key}"
        for row in attempts.get(key, []):
            environment = row.environment or {}
            commit = environment.get("commit") or "unknown"
            dirty = " with uncommitted changes" if environment.get("dirty") else ""
            ended = f" to {row.ended:%Y-%m-%d %H:%M}" if row.ended else ""
            yield (
                f"    attempt {row.number} ({row.purpose}): {row.outcome or 'under way'}, "
                f"{row.started:%Y-%m-%d %H:%M}{ended} UTC, commit {commit}{dirty}"
            )
            engine = f", engine {environment['engine']}" if "engine" in environment else ""
            engine += ", deterministic" if environment.get("deterministic") else ""
            device = f"{row.device or 'unknown device'}{engine}"
            yield f"      on {row.host or 'unknown host'}, {device}; log {row.log or 'none'}"
