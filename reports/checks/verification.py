"""Compare the numbers of a LaTeX file with those of the database."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from itertools import combinations, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from reports.checks.agreement import Problem, contradictory, digits
from reports.checks.manuscript import Defined, Header, Line, Manuscript, Tabular, Written, read
from reports.checks.rounding import is_bold, is_rounded, without_bold
from reports.columns import Column
from reports.errors import ReportError
from reports.gathering import gather
from reports.render.latex import KEY_DIGITS, escape, latex_entry
from reports.render.numbers import texts
from reports.table import Entry, Row, Table, entries_of

if TYPE_CHECKING:
    from orchestrator.database import Database


class Verdict(NamedTuple):
    """Result of a check: the problems, notes on what is no problem, and how much was checked."""

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
    mixed: its trials were trained by different code of a part at one version, or on different data.
    contradictory: two places print different values for the same trials. incomplete: numbers lost their comment.
    unknown: a sentence names a number (orch) that no file defines. missing: a file that is included is not there. not
    followed: a command that may read a file whose name is not plain.

    Checked are the places that carry our comment, those without a number among them, and the labels of their rows.
    Numbers are followed by their address: rows and columns may go, be reordered or turned round, and a number may have
    fewer decimals, correctly rounded. Captions are compared, and a note names one that is not the database's. Headings,
    footnotes, other text, and rows and columns of the author's own are not checked.

    Raises ReportError for a file that cannot be read, and for grids or rules that the database does not know.
    """
    paper = read(Path(tex))
    missing = [Problem(where, "missing", name, _NOT_FOUND) for where, name in paper.missing]
    missing += [Problem(where, "not followed", what, why) for where, what, why in paper.unclear]
    if not paper.headers and not paper.places and not paper.used:
        empty = Problem(str(tex), "empty", "no table", "the file holds no number written by `orchestrate report`")
        return Verdict(missing or [empty], [], 0, 0)
    now = _current(database, paper, tables)
    judged = [problem for place in paper.places for problem in _judge(place, now[_choice(place)])]
    places = [problem for problem in judged if problem.kind != "note"]
    places += [problem for where, address in paper.used for problem in _sentence(where, address, paper, now)]
    rows = [
        problem for tabular in paper.tabulars for problem in (*_rows(tabular, paper, now), *_shuffled(tabular, now))
    ]
    notes = [problem for problem in judged if problem.kind == "note"]
    notes += [note for header in paper.headers for note in _notes(header, paper, now[_choice(header)])]
    notes += [note for place in paper.places for note in _other_trainers(place, now[_choice(place)])]
    numbers = sum(isinstance(place.value, float) for place in paper.places) + len(paper.used)
    return Verdict([*missing, *places, *rows, *contradictory(paper.places)], notes, numbers, len(paper.files))


_NOT_FOUND = "there is no such file, so nothing in it is checked; write it with `orchestrate report`, or mend the name"


def _choice(written: Written | Header | Defined) -> Choice:
    # Tables without a rule are the same under any; grids may disagree about theirs, and every trial has a last epoch.
    return written.grids, written.rule or "last"


def _current(database: Database, paper: Manuscript, declared: Sequence[Mapping[str, Any]]) -> Known:
    """Return the database's entries by address, for every choice of grids and rule that the file was written with."""
    places: dict[Choice, dict[str, Current]] = {}
    everything: list[Written | Header | Defined] = [*paper.headers, *paper.places]
    everything += [paper.defined[address] for _, address in paper.used if address in paper.defined]
    # Also tables that no grid asks for any more: their numbers are as current as ever.
    names = [written.address.partition(":")[0] for written in paper.places]
    names += [header.table for header in paper.headers] + [address.partition(":")[0] for _, address in paper.used]
    for written in everything:
        grids, rule = _choice(written)
        if (grids, rule) in places:
            continue
        try:
            options: dict[str, Any] = {"grids": grids, "selection": rule, "vs_paper": True}
            tables = gather(database, tables=declared, also=names, **options).tables
        except ReportError as error:
            raise ReportError(f"{written.where}: {error}") from error
        places[grids, rule] = {
            f"{table.name}:{row.key}/{column.key}": Current(table, row, column, entry)
            for table in tables
            for row, column, entry in entries_of(table)
        }
    return places


def _judge(place: Written, by_address: Mapping[str, Current]) -> Iterator[Problem]:
    current = by_address.get(place.address)
    if current is None:
        name = place.address.partition(":")[0]
        what = f"no grid asks for the table {name} any more; give its file with --table"
        if any(number.table.name == name for number in by_address.values()):
            what = "the database has no such number any more"
        yield Problem(place.where, "stale", place.address, what)
        return
    entry, trials = current.entry, current.trials
    siunitx = current.table.latex.siunitx
    # A table may be set in the other kind of columns by hand.
    expected, other = (latex_entry(entry, current.column, current.row, siunitx=kind) for kind in (siunitx, not siunitx))
    if trials != place.trials:
        gained, lost = len(trials - place.trials), len(place.trials - trials)
        written = f"{len(place.trials)} trial{'' if len(place.trials) == 1 else 's'}"
        what = f"written from {written}, the database has {len(trials)} ({gained} new, {lost} gone)"
        what = what if place.trials else "written without a number, the database has one"
        what = f"{what}: now {expected}" if trials else "the database has no value for it now"
        yield Problem(place.where, "stale", place.address, what)
    elif not _same(place, entry):
        recorded = entry.state if entry.value is None else repr(entry.value)
        what = f"its comment says {place.value}, the database {recorded}"
        yield Problem(place.where, "stale", place.address, what)
    elif _loosely(place.text) in (_loosely(expected), _loosely(other)):
        pass
    elif _loosely(without_bold(place.text)) in (
        _loosely(without_bold(expected)),
        _loosely(without_bold(other)),
    ) or is_rounded(place.text, entry, current.column):
        if is_bold(place.text) and not entry.bold:
            what = f"is bold, and the database has it in plain type: {expected}"
            yield Problem(place.where, "edited mark", place.address, what)
        elif entry.bold and not is_bold(place.text):
            what = f"is not bold any more; the database has {expected}"
            yield Problem(place.where, "note", place.address, what)
    else:
        kind = "edited mark" if digits(expected) and digits(place.text) == digits(expected) else "edited"
        what = f"prints {place.text or 'nothing'}, the database says {expected}"
        yield Problem(place.where, kind, place.address, what)
    for what in entry.differing.footnotes if trials else ():
        yield Problem(place.where, "mixed", place.address, f"its trials are not alike: {what}; train them anew")


def _other_trainers(place: Written, by_address: Mapping[str, Current]) -> Iterator[Problem]:
    """Return a note on a number whose trials were trained by different code of the trainer."""
    if place.address in by_address:
        for what in by_address[place.address].entry.differing.notes:
            yield Problem(place.where, "note", place.address, f"its trials were {what}")


def _sentence(where: str, address: str, paper: Manuscript, now: Known) -> Iterator[Problem]:
    r"""Say what is wrong with a number that a sentence names by `\orch`."""
    place, defined = re.sub(r"\.(?:n|spread|delta)$", "", address), paper.defined.get(address)
    if defined is None:
        near = get_close_matches(address, paper.defined, n=1, cutoff=0.6)
        hint = f"; did you mean {near[0]}?" if near else "; \\input the numbers.tex that `orchestrate report` writes"
        yield Problem(where, "unknown", address, f"no file defines this number{hint}")
        return
    current = now[_choice(defined)].get(place)
    expected = texts(current.table, current.row, current.column, current.entry).get(address) if current else None
    if current is None or expected is None:
        yield Problem(where, "stale", address, f"prints {defined.text}, the database has no such number any more")
    elif current.trials != defined.trials or expected != defined.text:
        what = f"prints {defined.text} (from {defined.where}), the database says {expected}"
        if expected == defined.text:
            what = f"prints {defined.text} of {len(defined.trials)} trials, the database has {len(current.trials)}"
        yield Problem(where, "stale", address, f"{what}; run `orchestrate report` again")


def _same(place: Written, entry: Entry) -> bool:
    if entry.value is None or isinstance(place.value, str):
        return place.value == (entry.state if entry.value is None else entry.value)
    alike = place.value == entry.value or abs(place.value - entry.value) <= 1e-9 * max(1.0, abs(entry.value))
    return alike and (not place.trials or (place.n, place.quantity) == (entry.n, entry.quantity))


def _loosely(text: str) -> str:
    return re.sub(r"\s+", "", text)


def _rows(tabular: Tabular, paper: Manuscript, now: Known) -> Iterator[Problem]:
    """Rows that go by another name than their numbers', and numbers in our rows without the comment that names them."""
    written = {place.address for place in paper.places}
    by_address = _places(tabular, now)
    rows: dict[str, list[str]] = {}
    for address in by_address:
        rows.setdefault(_row_of(address, by_address), []).append(address)
    lost = {row: gone for row, addresses in rows.items() if (gone := [x for x in addresses if x not in written])}
    for line in tabular.lines:
        behind = {
            _row_of(place.address, by_address): by_address[place.address]
            for place in line.places
            if place.address in by_address
        }
        if _is_turned([_parts(place.address, by_address.get(place.address)) for place in line.places]):
            # The heading above names the rows, and is the author's; the order of rows is checked.
            continue
        for address, current in behind.items():
            yield from _mislabelled(line, address, current)
        bare = (row for row in lost if not line.places and _is_called(line, by_address[rows[row][0]]))
        for row in behind or islice(bare, 1):
            yield from _uncommented(line, row, lost.get(row, []), by_address[rows[row][0]])


def _shuffled(tabular: Tabular, now: Known) -> Iterator[Problem]:
    """Yield rows whose columns stand in another order than in a row above, so that one is under a wrong heading.

    In a table that was turned round, rows take the part of columns.
    """
    above: dict[tuple[str, str], str] = {}
    for line in tabular.lines:
        places = [(place, now[_choice(place)].get(place.address)) for place in line.places]
        names = [_parts(place.address, current) for place, current in places]
        turned = _is_turned(names)
        across = [row if turned else column for row, column in names]
        if len(set(across)) < len(across):
            # Networks side by side: a column comes more than once.
            continue
        along = names[0][1 if turned else 0] if names else ""
        pairs = list(combinations(across, 2))
        for one, two in [pair for pair in pairs if pair[::-1] in above][:1]:
            what = f"{_last(one)} stands before {_last(two)}, in {above[two, one]} behind it"
            yield Problem(line.where, "mislabelled", along, what)
        above |= {pair: along for pair in pairs if pair[::-1] not in above}


def _parts(address: str, current: Current | None) -> tuple[str, str]:
    """Return the row and the column of an address, both with their table."""
    table, _, place = address.partition(":")
    row, column = (current.row.key, current.column.key) if current else place.rpartition("/")[::2]
    return f"{table}:{row}", f"{table}:{column}"


def _last(name: str) -> str:
    return name.partition(":")[2]


def _is_turned(names: Sequence[tuple[str, str]]) -> bool:
    """Return whether a line of a table has several rows of ours and one column: it was turned round."""
    return len({row for row, _ in names}) > 1 and len({column for _, column in names}) == 1


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


def _row_of(address: str, by_address: Mapping[str, Current]) -> str:
    return f"{by_address[address].table.name}:{by_address[address].row.key}"


def _mislabelled(line: Line, address: str, current: Current) -> Iterator[Problem]:
    row, tokens = current.row, _tokens(line.label)
    seeds = next((each for each in tokens if re.fullmatch(r"\d+/\d+", each)), "")
    if not _names(tokens, current):
        called, name = _shown(" ".join(line.cells)) or "nothing", ", ".join(row.labels)
        what = f"the row is called {called}, the database calls it {name}; keep that name beside yours, or in a comment"
        yield Problem(line.where, "mislabelled", address, f"{what}: `Ours % {escape(name)}`")
    elif row.seeds and seeds and not _holds(tokens, _tokens(escape(row.seeds))):
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


def _names(tokens: Sequence[str], current: Current) -> bool:
    """Return whether a label contains the name of its row, and that of no other row of the table."""
    own = _name(current.row.labels)
    others = (_name(row.labels) for row in current.table.rows)
    return tokens == own or (
        _holds(tokens, own) and not any(_holds(tokens, other) and not _holds(own, other) for other in others)
    )


def _is_called(line: Line, current: Current) -> bool:
    """Return whether a row without our comments has exactly the name of one of ours: others are the author's own."""
    return _tokens(" ".join(line.cells[: len(current.row.labels)])) == _name(current.row.labels)


def _notes(header: Header, paper: Manuscript, by_address: Mapping[str, Current]) -> Iterator[Problem]:
    """Return notes on probable intentions of the author: another caption, and a table without newer rows."""
    own_places = {address: current for address, current in by_address.items() if current.table.name == header.table}
    text = _loosely("".join(header.text))
    for table in [current.table for current in own_places.values()][:1]:
        sentences = re.split(r"(?<=\.) ", table.caption)
        other = [each for each in sentences if _loosely(escape(each)) not in text]
        if other:
            what = f"the caption, which is not checked, does not say what the database gives: {' '.join(other)}"
            yield Problem(header.where, "note", header.table, what)
    written = {place.address for place in paper.places}
    numbers = [address for address, current in own_places.items() if current.entry.value is not None]
    if len(numbers) > header.numbers and not written.issuperset(numbers):
        what = f"the database has {len(numbers)} numbers for it now, {header.numbers} when it was written"
        yield Problem(header.where, "note", header.table, what)
