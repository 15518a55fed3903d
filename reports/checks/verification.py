"""Compare the numbers of a LaTeX file with those of the database."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from reports.checks.agreement import Problem, contradictory, digits
from reports.checks.current import Current, Known, choice_of, current_numbers
from reports.checks.manuscript import Header, Manuscript, Written, read
from reports.checks.rounding import is_bold, is_rounded, without_bold
from reports.checks.rows import check_rows
from reports.render.latex import escape, latex_entry
from reports.render.numbers import texts
from reports.table import Entry

if TYPE_CHECKING:
    from orchestrator.database import Database


class Verdict(NamedTuple):
    """Result of a check: the problems, notes on what is no problem, and how much was checked."""

    problems: list[Problem]
    notes: list[Problem]
    numbers: int
    files: int


def verify(database: Database, tex: Path, *, tables: Sequence[Mapping[str, Any]] = ()) -> Verdict:
    """Return what is wrong with our tables in a LaTeX file and the files it includes; no problem if all is current.

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
    now = current_numbers(database, paper, tables)
    judged = [problem for place in paper.places for problem in _judge(place, now[choice_of(place)])]
    places = [problem for problem in judged if problem.kind != "note"]
    places += [problem for where, address in paper.used for problem in _sentence(where, address, paper, now)]
    rows = [problem for tabular in paper.tabulars for problem in check_rows(tabular, paper, now)]
    notes = [problem for problem in judged if problem.kind == "note"]
    notes += [note for header in paper.headers for note in _notes(header, paper, now[choice_of(header)])]
    notes += [note for place in paper.places for note in _other_trainers(place, now[choice_of(place)])]
    numbers = sum(isinstance(place.value, float) for place in paper.places) + len(paper.used)
    return Verdict([*missing, *places, *rows, *contradictory(paper.places)], notes, numbers, len(paper.files))


_NOT_FOUND = "there is no such file, so nothing in it is checked; write it with `orchestrate report`, or mend the name"


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
    current = now[choice_of(defined)].get(place)
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
