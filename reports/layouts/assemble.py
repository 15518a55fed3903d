"""Assemble tables: look up the numbers, find what is bold, write the caption's rules."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from reports.columns import Column
from reports.layouts.cells import Slice
from reports.results import Cell, Selection, Trial
from reports.significance import ENOUGH_SEEDS, Candidate, best_set, mean_of, spread_of
from reports.table import Entry, Row, Sample, Table, add_note, mark_mixed

ERROR_RATES = ("top1_error", "top5_error", "accuracy")


@dataclass(frozen=True)
class Line:
    """A row before its numbers are looked up: the cell behind it, or another cell for some of its columns.

    `deviation` says where its configuration is not what the labels promise; it becomes a footnote, as `note` does.
    """

    group: str
    key: str
    labels: tuple[str, ...]
    cell: Cell | None
    others: Mapping[str, tuple[Cell | None, str]] = field(default_factory=dict)
    note: str = ""
    deviation: str = ""


TIME_NOTE = "another process shared the device (or may have) in some of the epochs that this time counts"


def sample(trial: Trial, quantity: str) -> Sample | None:
    """One trial's value of a quantity, None where it has none."""
    if quantity in ("seconds", "epoch_seconds"):
        clock = trial.training if quantity == "seconds" else trial.epoch
        if clock is None:
            return None
        measured = trial.measurements.get((0, "main"))
        epoch = measured.epoch + 1 if measured and quantity == "seconds" else None
        return Sample(trial.key, trial.name, trial.seed, epoch, clock.value, None, clock.exclusive)
    place, metric = quantity.split("/")
    network, _, classifier = place.rpartition(":")
    measured = trial.measurements.get((int(network or 0), classifier))
    if measured is None:
        return None
    value = measured.metrics["top1_error" if metric == "accuracy" else metric]
    if value is None:
        return None
    images = measured.images if metric in ERROR_RATES else None
    value = 100 - value if metric == "accuracy" else value
    epoch = measured.epoch + 1
    return Sample(trial.key, trial.name, trial.seed, epoch, value, images, compiled=trial.compiled)


def entry(cell: Cell | None, quantity: str) -> Entry:
    """Mean and sample standard deviation over the seeds of a cell that are there."""
    if cell is None:
        return Entry(quantity=quantity)
    trials = cell.trials
    if quantity == "epoch_seconds":
        # A timing pass measures one seed of a cell; what the others took in company is not averaged with it.
        trials = tuple(trial for trial in trials if trial.epoch and trial.epoch.timing_pass) or trials
    planned = len(trials)
    samples = tuple(found for trial in trials if (found := sample(trial, quantity)) is not None)
    states = Counter(trial.state for trial in trials)
    diverged = states["diverged"] + sum(math.isnan(each.value) for each in samples)
    samples = tuple(each for each in samples if not math.isnan(each.value))
    there = {each.key for each in samples}
    absent = tuple((trial.key, trial.name, trial.state) for trial in trials if trial.key not in there)
    if not samples:
        state = next((name for name in ("running", "diverged", "failed") if states[name]), "missing")
        state = "diverged" if diverged and state == "missing" else state
        return Entry(state, planned=planned, diverged=diverged, absent=absent, quantity=quantity)
    values = [each.value for each in samples]
    finite = all(map(math.isfinite, values))
    return Entry(
        "done" if len(samples) == planned else "partial",
        mean_of(values) if finite else math.inf,
        spread_of(values) if finite else None,
        len(samples),
        planned,
        diverged,
        star=not all(each.exclusive for each in samples),
        samples=samples,
        absent=absent,
        quantity=quantity,
    )


def assemble(
    part: Slice,
    layout: str,
    title: str,
    columns: Sequence[Column],
    lines: Sequence[Line],
    *,
    selection: Selection,
    stub: Sequence[str] = ("Method",),
    group_head: str = "Network",
    about: Sequence[str] = (),
    footnotes: Sequence[tuple[str, str]] = (),
) -> Table:
    """Look up every number of a table, find what is bold in each group, and write the caption's rules."""
    notes = list(footnotes)
    rows = []
    for line in lines:
        said = "; ".join(filter(None, (line.note, line.deviation)))
        mark = add_note(notes, said) if said else ""
        entries = []
        for column in columns:
            cell, quantity = line.others.get(column.key, (line.cell, column.quantity))
            entries.append(entry(cell, quantity))
        rows.append(Row(line.group, line.key, line.labels, tuple(entries), mark, line.deviation))
    rows, tests = _embolden(mark_mixed(rows, notes), columns)
    rows, seeds = count_seeds(rows)
    if any(each.star for row in rows for each in row.entries):
        notes.insert(0, ("*", TIME_NOTE + "; never bold"))
    caption = [part.about, *about, seeds, selection.sentence, _unselected(rows, selection), _bold_sentence(rows, tests)]
    return Table(
        part.name,
        layout,
        title,
        " ".join(filter(None, caption)),
        tuple(stub),
        tuple(columns),
        tuple(rows),
        tuple(notes),
        selection,
        part.fixed,
        group_head,
    )


def _unselected(rows: Sequence[Row], selection: Selection) -> str:
    """Return a caption's sentence on done trials that lack the split or the epochs that the rule asks for."""
    entries = [each for row in rows for each in row.entries if each.quantity != "epoch_seconds"]
    # A trial may lack a second network's number, say, and have others: that is not the rule's doing.
    without = {key for each in entries for key, _, state in each.absent if state == "done"}
    without -= {found.key for each in entries for found in each.samples}
    if selection.rule == "best_val":
        lacking = "no validation split (`validation` in the grid file)"
    elif selection.last > 1:
        lacking = f"fewer than {selection.last:,} epochs"
    else:
        return ""
    if not without:
        return ""
    trials = "One finished trial has" if len(without) == 1 else f"{len(without):,} finished trials have"
    return f"{trials} {lacking} and so no number under this rule."


def _embolden(rows: Sequence[Row], columns: Sequence[Column]) -> tuple[list[Row], set[str]]:
    """Return the rows with bold for entries that may equal the best of their group and column, and the tests used."""
    marked = [list(row.entries) for row in rows]
    tests: set[str] = set()
    groups: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(row.group, []).append(index)
    for place, column in enumerate(columns):
        if column.direction is None:
            continue
        for members in groups.values():
            able = [index for index in members if _competes(marked[index][place])]
            candidates = [_candidate(marked[index][place]) for index in able]
            for winner in best_set(candidates, column.direction == "lower", column.digits):
                index = able[winner]
                marked[index][place] = replace(marked[index][place], bold=True)
                tests.add("paired" if marked[index][place].n >= ENOUGH_SEEDS else "binomial")
    return [replace(row, entries=tuple(entries)) for row, entries in zip(rows, marked, strict=True)], tests


def _competes(each: Entry) -> bool:
    return each.value is not None and math.isfinite(each.value) and not each.star


def _candidate(each: Entry) -> Candidate:
    images = [found.images for found in each.samples if found.images]
    return Candidate({found.seed: found.value for found in each.samples}, min(images) if images else None)


def count_seeds(rows: Sequence[Row]) -> tuple[list[Row], str]:
    """Return the rows with their number of seeds, in the entries if they differ, and the caption's sentence on it."""
    counted = []
    for row in rows:
        found = [(each.n, each.planned, each.diverged) for each in row.entries if each.planned]
        n, planned, diverged = next((each for each in found if each[0]), found[0] if found else (0, 0, 0))
        said = f"{n}/{planned}" + (f", {diverged} diverged" if diverged and planned > 1 else "") if planned else ""
        counted.append(replace(row, n=n, planned=planned, seeds=said))
    plans = {row.planned for row in counted if row.planned}
    if not plans:
        return [replace(row, seeds="") for row in counted], ""
    sentence = "One seed." if plans == {1} else "Mean ± sample standard deviation over seeds."
    complete = all(row.n == row.planned for row in counted)
    if len(plans) == 1 and (complete or plans == {1}):
        counted = [replace(row, seeds="") for row in counted]
        sentence = sentence.replace("over seeds", f"over {min(plans)} seeds")
    else:
        sentence += " Seeds k/n: k of n are there."
    return counted, sentence


def _bold_sentence(rows: Sequence[Row], tests: set[str]) -> str:
    if not tests:
        return ""
    images = {found.images for row in rows for each in row.entries for found in each.samples if found.images}
    size = f"{min(images):,}" if len(images) == 1 else "the"
    means = {
        "paired": "a paired t test over the shared seeds",
        "binomial": f"the binomial noise of {size} test images (fewer than {ENOUGH_SEEDS} seeds: error rates only)",
    }
    tested = " or ".join(means[test] for test in ("paired", "binomial") if test in tests)
    return f"Bold: cannot be told from the best of its group by {tested}; two-sided, 5 % level, each pair on its own."
