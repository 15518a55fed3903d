"""Compare our numbers with published ones, and name contradictions among the published."""

from __future__ import annotations

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.statistics import ENOUGH_SEEDS, error_rate_noise, student_quantile
from orchestrator.tables.fields import comparable
from orchestrator.tables.references import fits, printed_number
from orchestrator.tables.schema import PUBLISHED, PublishedValue, ReferenceSpec, TableSpec
from orchestrator.text import shortlist
from reports import titles
from reports.columns import Column
from reports.layouts.entries import ERROR_RATES
from reports.table import Entry, Row, Table, add_note, entries_of
from reports.text import MISSING, number, words

FOLDER = Path(__file__).resolve().parents[1] / "published"
VERDICTS = ("match", "within noise", "differs", "not comparable")
# The footnote of a time whose device was shared: it is starred, as ours are.
SHARED = "shared GPU"
_NORMAL = 1.96


class Printed(NamedTuple):
    """One printed value. `row` and `column` are the address in our table, `value` is in its units.

    `printed_row`, `printed_column` and `printed` are as the source has them; `std` is over `runs`; `footnote` is the
    source's own; `doubt` says what speaks against the value. `recipe` holds the configuration fields, as far as they
    are known, behind it, and `cited` the source in words. `line` is that of a user's file, 0 of one that ships.
    """

    source: str
    row: str
    column: str
    printed_row: str
    printed_column: str
    printed: str
    value: float
    std: float | None = None
    runs: int = 1
    footnote: str = ""
    doubt: str = ""
    recipe: Mapping[str, Any] = {}
    cited: str = ""
    line: int = 0

    @property
    def step(self) -> float:
        """Return the unit of the last printed digit; a minute where a time has no seconds."""
        if _is_minutes(self.column):
            return 1.0 if "/" in self.printed else 60.0
        decimals = re.match(r"[^\d]*\d*\.(\d+)", self.printed)
        return 10.0 ** -len(decimals[1]) if decimals else 1.0


def _is_minutes(column: str) -> bool:
    return column.rpartition("/")[2] == "train_time"


@cache
def ledger() -> tuple[Printed, ...]:
    """Return every printed value of every source."""
    return tuple(
        Printed(
            source,
            line["row"],
            line["column"],
            line["printed_row"],
            line["printed_column"],
            line["printed"],
            float(line["value"]),
            float(line["std"]) if line["std"] else None,
            int(line["runs"]),
            line["footnote"],
            line["doubt"],
            settings()[source],
        )
        for source in PUBLISHED
        for line in _read(source)
    )


def references(table: TableSpec) -> tuple[Printed, ...]:
    """Return the published values that a declared table names: those that ship, and those of users' files."""
    listed: list[Printed] = []
    for one in table.reference:
        if one.values is None:
            listed += [
                printed._replace(recipe={**printed.recipe, **one.recipe}, cited=one.source)
                for printed in ledger()
                if printed.source == one.file
            ]
        listed += [_printed(one, value) for value in one.values or ()]
    return tuple(listed)


def _printed(one: ReferenceSpec, value: PublishedValue) -> Printed:
    number = value.value
    if number is None:
        number = printed_number(value.printed) or 0.0
        number *= 60 if _is_minutes(value.column) and "/" not in value.printed else 1
    return Printed(
        one.file,
        value.row,
        value.column,
        value.printed_row,
        value.printed_column,
        value.printed,
        number,
        value.std,
        value.runs,
        value.footnote,
        value.doubt,
        {**one.recipe, **value.recipe},
        value.source or one.source,
        value.line,
    )


@cache
def settings() -> dict[str, dict[str, Any]]:
    """Return the configuration fields, as far as they are known, behind each source's values."""
    fields: dict[str, dict[str, Any]] = {source: {} for source in PUBLISHED}
    for line in _read("settings"):
        try:
            value = json.loads(line["value"])
        except ValueError:
            value = line["value"]
        fields[line["source"]][line["field"]] = value
    return fields


def _read(name: str) -> Iterator[dict[str, str]]:
    with (FOLDER / f"{name}.csv").open(encoding="utf-8", newline="") as lines:
        yield from csv.DictReader(lines)


def contradiction_table() -> Table:
    """Build the table of the contradictions within the published values, as `contradictions.csv` lists them."""
    columns = (Column("here", "Here", form="text"), Column("there", "There", form="text"))
    rows = tuple(
        Row(
            "",
            f"contradiction{place}",
            (line["what"],),
            (Entry("text", text=line["here"]), Entry("text", text=line["there"])),
        )
        for place, line in enumerate(_read("contradictions"), 1)
    )
    caption = "What the sources print that cannot hold together. Values involved are not compared with ours."
    return Table("published-doubts", "published-doubts", "Contradictions in print", caption, ("What",), columns, rows)


def compare(table: Table) -> Table | None:
    """Build a table beside the published one: printed value, ours, difference and verdict; None if there is none.

    `match`: ours prints the same. `within noise` and `differs`: by the spread over seeds, by the published spread,
    or for error rates by the binomial noise of the test images. `not comparable`: with the reason as a footnote.
    """
    if not table.reference:
        return None
    notes: list[tuple[str, str]] = []
    rows, verdicts, placed = [], Counter[str](), set[tuple[Any, ...]]()
    cited = {each.cited for each in table.reference if each.cited}
    for row, column, entry in entries_of(table):
        fitting = [each for each in table.reference if each.column == column.key and fits(each.row, row.key)]
        for place, printed in enumerate(fitting, 1):
            placed.add(printed[:3])
            verdict, reason = judge(printed, entry, column, table, row.deviation)
            verdicts[verdict] += 1
            footnotes = [printed.footnote if printed.footnote != SHARED else ""]
            footnotes += [f"in doubt: {printed.doubt}" if printed.doubt not in reason else ""]
            footnotes += [printed.cited if len(cited) > 1 else ""]
            marks = tuple(add_note(notes, text) for text in footnotes if text)
            mark = (add_note(notes, reason),) if reason else ()
            rounded = (add_note(notes, entry.mixed),) if entry.mixed else ()
            gap = None if entry.value is None else entry.value - printed.value
            difference = MISSING if gap is None else _signed(gap, column)
            measured = replace(entry, text=words(entry, column, row).plain, bold=False, notes=rounded)
            rows.append(
                Row(
                    row.group,
                    f"{row.key}/{column.key}" + (f"-{place}" if place > 1 else ""),
                    (row.labels[-1], column.heading),
                    (
                        Entry("text", printed.value, text=_as_printed(printed), notes=marks),
                        measured,
                        Entry("text", gap, text=difference),
                        Entry("text", text=verdict, notes=mark),
                    ),
                )
            )
    if not rows:
        return None
    if any(each.star or each.text.endswith("*") for row in rows for each in row.entries):
        notes.insert(0, ("*", "the device was shared while this was timed"))
    columns = (
        Column("published", "Published"),
        Column("ours", "Ours"),
        Column("difference", "Difference"),
        Column("verdict", "Verdict", form="text"),
    )
    counted = ", ".join(f"{verdicts[name]} {name}" for name in VERDICTS if verdicts[name]) or "no number yet"
    caption = (
        f"{counted}. Match: ours prints the same. Within noise, differs: by the 95 % interval for a new run from the "
        "spread over seeds or, below three seeds, the published spread or the binomial noise of the test images. "
        f"{titles.setting(_said(table.fixed))}. "
        "Ours: mean ± sample standard deviation over seeds, where there are several. "
        f"{table.selection.sentence if table.selection else ''}"
    )
    caption = " ".join(filter(None, [caption.strip(), *_sources(table, cited), _left_over(table, placed)]))
    title = f"{table.title}: against the published values"
    return Table(
        f"{table.name}-vs-paper",
        f"{table.layout}-vs-paper",
        title,
        caption,
        (table.stub[-1], "Quantity"),
        columns,
        tuple(rows),
        tuple(notes),
        table.selection,
        table.fixed,
        table.group_head,
    )


def _said(fixed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fixed fields of a table without those that say nothing, such as the heads, or a pair that is none."""
    silent = ("peer", "stages", "methods")
    return {
        name: value for name, value in fixed.items() if name not in ("heads", "seed") and (value or name not in silent)
    }


def _sources(table: Table, cited: Collection[str]) -> list[str]:
    """Return a caption's sentences on where the published values come from, and on what is unknown of their runs."""
    sentences = [f"Published: {next(iter(cited))}."] if len(cited) == 1 else []
    if any(not each.recipe for each in table.reference):
        sentences.append("Where no recipe is given, the settings are not compared.")
    return sentences


def _left_over(table: Table, placed: Collection[tuple[Any, ...]]) -> str:
    """Return a caption's sentence on the values of users' files that no number of the table has the address of."""
    over = [each for each in table.reference if each.line and each[:3] not in placed]
    if not over:
        return ""
    lines = [f"line {each.line} ({each.row}/{each.column})" for each in over]
    return f"Not in this table: {over[0].source}, {shortlist(lines, 4)}."


def _signed(gap: float, column: Column) -> str:
    if column.form != "minutes":
        return number(gap, replace(column, form="signed"))
    return ("+" if gap > 0 else "\u2212") + number(abs(gap), column)


def _as_printed(printed: Printed) -> str:
    return printed.printed + ("*" if printed.footnote == SHARED else "")


def judge(printed: Printed, entry: Entry, column: Column, table: Table, deviation: str = "") -> tuple[str, str]:
    """Return the verdict on one number and, where it is `not comparable`, why."""
    if entry.value is None:
        return MISSING, ""
    reason = _incomparable(printed, entry, column, table, deviation)
    if reason:
        return "not comparable", reason
    gap = entry.value - printed.value
    if abs(round(entry.value / printed.step) * printed.step - printed.value) < printed.step / 2:
        return "match", ""
    noise = _noise(printed, entry, column)
    if noise is None:
        return "not comparable", f"the noise of {column.title} is unknown with fewer than {ENOUGH_SEEDS} seeds"
    return ("within noise" if abs(gap) <= noise else "differs"), ""


def _incomparable(printed: Printed, entry: Entry, column: Column, table: Table, deviation: str) -> str:
    differing = []
    own = {**table.fixed, **(entry.config or {})}
    own |= {"selection": table.selection.rule} if table.selection else {}
    for name, published in printed.recipe.items():
        actual = own.get(name, published)
        if comparable(actual) != comparable(published):
            differing.append(
                f"{_setting(name, actual)} (published: {_DATASETS.get(published) or _setting(name, published)})"
            )
    if differing:
        return "another setting: " + "; ".join(differing)
    if deviation:
        return f"another configuration: {deviation}"
    if printed.doubt:
        return f"the published value is in doubt: {printed.doubt}"
    if column.quantity in ("seconds", "epoch_seconds"):
        if entry.star or printed.footnote:
            return "the time is not exclusive" + (f" (published: {printed.footnote})" if printed.footnote else "")
        return "the time depends on the device, which is another"
    return "" if math.isfinite(entry.value or 0.0) else "not a finite number"


# The database may have none of these.
_DATASETS = {"cifar100": "CIFAR-100", "imagenet": "ImageNet"}


def _setting(name: str, given: Any) -> str:
    return titles.field(name, given) if name != "selection" else f"selection {given}"


def _noise(printed: Printed, entry: Entry, column: Column) -> float | None:
    """Return how far two equally good runs may be apart at the 5 % level; None without a basis."""
    printed_spread = printed.std if printed.std is not None and printed.runs >= ENOUGH_SEEDS else None
    spread = entry.spread if entry.n >= ENOUGH_SEEDS else None
    if spread is not None and printed_spread is not None:
        one, two = spread**2 / entry.n, printed_spread**2 / printed.runs
        if one + two == 0:
            return 0.0
        freedom = (one + two) ** 2 / (one**2 / (entry.n - 1) + two**2 / (printed.runs - 1))
        return student_quantile(max(1, math.floor(freedom))) * math.sqrt(one + two)
    if spread is not None:
        return student_quantile(entry.n - 1) * spread * math.sqrt(1 / entry.n + 1)
    if printed_spread is not None:
        return student_quantile(printed.runs - 1) * printed_spread * math.sqrt(1 / printed.runs + 1 / entry.n)
    images = [each.images for each in entry.samples if each.images]
    if column.quantity.rpartition("/")[2] in ERROR_RATES and images:
        noise = math.hypot(
            error_rate_noise(entry.value or 0.0, min(images)), error_rate_noise(printed.value, min(images))
        )
        return _NORMAL * noise
    return None
