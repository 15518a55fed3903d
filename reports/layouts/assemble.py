"""Find what is bold in the rows of a table, and word the rules of its caption."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from orchestrator.statistics import ENOUGH_SEEDS, Candidate, best_set
from reports.columns import Column
from reports.layouts.entries import candidate
from reports.results import Selection
from reports.table import Entry, Row

TIME_NOTE = "another process shared the device (or may have) in some of the epochs that this time counts"


def unselected(rows: Sequence[Row], selection: Selection) -> str:
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


def embolden(
    rows: Sequence[Row], columns: Sequence[Column], rule: str = "noise", within: str = "column"
) -> tuple[list[Row], set[str]]:
    """Return the rows with their best entries in bold, and the tests used.

    By rule `noise` these are all that may equal the best of their group and column, by rule `best` what prints the best
    mean; `within` row, they compete with the entries of one metric in their row.
    """
    if rule == "none":
        return list(rows), set()
    marked = [list(row.entries) for row in rows]
    tests: set[str] = set()
    for places in _competitions(rows, columns, within):
        column = columns[places[0][1]]
        able = [(row, place) for row, place in places if _competes(marked[row][place])]
        candidates = [candidate(marked[row][place]) for row, place in able]
        lower = column.direction == "lower"
        winners = (
            best_set(candidates, lower, column.digits, "none").members
            if rule == "noise"
            else _best(candidates, lower, column)
        )
        for winner in winners:
            row, place = able[winner]
            marked[row][place] = replace(marked[row][place], bold=True)
            tests.add("none" if rule == "best" else "paired" if marked[row][place].n >= ENOUGH_SEEDS else "binomial")
    return [replace(row, entries=tuple(entries)) for row, entries in zip(rows, marked, strict=True)], tests


def _competitions(rows: Sequence[Row], columns: Sequence[Column], within: str) -> Iterator[list[tuple[int, int]]]:
    """Yield the places (row, column) that compete with one another."""
    together: dict[tuple[object, ...], list[tuple[int, int]]] = {}
    for place, column in enumerate(columns):
        for index, row in enumerate(rows):
            if column.direction is not None:
                key = (index, column.quantity) if within == "row" else (place, row.group)
                together.setdefault(key, []).append((index, place))
    yield from together.values()


def _best(candidates: Sequence[Candidate], lower: bool, column: Column) -> set[int]:
    """Return the candidates that print the best mean, of two or more."""
    if len(candidates) < 2:
        return set()
    means = [candidate.mean for candidate in candidates]
    best = f"{min(means) if lower else max(means):.{column.digits}f}"
    return {place for place, mean in enumerate(means) if f"{mean:.{column.digits}f}" == best}


def _competes(each: Entry) -> bool:
    return each.value is not None and math.isfinite(each.value) and not each.star


SHOWN = {
    "mean_std": "Mean ± sample standard deviation over seeds.",
    "mean_ci95": "Mean ± half the 95 % confidence interval over seeds.",
    "median_iqr": "Median ± interquartile range over seeds.",
    "each": "The value of every seed, in the order of seeds.",
}


def count_seeds(rows: Sequence[Row], show: str = "mean_std") -> tuple[list[Row], str]:
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
    sentence = "One seed." if plans == {1} else SHOWN[show]
    complete = all(row.n == row.planned for row in counted)
    if len(plans) == 1 and (complete or plans == {1}):
        counted = [replace(row, seeds="") for row in counted]
        sentence = sentence.replace("over seeds", f"over {min(plans)} seeds")
    else:
        sentence += " Seeds k/n: k of n are there."
    return counted, sentence


def bold_sentence(rows: Sequence[Row], tests: set[str], within: str = "column") -> str:
    """Return a caption's sentence on what is bold, by the tests that were used."""
    if not tests:
        return ""
    place = "group" if within == "column" else "row"
    if tests == {"none"}:
        return f"Bold: the best of its {place}, without a test."
    images = {found.images for row in rows for each in row.entries for found in each.samples if found.images}
    size = f"{min(images):,}" if len(images) == 1 else "the"
    means = {
        "paired": "a paired t test over the shared seeds",
        "binomial": f"the binomial noise of {size} test images (fewer than {ENOUGH_SEEDS} seeds: error rates only)",
    }
    tested = " or ".join(means[test] for test in ("paired", "binomial") if test in tests)
    return f"Bold: cannot be told from the best of its {place} by {tested}; two-sided, 5 % level, each pair on its own."
