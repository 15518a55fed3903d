"""Everything that the page shows, as plain values: its tables, pictures and scripts read nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, groupby
from typing import TYPE_CHECKING, Any

from orchestrator.database import histories
from orchestrator.logs import log_end
from orchestrator.statistics import IMAGES, compare
from reports.columns import AUROC, EPOCH, QUALITY, TRAINING, Column, own_columns
from reports.layouts.entries import candidate
from reports.layouts.wording import text_of
from reports.loading import chosen_grids
from reports.page.curves import curves, rounded
from reports.render.html import heading, table_data
from reports.render.latex import escape, latex_entry
from reports.results import Cell, Results, Trial
from reports.table import Entry, Row, Table

if TYPE_CHECKING:
    from orchestrator.database import Database
    from reports.figures.drawing import Drawing

# Tests over images take a moment each; a table of a hundred rows has as many pairs.
MOST_COMPARISONS = 5_000
# Attempts whose logs are read first: whoever opens those wants to know why.
_FIRST = ("failed", "diverged", "running")
# Bytes of all logs on a page: a page of many trials must stay small enough for a mail.
ALL_TAILS = 1_000_000


class Tails:
    """Read the ends of logs until `room` bytes are used up; `left_out` counts those after that."""

    def __init__(self, room: int = ALL_TAILS) -> None:
        self.room = room
        self.left_out = 0

    def read(self, log: str | None, key: str, host: str | None) -> str | None:
        """Return what `log_end` returns, and None also where no room is left."""
        end = log_end(log, key, host)
        if end and self.room <= 0:
            self.left_out += 1
            return None
        self.room -= len((end or "").encode())
        return end


def page_data(
    database: Database, results: Results, tables: Sequence[Table], drawings: Sequence[Drawing] = ()
) -> dict[str, Any]:
    """Return what the page shows of results, tables and figures, ready for JSON: no NaN, no infinity.

    Trials, cells and rows of tables name one another by their places in `trials` and `cells`.
    """
    trials = [(place, trial) for place, cell in enumerate(results.cells) for trial in cell.trials]
    places = {trial.key: place for place, (_, trial) in enumerate(trials)}
    with database.reading() as connection:
        grid_ids = [row.id for row in chosen_grids(connection, [grid.name for grid in results.grids])]
        attempts = {
            trial: list(rows)
            for trial, rows in groupby(histories.attempts(connection, grid_ids), key=lambda row: row.trial_id)
        }
    tails = Tails()
    order = sorted(range(len(trials)), key=lambda place: trials[place][1].state not in _FIRST)
    ends = {place: _ends(trials[place][1], attempts.get(trials[place][1].id, ()), tails) for place in order}
    measured = curves(database, {trial.id: trial.last_epoch for _, trial in trials if trial.last_epoch is not None})
    lines = measured.pop("lines")
    title, subtitle = headline(results)
    own = sum(not table.layout.endswith(("-vs-paper", "-doubts")) for table in tables)
    return {
        "title": title,
        "subtitle": subtitle,
        "selection": results.selection.sentence,
        "grids": [
            {
                "name": grid.name,
                "states": dict(grid.states),
                "cells": [place for place, cell in enumerate(results.cells) if grid.name in cell.grids],
            }
            for grid in results.grids
        ],
        "fields": _fields(results.cells),
        "cells": [_cell(cell, results.cells, places) for cell in results.cells],
        "quantities": [_column(column) for column in _quantities(results)],
        "trials": [
            _trial(trial, cell, attempts.get(trial.id, ()), ends[place]) for place, (cell, trial) in enumerate(trials)
        ],
        "logs_left_out": tails.left_out,
        "curves": {**measured, "lines": [lines.get(trial.id) for _, trial in trials]},
        "tables": [_table(table, places) for table in tables],
        "figures": [
            {
                "name": drawing.name,
                "title": heading(drawing.title, drawing.name, "figure2"),
                "caption": drawing.caption,
                "svg": drawing.inline(),
                # The page draws these itself, to explore.
                "folded": drawing.name.startswith(("figure2", "curves-")),
            }
            for drawing in drawings
        ],
        # The comparison with the papers is long: it comes last.
        "figures_before": own,
    }


def headline(results: Results) -> tuple[str, str]:
    """Return the page's title, and how far the trials are."""
    names = [grid.name for grid in results.grids]
    trials = [trial for cell in results.cells for trial in cell.trials]
    done = sum(trial.state == "done" for trial in trials)
    title = f"Results: {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}" if names else "Results"
    return title, f"{done:,} of {len(trials):,} trials done."


def _fields(cells: Sequence[Cell]) -> list[str]:
    """Return the fields of configurations that differ between cells, network and methods first."""
    names = dict.fromkeys(["network", "methods", *(name for cell in cells for name in cell.config)])
    return [name for name in names if len({repr(cell.config.get(name)) for cell in cells}) > 1]


def _cell(cell: Cell, cells: Sequence[Cell], places: Mapping[str, int]) -> dict[str, Any]:
    return {
        "config": {name: text_of(name, each, {}) for name, each in cell.config.items()},
        "grids": list(cell.grids),
        "trials": [places[trial.key] for trial in cell.trials],
    }


def _quantities(results: Results) -> list[Column]:
    """Return the columns of which any trial has a value."""
    columns = [*QUALITY, AUROC, *own_columns().values(), TRAINING, EPOCH]
    trials = [trial for cell in results.cells for trial in cell.trials]
    return [column for column in columns if any(_measured(trial, column) is not None for trial in trials)]


def _measured(trial: Trial, column: Column) -> float | None:
    if column is TRAINING:
        return trial.training.value if trial.training else None
    if column is EPOCH:
        return trial.epoch.value if trial.epoch else None
    classifier, _, metric = column.quantity.partition("/")
    measurement = trial.measurements.get((0, classifier))
    return rounded(measurement.metrics.get(metric)) if measurement else None


def _trial(trial: Trial, cell: int, attempts: Iterable[Any], ends: Mapping[int, str | None]) -> dict[str, Any]:
    columns = [*QUALITY, AUROC, *own_columns().values(), TRAINING, EPOCH]
    values = {column.key: rounded(_measured(trial, column)) for column in columns}
    return {
        "key": trial.key,
        "name": trial.name,
        "seed": trial.seed,
        "state": trial.state,
        "cell": cell,
        "epochs": 0 if trial.last_epoch is None else trial.last_epoch + 1,
        "parameters": trial.parameters,
        # Of this trial's times: those for which the device was shared, and whether a timing pass measured an epoch.
        "shared": [
            column.key
            for column, clock in ((TRAINING, trial.training), (EPOCH, trial.epoch))
            if clock and not clock.exclusive
        ],
        "timed": bool(trial.epoch and trial.epoch.timing_pass),
        "values": {key: value for key, value in values.items() if value is not None},
        "attempts": [_attempt(row, ends.get(row.number)) for row in attempts],
    }


def _attempt(row: Any, end: str | None) -> dict[str, Any]:
    facts = {
        "number": row.number,
        "purpose": row.purpose,
        "outcome": row.outcome or "under way",
        "error_class": row.error_class,
        "error": (row.error_text or "").strip().split("\n", 1)[0][:400] or None,
        "started": f"{row.started:%Y-%m-%d %H:%M:%S}",
        "ended": f"{row.ended:%Y-%m-%d %H:%M:%S}" if row.ended else None,
        "host": row.host,
        "device": row.device,
        "commit": row.commit,
        "dirty": row.dirty,
        "engine": row.engine,
        "log": row.log,
        "end": end,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _ends(trial: Trial, attempts: Sequence[Any], tails: Tails) -> dict[int, str | None]:
    """Return the end of the log of a trial's newest training attempt, and of those that failed, by their numbers."""
    training = [row for row in attempts if row.purpose == "train"]
    chosen = [row for row in training if row is training[-1] or row.outcome == "failed"]
    return {row.number: tails.read(row.log, trial.key, row.host) for row in chosen}


def _column(column: Column) -> dict[str, Any]:
    return {name: getattr(column, name) for name in ("key", "title", "unit", "group", "direction", "digits", "form")}


def _table(table: Table, places: Mapping[str, int]) -> dict[str, Any]:
    """Return a table as the page's templates and script read it: its words, and the values and trials behind them."""
    shown = table_data(table)
    for group in shown["groups"]:
        group["latex"] = escape(group["title"])
    rows = [row for group in shown["groups"] for row in group["rows"]]
    for row, facts in zip(table.rows, rows, strict=True):
        trials = {sample.key for each in row.entries for sample in each.samples}
        trials |= {key for each in row.entries for key, _, _ in each.absent}
        facts["key"] = row.key
        facts["trials"] = sorted(places[key] for key in trials if key in places)
        facts["latex"] = [escape(label) for label in table.labels(row)]
        for cell, column, entry in zip(facts["cells"], table.columns, row.entries, strict=True):
            cell |= _entry(entry, column, row, places)
    comparisons, untested = _comparisons(table)
    return shown | {
        # How many of the label columns name a row; those behind them count its seeds.
        "named": len(table.stub),
        "columns": [{**_column(column), "latex": escape(column.heading)} for column in table.columns],
        # The device's star and the marks of entries, with what stands behind them.
        "notes_latex": [[mark, f"\\item[{escape(mark)}] {escape(text)}"] for mark, text in table.footnotes],
        "stub_latex": [escape(head) for head in table.label_heads],
        "selection": table.selection.sentence if table.selection else "",
        "comparisons": comparisons,
        "untested": untested,
    }


def _comparisons(table: Table) -> tuple[list[list[Any]], dict[str, list[int]]]:
    """Return the tests over images of two rows of a table, whose outcomes per image stay in the database.

    Rows (row, other row, column, p, difference, margin, seeds, images). The page's script does all other tests. Of a
    large table, pairs within a group come first, as far as there is room. Second: the columns for which there was none,
    by their places, with the rows whose outcomes are kept; a pair of these that has no test here was not tested.
    """
    pairs = list(combinations(range(len(table.rows)), 2))
    pairs.sort(key=lambda pair: table.rows[pair[0]].group != table.rows[pair[1]].group)
    results: list[list[Any]] = []
    untested: dict[str, list[int]] = {}
    for place, column in enumerate(table.columns):
        if column.form not in ("number", "minutes"):
            continue
        kept = {
            row: candidate(each.entries[place]) for row, each in enumerate(table.rows) if each.entries[place].samples
        }
        kept = {row: each for row, each in kept.items() if each.outcomes}
        for one, two in pairs:
            if one not in kept or two not in kept:
                continue
            if len(results) >= MOST_COMPARISONS:
                untested[str(place)] = sorted(kept)
                break
            comparison = compare(kept[one], kept[two])
            if comparison is not None and comparison.test == IMAGES:
                numbers = [rounded(comparison.p), rounded(comparison.difference), rounded(comparison.margin)]
                results.append([one, two, place, *numbers, comparison.n, comparison.images])
    return results, untested


def _entry(entry: Entry, column: Column, row: Row, places: Mapping[str, int]) -> dict[str, Any]:
    samples = [
        [
            places[sample.key],
            sample.epoch,
            sample.value if math.isfinite(sample.value) else None,
            sample.images,
            sample.pair,
        ]
        for sample in entry.samples
        if sample.key in places
    ]
    return {
        "state": entry.state,
        "n": entry.n,
        "planned": entry.planned,
        "samples": samples,
        "absent": [[places[key], state] for key, _, state in entry.absent if key in places],
        "latex": latex_entry(entry, column, row),
    }
