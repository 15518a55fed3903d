"""Find what is bold in the rows of a table, and word how that was decided."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

from orchestrator.statistics import ENOUGH_SEEDS, Candidate, Comparison, best_set
from reports.columns import Column
from reports.layouts.entries import candidate
from reports.table import Entry, Row, add_note

DESPITE = "may be the best, though a row with a better mean cannot: the numbers of this one scatter more"


@dataclass
class Bold:
    """Reasons of a table's bold numbers: rule, comparisons with the best, and corrections, `pair` for two rows.

    `within` is what competes, a column's group or a row.
    """

    rule: str
    within: str
    comparisons: list[Comparison] = field(default_factory=list)
    corrections: set[str] = field(default_factory=set)

    @property
    def sentence(self) -> str:
        """Return the caption's sentence, empty where nothing was compared."""
        place = "group" if self.within == "column" else "row"
        if not self.corrections:
            return ""
        if self.rule == "best":
            return f"Bold: the best of its {place}, without a test."
        sentences = {
            "hsu": "with 95 % confidence the best is among the bold ones (Hsu: one-sided, 5 % shared among the "
            "comparisons of a row)",
            "holm": "all statements about pairs hold together with 95 % confidence (Holm)",
            "none": "two-sided, 5 % level, each against the best mean, uncorrected",
            "pair": "two rows: two-sided, 5 % level",
        }
        corrected = "; ".join(sentences[name] for name in sentences if name in self.corrections)
        return f"Bold: not ruled out as the best of its {place} by {self._tested(long=True)}; {corrected}."

    @property
    def short(self) -> str:
        """Return the sentence in a few words."""
        if not self.corrections:
            return ""
        if self.rule == "best":
            return "bold: best"
        names = {"hsu": "Hsu", "holm": "Holm", "none": "uncorrected", "pair": ""}
        parts = [self._tested(long=False), *(names[name] for name in names if name in self.corrections), "5 %"]
        return f"bold: may be the best ({', '.join(filter(None, parts))})"

    def _tested(self, long: bool) -> str:
        """Return the tests that were used, with what they counted."""
        seeds = _span({each.n for each in self.comparisons if each.test == "paired"})
        images = {test: _span({each.images or 0 for each in self.comparisons if each.test == test}) for test in _SHORT}
        tests = dict.fromkeys(each.test for each in self.comparisons)
        if not long:
            named = " or ".join(sorted({each.over_images for each in self.comparisons if each.test == "images"}))
            return " or ".join(_SHORT[test].format(images[test], named) for test in _SHORT if test in tests)
        flips_signs = any(comparison.test == "images" and comparison.n > 1 for comparison in self.comparisons)
        two = "; with two, exact for exchangeable rows" if flips_signs else ""
        means = {
            "paired": f"a t test paired over {seeds} seeds",
            "images": f"an exact test paired over {images['images']} test images (fewer than {ENOUGH_SEEDS} "
            f"seeds{two})",
            "unpaired": f"the binomial noise of {images['unpaired']} test images, unpaired (fewer than {ENOUGH_SEEDS} "
            "seeds, outcomes per image not kept)",
        }
        return " or ".join(means[test] for test in means if test in tests)


_SHORT = {"paired": "paired t", "images": "{1}, {0} images", "unpaired": "binomial, {} images"}


def _span(counts: set[int]) -> str:
    return f"{min(counts):,}" if len(counts) == 1 else f"{min(counts):,} to {max(counts):,}" if counts else ""


def embolden(
    rows: Sequence[Row],
    columns: Sequence[Column],
    notes: list[tuple[str, str]],
    rule: str = "noise",
    within: str = "column",
    correction: str = "hsu",
) -> tuple[list[Row], Bold]:
    """Return the rows with their best entries in bold, and how that was decided.

    By rule `noise` these are all that are not ruled out as the best of their group and column, by rule `best` what
    prints the best mean; `within` row, they compete with the entries of one metric in their row. A footnote, added to
    `notes`, explains a bold number where a better one is not bold.
    """
    bold = Bold(rule, within)
    if rule == "none":
        return list(rows), bold
    marked = [list(row.entries) for row in rows]
    for places in _competitions(rows, columns, within):
        column = columns[places[0][1]]
        able = [(row, place) for row, place in places if _competes(marked[row][place])]
        candidates = [candidate(marked[row][place]) for row, place in able]
        lower = column.direction == "lower"
        best = best_set(candidates, lower, column.digits, correction) if rule == "noise" else None
        winners: Collection[int] = best.members if best else _best(candidates, lower, column)
        for winner in sorted(winners):
            row, place = able[winner]
            entry = replace(marked[row][place], bold=True)
            if best and winner in best.despite:
                entry = replace(entry, notes=(*entry.notes, add_note(notes, DESPITE)))
            marked[row][place] = entry
        if winners:
            bold.comparisons += best.comparisons if best else ()
            bold.corrections.add("pair" if best and len(candidates) == 2 else best.correction if best else "none")
    return [replace(row, entries=tuple(entries)) for row, entries in zip(rows, marked, strict=True)], bold


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


def _competes(entry: Entry) -> bool:
    return entry.value is not None and math.isfinite(entry.value) and not entry.star
