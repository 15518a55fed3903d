"""Whether a LaTeX file still says what the database does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from reports import ReportError
from reports.columns import Column
from reports.entries import Entry, Row, Table
from reports.latex import KEY_DIGITS, latex_entry
from reports.tracing import entries_of
from reports.writing import gather

if TYPE_CHECKING:
    from orchestrator.database import Database

_HEADER = re.compile(
    r"% orchestrate (?P<table>\S+): (?P<numbers>\d+) numbers, selection (?P<rule>\S+), grids (?P<grids>.*)"
)
_NUMBER = re.compile(
    r"(?P<text>.*?)(?<!\\)% (?P<address>\S+:\S+/\S+) = (?P<value>\S+) n=(?P<n>\d+) quantity=(?P<quantity>\S+)"
    r"(?: selection=(?P<rule>\S+))? trials=(?P<trials>\S+)\s*$"
)
_INPUT = re.compile(r"(?<!\\)\\(?:input|include)\s*\{\s*([^}]+?)\s*\}")
_COMPARISON = "-vs-paper"


class Problem(NamedTuple):
    """What is wrong with one number, or one table, of a LaTeX file."""

    where: str
    kind: str
    address: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.kind}: {self.address}: {self.message}"


class Written(NamedTuple):
    """A number as a LaTeX file has it."""

    where: str
    text: str
    address: str
    value: float
    n: int
    quantity: str
    rule: str | None
    trials: frozenset[str]
    grids: tuple[str, ...] | None


class Current(NamedTuple):
    """A number as the database has it now."""

    table: Table
    row: Row
    column: Column
    entry: Entry


def verify(database: Database, tex: Path) -> list[Problem]:
    """Everything that is wrong with the numbers of a LaTeX file and of the files it includes; empty if all is current.

    stale: the database says otherwise now. edited: the text is not what its comment or the database says.
    contradictory: two places print different values for the same trials. incomplete: numbers lost their comment.
    Raises ReportError for a file that cannot be read.
    """
    headers, numbers = _read(Path(tex))
    if not headers and not numbers:
        return [Problem(str(tex), "empty", "no table", "the file holds no number written by `orchestrate report`")]
    now = _current(database, numbers, headers)
    problems = [problem for number in numbers for problem in _judge(number, now[number.grids, number.rule])]
    return [*problems, *_incomplete(headers, numbers, now), *_contradictory(numbers)]


Header = tuple[str, str, int, str | None, tuple[str, ...] | None]  # where, table, numbers, rule, grids
Known = Mapping[tuple[tuple[str, ...] | None, str | None], Mapping[str, Current]]


def _read(path: Path, seen: frozenset[Path] = frozenset()) -> tuple[list[Header], list[Written]]:
    """The headers and numbers of a file and of those that it includes."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise ReportError(f"cannot read {path}: {error.strerror or error}") from error
    headers: list[Header] = []
    numbers: list[Written] = []
    grids: tuple[str, ...] | None = None
    for place, line in enumerate(lines, 1):
        where = f"{path}:{place}"
        if header := _HEADER.search(line):
            grids = _grids(header["grids"])
            headers.append((where, header["table"], int(header["numbers"]), _rule(header["rule"]), grids))
        elif number := _NUMBER.match(line):
            numbers.append(
                Written(
                    where,
                    number["text"].strip().removeprefix("&").strip(),
                    number["address"],
                    float(number["value"]),
                    int(number["n"]),
                    number["quantity"],
                    number["rule"],
                    frozenset(number["trials"].split(",")),
                    grids,
                )
            )
        else:
            for name in _INPUT.findall(re.split(r"(?<!\\)%", line)[0]):
                other = _included(path, name)
                if other is not None and other.resolve() not in seen:
                    more = _read(other, seen | {path.resolve()})
                    headers += more[0]
                    numbers += more[1]
    return headers, numbers


def _rule(text: str) -> str | None:
    return None if text == "none" else text


def _grids(text: str) -> tuple[str, ...] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return tuple(map(str, found)) if isinstance(found, list) else None


def _included(path: Path, name: str) -> Path | None:
    for candidate in (path.parent / name, path.parent / f"{name}.tex"):
        if candidate.is_file():
            return candidate
    return None


def _current(database: Database, numbers: Sequence[Written], headers: Sequence[Header]) -> Known:
    """The database's numbers by address, for every choice of grids and rule that the file was written with."""
    wanted = {(number.grids, number.rule) for number in numbers} | {(grids, rule) for *_, rule, grids in headers}
    found = {}
    for grids, rule in wanted:
        tables = gather(database, grids=grids, selection=rule, vs_paper=True).tables
        found[grids, rule] = {
            f"{table.name}:{row.key}/{column.key}": Current(table, row, column, each)
            for table in tables
            for row, column, each in entries_of(table)
        }
    return found


def _judge(number: Written, known: Mapping[str, Current]) -> Iterator[Problem]:
    current = known.get(number.address)
    if current is None or current.entry.value is None or not current.entry.samples:
        what = "the database has no such number any more" if current is None else "the database has no value for it now"
        yield Problem(number.where, "stale", number.address, what)
        return
    entry = current.entry
    trials = frozenset(each.key[:KEY_DIGITS] for each in entry.samples)
    expected = latex_entry(entry, current.column, current.row)
    same_value = abs(number.value - entry.value) <= 1e-9 * max(1.0, abs(entry.value))
    if trials != number.trials:
        gained, lost = len(trials - number.trials), len(number.trials - trials)
        what = f"written from {len(number.trials)} trials, the database has {len(trials)} ({gained} new, {lost} gone)"
        yield Problem(number.where, "stale", number.address, f"{what}: now {expected}")
    elif not same_value or number.n != entry.n or number.quantity != entry.quantity:
        yield Problem(
            number.where, "stale", number.address, f"its comment says {number.value!r}, the database {entry.value!r}"
        )
    elif _loosely(number.text) != _loosely(expected):
        kind = "edited" if _digits(number.text) != _digits(expected) else "edited mark"
        yield Problem(number.where, kind, number.address, f"prints {number.text}, the database says {expected}")


def _loosely(text: str) -> str:
    return re.sub(r"\s+", "", text)


def _digits(text: str) -> list[str]:
    return re.findall(r"\d+(?:\.\d+)?|∞", re.sub(r"\\tnote\{[^}]*\}", "", text))


def _incomplete(headers: Iterable[Header], numbers: Sequence[Written], now: Known) -> Iterator[Problem]:
    """Numbers of a table that carry no comment any more, so that nobody could check them."""
    for where, name, count, rule, grids in headers:
        there = {number.address for number in numbers if number.address.startswith(f"{name}:")}
        lost = [
            address
            for address, current in now[grids, rule].items()
            if current.table.name == name
            and address not in there
            and current.entry.samples
            and current.entry.value is not None
        ]
        if len(there) < count:
            what = (
                f"{count} numbers were written and {len(there)} carry their comment; without it: {', '.join(lost[:5])}"
            )
            yield Problem(where, "incomplete", name, what)
        elif lost:
            yield Problem(where, "stale", name, f"the database has {len(lost)} more numbers, first {lost[0]}")


def _contradictory(numbers: Sequence[Written]) -> Iterator[Problem]:
    """Places that print different values of one quantity of the same trials, and tables that mix selection rules."""
    first: dict[tuple[object, ...], Written] = {}
    rules: dict[str, Written] = {}
    for number in numbers:
        shown = _digits(number.text)
        if not shown or number.quantity == "loss" or _COMPARISON in number.address:
            continue
        table = number.address.partition(":")[0]
        other = rules.setdefault(table, number)
        if other.rule != number.rule:
            what = f"selects by {number.rule}, {other.address} by {other.rule}; one table must not mix rules"
            yield Problem(number.where, "contradictory", number.address, what)
        if number.quantity == "seconds" or table.startswith("interactions"):
            continue
        other = first.setdefault(
            (number.trials, number.quantity.replace("accuracy", "top1_error"), number.rule), number
        )
        gap = abs(_as_error(number) - _as_error(other))
        if gap > (_step(number) + _step(other)) / 2 + 1e-9:
            what = f"prints {shown[0]}, but {other.address} prints {_digits(other.text)[0]} for the same trials"
            yield Problem(number.where, "contradictory", number.address, what)


def _as_error(number: Written) -> float:
    shown = float(_digits(number.text)[0].replace("∞", "inf"))
    return 100 - shown if number.quantity.endswith("accuracy") else shown


def _step(number: Written) -> float:
    return 10.0 ** -len(_digits(number.text)[0].partition(".")[2])
