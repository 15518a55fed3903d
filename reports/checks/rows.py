"""Check the rows of tables in a LaTeX file: what they are called, the order of their columns, and lost comments."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import combinations, islice

from orchestrator.text import shortlist
from reports.checks.agreement import Problem
from reports.checks.current import Choice, Current, Known, choice_of
from reports.checks.manuscript import Line, Manuscript, Tabular
from reports.render.latex import escape

_TOKENS = re.compile(r"[^\s&()\[\],;:%]+")
_CITES = re.compile(
    r"\\(?:[a-zA-Z]*cite[a-zA-Z]*|tnote|footnote|footnotemark|textsuperscript)\*?(?:\[[^]]*\])*(?:\{[^}]*\})?"
)


def check_rows(tabular: Tabular, paper: Manuscript, now: Known) -> Iterator[Problem]:
    """Yield the problems of a tabular's rows: of their names and comments, then of the order of their columns."""
    yield from _rows(tabular, paper, now)
    yield from _shuffled(tabular, now)


def _rows(tabular: Tabular, paper: Manuscript, now: Known) -> Iterator[Problem]:
    """Find rows that go by another name than their numbers', and numbers in our rows that no comment names."""
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
        places = [(place, now[choice_of(place)].get(place.address)) for place in line.places]
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
    """Return every place, as the database has it, of the tables that a tabular has a part of."""
    marked: list[tuple[str, Choice]] = [
        (place.address.partition(":")[0], choice_of(place)) for line in tabular.lines for place in line.places
    ]
    if tabular.header:
        marked.append((tabular.header.table, choice_of(tabular.header)))
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
    """Find numbers in a row of ours that no comment names, where places of that row are gone."""
    labels = {_shown(escape(label)) for label in current.table.labels(current.row)}
    cells = [cell for cell in map(_shown, line.cells) if re.search(r"\d", cell) and not re.search(r"[^\W\d_]", cell)]
    loose = [cell for cell in cells if cell not in labels]
    if lost and loose:
        what = f"the row has {'; '.join(loose[:3])} without the comment that says what it is"
        yield Problem(line.where, "incomplete", address, f"{what}; not there: {shortlist(lost, 3)}")


def _shown(latex: str) -> str:
    """Return LaTeX without commands, citations and marks, as somebody reads it."""
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
    other_names = (_name(row.labels) for row in current.table.rows)
    return tokens == own or (
        _holds(tokens, own) and not any(_holds(tokens, other) and not _holds(own, other) for other in other_names)
    )


def _is_called(line: Line, current: Current) -> bool:
    """Return whether a row without our comments has exactly the name of one of ours: others are the author's own."""
    return _tokens(" ".join(line.cells[: len(current.row.labels)])) == _name(current.row.labels)
