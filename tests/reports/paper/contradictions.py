"""Find printed values that contradict each other, or the run that they describe: `contradictions.csv` holds them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, pairwise
from typing import NamedTuple

from reports.paper.published import Printed, settings


class Contradiction(NamedTuple):
    """Two printed values, or a value and what is known of the run, that cannot both hold."""

    what: str
    here: str
    elsewhere: str


def contradictions(values: Iterable[Printed]) -> list[Contradiction]:
    """Return every pair of printed values of one thing that differ, and every value that its run rules out."""
    values = list(values)
    return [*_different_values(values), *_stars(values), *_reversed_columns(values), *_too_long(values)]


def _identity(printed: Printed) -> tuple[str, ...] | None:
    """Return the same tuple for every table that prints a value: network, methods, blocks, stages, quantity."""
    network, _, methods = printed.row.partition("/")
    blocks, stages, column = "all", "", printed.column
    if printed.source == "table2" and column == "main":
        column = "top1"
    elif printed.source == "table3":
        blocks = methods.removeprefix("blocks")
        blocks, methods = "all" if blocks == "1-2-3" else blocks, "pskd+byot+dmfl"
    elif printed.source == "table4":
        stages = methods.removeprefix("stages")
        blocks, methods = str(int(stages) - 1), "pskd+byot+dmfl"
        stages = "" if stages == "4" else stages
    setting = {name: value for name, value in settings().get(printed.source, {}).items() if name != "selection"}
    return network, "+".join(sorted(methods.split("+"))), blocks, stages, column, json.dumps(setting, sort_keys=True)


def _as_error(printed: Printed) -> float:
    return 100 - printed.value if printed.source == "table2" else printed.value


def _where(printed: Printed) -> str:
    return f"{_source(printed.source)}: {printed.printed_row}, {printed.printed_column}"


def _source(name: str) -> str:
    return re.sub(r"^table(\d)$", r"Table \1", name).replace("_", " ")


def _same(values: Sequence[Printed]) -> Iterator[tuple[Printed, Printed]]:
    groups: dict[tuple[str, ...] | None, list[Printed]] = {}
    for printed in values:
        groups.setdefault(_identity(printed), []).append(printed)
    for members in groups.values():
        for one, two in combinations(members, 2):
            if one.source != two.source:
                yield one, two


def _different_values(values: Sequence[Printed]) -> Iterator[Contradiction]:
    for one, two in _same(values):
        # Each was rounded by half a step, a minute without seconds perhaps cut off.
        slack = (one.step + two.step) / 2 + 1e-9
        slack = max(one.step, two.step) if one.column == "train_time" else slack
        if abs(_as_error(one) - _as_error(two)) > slack:
            yield Contradiction("the same thing, two values", *(f"{_where(x)}: {_error_words(x)}" for x in (one, two)))


def _error_words(printed: Printed) -> str:
    return printed.printed + (f" (error {_as_error(printed):.2f})" if printed.source == "table2" else "")


def _stars(values: Sequence[Printed]) -> Iterator[Contradiction]:
    for one, two in _same(values):
        if one.column == "train_time" and (one.footnote != two.footnote):
            sides = [
                f"{_where(x)}: {x.printed}, {'starred: ' + x.footnote if x.footnote else 'not starred'}"
                for x in (one, two)
            ]
            yield Contradiction("one run, starred once", *sides)


def _reversed_columns(values: Sequence[Printed]) -> Iterator[Contradiction]:
    """Of a trained network the deeper classifier is the better one: rows that fall with depth."""
    rows: dict[tuple[str, str], list[tuple[int, Printed]]] = {}
    for printed in values:
        depth = re.fullmatch(r"(\d+)/(\d+)", printed.printed_column)
        if depth and depth[1] != depth[2] and "byot" in printed.row:
            rows.setdefault((printed.source, printed.row), []).append((int(depth[1]), printed))
    for members in rows.values():
        deepest_first = [each for _, each in sorted(members, key=lambda member: -member[0])]
        if len(members) > 1 and all(one.value < two.value for one, two in pairwise(deepest_first)):
            values_by_depth = " < ".join(f"{each.printed_column}: {each.printed}" for each in deepest_first)
            yield Contradiction(
                "column names reversed",
                f"{_source(deepest_first[0].source)}: {deepest_first[0].printed_row}: {values_by_depth}",
                "deeper classifiers are better, and the released code prints the shallowest first",
            )


def _too_long(values: Sequence[Printed]) -> Iterator[Contradiction]:
    per_epoch = {(each.source, each.row): each for each in values if each.column == "epoch_time"}
    for printed in values:
        epoch = per_epoch.get((printed.source, printed.row))
        epochs = settings().get(printed.source, {}).get("epochs")
        if printed.column == "train_time" and epoch and epochs and printed.value > epochs * epoch.value:
            yield Contradiction(
                "longer than the run",
                f"{_source(printed.source)}: {printed.printed_row}: {printed.printed}",
                f"{printed.value / epoch.value:,.0f} epochs of {epoch.printed} s, of {epochs}",
            )
