"""Whether a LaTeX file still says what the database does."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import combinations, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from reports.checks.manuscript import Header, Line, Manuscript, Tabular, Written, read
from reports.columns import Column
from reports.errors import ReportError
from reports.render.latex import KEY_DIGITS, escape, latex_entry
from reports.report import gather
from reports.table import Entry, Row, Table, entries_of

if TYPE_CHECKING:
    from orchestrator.database import Database

_COMPARISON = "-vs-paper"


class Problem(NamedTuple):
    """What is wrong with one number, or one table, of a LaTeX file; or, as a note, what could not be judged."""

    where: str
    kind: str
    address: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.kind}: {self.address}: {self.message}"


class Verdict(NamedTuple):
    """What came of a check: the problems, notes on what is no problem, and how much was checked."""

    problems: list[Problem]
    notes: list[Problem]
    numbers: int
    files: int


class Current(NamedTuple):
    """A number as the database has it now."""

    table: Table
    row: Row
    column: Column
    entry: Entry

    @property
    def trials(self) -> frozenset[str]:
        """Return the trials behind a number, as its comment names them."""
        return frozenset(each.key[:KEY_DIGITS] for each in self.entry.samples if self.entry.value is not None)


Choice = tuple[tuple[str, ...] | None, str]  # grids and rule
Known = Mapping[Choice, Mapping[str, Current]]


def verify(database: Database, tex: Path, *, tables: Sequence[Mapping[str, Any]] = ()) -> Verdict:
    """Everything that is wrong with our tables in a LaTeX file and the files it includes; no problem if all is current.

    stale: the database says otherwise now. edited: the text is not what its comment or the database says.
    mislabelled: a row goes by another name than the database's, or has its columns in another order than those above.
    contradictory: two places print different values for the same trials. incomplete: numbers lost their comment.
    missing: a file that is included is not there. not followed: a command that may read a file whose name is not plain.

    Checked are the places that carry our comment, those without a number among them, and the labels of their rows.
    Captions are compared, and a note names one that is not the database's. Headings, footnotes, other text, and rows
    and columns of the author's own are not checked.

    Raises ReportError for a file that cannot be read, and for grids or rules that the database does not know.
    """
    paper = read(Path(tex))
    missing = [Problem(where, "missing", name, _NOT_FOUND) for where, name in paper.missing]
    missing += [Problem(where, "not followed", what, why) for where, what, why in paper.unclear]
    if not paper.headers and not paper.places:
        empty = Problem(str(tex), "empty", "no table", "the file holds no number written by `orchestrate report`")
        return Verdict(missing or [empty], [], 0, 0)
    now = _current(database, paper, tables)
    places = [problem for place in paper.places for problem in _judge(place, now[_choice(place)])]
    rows = [problem for tabular in paper.tabulars for problem in (*_rows(tabular, paper, now), *_shuffled(tabular))]
    notes = [note for header in paper.headers for note in _notes(header, paper, now[_choice(header)])]
    numbers = sum(isinstance(place.value, float) for place in paper.places)
    return Verdict([*missing, *places, *rows, *_contradictory(paper.places)], notes, numbers, len(paper.files))


_NOT_FOUND = "there is no such file, so nothing in it is checked; write it with `orchestrate report`, or mend the name"


def _choice(written: Written | Header) -> Choice:
    # Tables without a rule are the same under any; grids may disagree about theirs.
    return written.grids, written.rule or "best_test"


def _current(database: Database, paper: Manuscript, declared: Sequence[Mapping[str, Any]]) -> Known:
    """Return the database's entries by address, for every choice of grids and rule that the file was written with."""
    found: dict[Choice, dict[str, Current]] = {}
    everything: list[Written | Header] = [*paper.headers, *paper.places]
    # Also tables that no grid asks for any more: their numbers are as current as ever.
    names = [written.address.partition(":")[0] for written in paper.places]
    names += [header.table for header in paper.headers]
    for written in everything:
        grids, rule = _choice(written)
        if (grids, rule) in found:
            continue
        try:
            options: dict[str, Any] = {"grids": grids, "selection": rule, "vs_paper": True}
            tables = gather(database, tables=declared, also=names, **options).tables
        except ReportError as error:
            raise ReportError(f"{written.where}: {error}") from error
        found[grids, rule] = {
            f"{table.name}:{row.key}/{column.key}": Current(table, row, column, each)
            for table in tables
            for row, column, each in entries_of(table)
        }
    return found


def _judge(place: Written, known: Mapping[str, Current]) -> Iterator[Problem]:
    current = known.get(place.address)
    if current is None:
        yield Problem(place.where, "stale", place.address, "the database has no such number any more")
        return
    entry, trials = current.entry, current.trials
    expected = latex_entry(entry, current.column, current.row)
    if trials != place.trials:
        gained, lost = len(trials - place.trials), len(place.trials - trials)
        written = f"{len(place.trials)} trial{'' if len(place.trials) == 1 else 's'}"
        what = f"written from {written}, the database has {len(trials)} ({gained} new, {lost} gone)"
        what = what if place.trials else "written without a number, the database has one"
        what = f"{what}: now {expected}" if trials else "the database has no value for it now"
        yield Problem(place.where, "stale", place.address, what)
    elif not _same(place, entry):
        there = entry.state if entry.value is None else repr(entry.value)
        what = f"its comment says {place.value}, the database {there}"
        yield Problem(place.where, "stale", place.address, what)
    elif _loosely(place.text) != _loosely(expected):
        kind = "edited mark" if _digits(expected) and _digits(place.text) == _digits(expected) else "edited"
        what = f"prints {place.text or 'nothing'}, the database says {expected}"
        yield Problem(place.where, kind, place.address, what)


def _same(place: Written, entry: Entry) -> bool:
    if entry.value is None or isinstance(place.value, str):
        return place.value == (entry.state if entry.value is None else entry.value)
    alike = place.value == entry.value or abs(place.value - entry.value) <= 1e-9 * max(1.0, abs(entry.value))
    return alike and (not place.trials or (place.n, place.quantity) == (entry.n, entry.quantity))


def _loosely(text: str) -> str:
    return re.sub(r"\s+", "", text)


def _digits(text: str) -> list[str]:
    return re.findall(r"\d+(?:\.\d+)?|∞", re.sub(r"\\tnote\{[^}]*\}", "", text))


def _rows(tabular: Tabular, paper: Manuscript, now: Known) -> Iterator[Problem]:
    """Rows that go by another name than their numbers', and numbers in our rows without the comment that names them."""
    there = {place.address for place in paper.places}
    known = _places(tabular, now)
    rows: dict[str, list[str]] = {}
    for address in known:
        rows.setdefault(_row_of(address, known), []).append(address)
    lost = {row: gone for row, all_of_it in rows.items() if (gone := [each for each in all_of_it if each not in there])}
    for line in tabular.lines:
        behind = {
            _row_of(place.address, known): known[place.address] for place in line.places if place.address in known
        }
        for address, current in behind.items():
            yield from _mislabelled(line, address, current)
        bare = (row for row in lost if not line.places and _is_called(line, known[rows[row][0]]))
        for row in behind or islice(bare, 1):
            yield from _uncommented(line, row, lost.get(row, []), known[rows[row][0]])


def _shuffled(tabular: Tabular) -> Iterator[Problem]:
    """Rows whose columns stand in another order than in a row above, so that one of them is under a wrong heading."""
    above: dict[tuple[str, str], str] = {}
    for line in tabular.lines:
        columns = [re.sub(r":.*/", ":", place.address) for place in line.places]
        if len(set(columns)) < len(columns):
            # Networks side by side: a column comes more than once.
            continue
        row = line.places[0].address.rpartition("/")[0] if line.places else ""
        pairs = list(combinations(columns, 2))
        for one, two in [pair for pair in pairs if pair[::-1] in above][:1]:
            what = f"{one.partition(':')[2]} stands before {two.partition(':')[2]}, in {above[two, one]} behind it"
            yield Problem(line.where, "mislabelled", row, what)
        above |= {pair: row for pair in pairs if pair[::-1] not in above}


def _places(tabular: Tabular, now: Known) -> dict[str, Current]:
    """Every place, as the database has it, of the tables that a tabular has a part of."""
    marked: list[tuple[str, Choice]] = [
        (place.address.partition(":")[0], _choice(place)) for line in tabular.lines for place in line.places
    ]
    if tabular.header:
        marked.append((tabular.header.table, _choice(tabular.header)))
    return {
        address: current
        for name, choice in dict.fromkeys(marked)
        for address, current in now[choice].items()
        if current.table.name == name
    }


def _row_of(address: str, known: Mapping[str, Current]) -> str:
    return f"{known[address].table.name}:{known[address].row.key}"


def _mislabelled(line: Line, address: str, current: Current) -> Iterator[Problem]:
    row, said = current.row, _tokens(line.label)
    seeds = next((each for each in said if re.fullmatch(r"\d+/\d+", each)), "")
    if not _names(said, current):
        called, name = _shown(" ".join(line.cells)) or "nothing", ", ".join(row.labels)
        what = f"the row is called {called}, the database calls it {name}; keep that name beside yours, or in a comment"
        yield Problem(line.where, "mislabelled", address, f"{what}: `Ours % {escape(name)}`")
    elif row.seeds and seeds and not _holds(said, _tokens(escape(row.seeds))):
        yield Problem(line.where, "edited", address, f"the row says {seeds} seeds, the database {row.seeds}")


def _uncommented(line: Line, address: str, lost: Sequence[str], current: Current) -> Iterator[Problem]:
    """Numbers in a row of ours that no comment names, where places of that row are gone."""
    labels = {_shown(escape(label)) for label in current.table.labels(current.row)}
    cells = [cell for cell in map(_shown, line.cells) if re.search(r"\d", cell) and not re.search(r"[^\W\d_]", cell)]
    loose = [cell for cell in cells if cell not in labels]
    if lost and loose:
        named = ", ".join(lost[:3]) + (f" and {len(lost) - 3} more" if len(lost) > 3 else "")
        what = f"the row has {'; '.join(loose[:3])} without the comment that says what it is; not there: {named}"
        yield Problem(line.where, "incomplete", address, what)


_TOKENS = re.compile(r"[^\s&()\[\],;:%]+")


_CITES = re.compile(
    r"\\(?:[a-zA-Z]*cite[a-zA-Z]*|tnote|footnote|footnotemark|textsuperscript)\*?(?:\[[^]]*\])*(?:\{[^}]*\})?"
)


def _shown(latex: str) -> str:
    """LaTeX without commands, citations and marks, as somebody reads it."""
    text = _CITES.sub(" ", latex).replace("\\pm", "±")
    return " ".join(re.sub(r"\\[a-zA-Z]+|[{}$~\\]", " ", text).split())


def _tokens(latex: str) -> list[str]:
    return [each.lower() for each in _TOKENS.findall(_shown(latex))]


def _holds(tokens: Sequence[str], wanted: Sequence[str]) -> bool:
    return any(tokens[place : place + len(wanted)] == wanted for place in range(len(tokens) - len(wanted) + 1))


@cache
def _name(labels: tuple[str, ...]) -> list[str]:
    return _tokens(escape(" ".join(labels)))


def _names(said: Sequence[str], current: Current) -> bool:
    """Return whether a label contains the name of its row, and that of no other row of the table."""
    own = _name(current.row.labels)
    others = (_name(row.labels) for row in current.table.rows)
    return said == own or (
        _holds(said, own) and not any(_holds(said, other) and not _holds(own, other) for other in others)
    )


def _is_called(line: Line, current: Current) -> bool:
    """Return whether a row without our comments has exactly the name of one of ours: others are the author's own."""
    return _tokens(" ".join(line.cells[: len(current.row.labels)])) == _name(current.row.labels)


def _notes(header: Header, paper: Manuscript, known: Mapping[str, Current]) -> Iterator[Problem]:
    """Return notes on probable intentions of the author: another caption, and a table without newer rows."""
    mine = {address: current for address, current in known.items() if current.table.name == header.table}
    text = _loosely("".join(header.text))
    for table in [current.table for current in mine.values()][:1]:
        sentences = re.split(r"(?<=\.) ", table.caption)
        other = [each for each in sentences if _loosely(escape(each)) not in text]
        if other:
            what = f"the caption, which is not checked, does not say what the database gives: {' '.join(other)}"
            yield Problem(header.where, "note", header.table, what)
    there = {place.address for place in paper.places}
    numbers = [address for address, current in mine.items() if current.entry.value is not None]
    if len(numbers) > header.numbers and not there.issuperset(numbers):
        what = f"the database has {len(numbers)} numbers for it now, {header.numbers} when it was written"
        yield Problem(header.where, "note", header.table, what)


def _contradictory(places: Iterable[Written]) -> Iterator[Problem]:
    """Places that print different values of one quantity of the same trials, and tables that mix selection rules."""
    first: dict[tuple[object, ...], Written] = {}
    rules: dict[str, Written] = {}
    for place in places:
        shown = _digits(place.text)
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
            what = f"prints {shown[0]}, but {other.address} prints {_digits(other.text)[0]} for the same trials"
            yield Problem(place.where, "contradictory", place.address, what)


def _as_error(place: Written) -> float:
    shown = float(_digits(place.text)[0].replace("∞", "inf"))
    return 100 - shown if place.quantity.endswith("accuracy") else shown


def _step(place: Written) -> float:
    return 10.0 ** -len(_digits(place.text)[0].partition(".")[2])
