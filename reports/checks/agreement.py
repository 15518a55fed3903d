"""Compare the numbers of a manuscript with one another: one quantity of the same trials has one value."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from reports.checks.manuscript import Written

_COMPARISON = "-vs-paper"


class Problem(NamedTuple):
    """Say what is wrong with a number or a table of a LaTeX file; or, as a note, what could not be judged."""

    where: str
    kind: str
    address: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.kind}: {self.address}: {self.message}"


def digits(text: str) -> list[str]:
    """Return the numbers that a text prints, without marks of footnotes."""
    return re.findall(r"\d+(?:\.\d+)?|∞", re.sub(r"\\tnote\{[^}]*\}", "", text))


def contradictory(places: Iterable[Written]) -> Iterator[Problem]:
    """Yield places with different values of one quantity of the same trials, and tables that mix selection rules."""
    first: dict[tuple[object, ...], Written] = {}
    rules: dict[str, Written] = {}
    for place in places:
        shown = digits(place.text)
        if not shown or not place.trials or place.quantity == "loss" or _COMPARISON in place.address:
            continue
        table = place.address.partition(":")[0]
        other = rules.setdefault(table, place)
        if other.rule != place.rule:
            what = f"selects by {place.rule}, {other.address} by {other.rule}; one table must not mix rules"
            yield Problem(place.where, "contradictory", place.address, what)
        if place.quantity == "seconds" or table.startswith("interactions"):
            continue
        other = first.setdefault((place.trials, place.quantity.replace("accuracy", "top1_error"), place.rule), place)
        gap = abs(_as_error(place) - _as_error(other))
        if gap > (_step(place) + _step(other)) / 2 + 1e-9:
            what = f"prints {shown[0]}, but {other.address} prints {digits(other.text)[0]} for the same trials"
            yield Problem(place.where, "contradictory", place.address, what)


def _as_error(place: Written) -> float:
    shown = float(digits(place.text)[0].replace("∞", "inf"))
    return 100 - shown if place.quantity.endswith("accuracy") else shown


def _step(place: Written) -> float:
    return 10.0 ** -len(digits(place.text)[0].partition(".")[2])
