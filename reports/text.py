"""Put an entry into words: numbers rounded, spread, stars, seeds; the same in every format."""

from __future__ import annotations

import math
from typing import NamedTuple

from reports.columns import Column
from reports.table import Entry, Row

MISSING = "\u2013"
_WORDS = {"missing": MISSING, "running": "running", "failed": "failed", "diverged": "diverged"}


class Words(NamedTuple):
    """The parts of a printed entry: the number, its spread, whether a time is starred, and its seeds."""

    number: str
    spread: str = ""
    star: bool = False
    seeds: str = ""

    @property
    def plain(self) -> str:
        """Return all of it in one string."""
        spread = f" ± {self.spread}" if self.spread else ""
        return f"{self.number}{spread}{'*' if self.star else ''}{f' {self.seeds}' if self.seeds else ''}"


def words(entry: Entry, column: Column, row: Row) -> Words:
    """Return the text of an entry, by its column; seeds only where they are not those of its row."""
    if entry.text:
        return Words(entry.text)
    if entry.value is None:
        return Words(_WORDS[entry.state])
    return Words(number(entry.value, column), _spread(entry, column), entry.star, _seeds(entry, row))


def _seeds(entry: Entry, row: Row) -> str:
    alike = (entry.n, entry.planned) == (row.n, row.planned) or not entry.planned
    # A timing pass measures as many seeds as it was asked for, which need not be those of the row.
    timed = entry.quantity == "epoch_seconds" and entry.n == entry.planned
    return "" if alike or timed else f"({entry.n}/{entry.planned})"


def _spread(entry: Entry, column: Column) -> str:
    if entry.spread is None:
        return ""
    if column.form == "minutes" and round(entry.spread) < 60:
        return f"{round(entry.spread)} s"
    return number(entry.spread, column).lstrip("+")


def number(value: float, column: Column) -> str:
    """Return a value in its column's form."""
    if not math.isfinite(value):
        return "diverged" if math.isnan(value) else "∞"
    if column.form == "minutes":
        minutes, seconds = divmod(round(value), 60)
        return f"{minutes} / {seconds:02d}"
    if column.form == "signed":
        rounded = f"{value:+.{column.digits}f}"
        return rounded[1:] if not float(rounded) else rounded.replace("-", "\u2212")
    if column.form == "p" and value < 10.0**-column.digits:
        return f"<{10.0**-column.digits:.{column.digits}f}"
    return f"{value:.{column.digits}f}"
