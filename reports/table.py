"""A table as data: entries with their state, spread and origin, before anybody decides how they are printed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.identity import Mixed, mixed
from orchestrator.records import Origin
from orchestrator.statistics import Outcomes
from orchestrator.tables.schema import LatexSpec
from reports.columns import Column
from reports.results import Selection

if TYPE_CHECKING:
    from reports.paper.published import Printed


class Sample(NamedTuple):
    """One trial's share in an entry; `epoch` is the (last) selected one, from 1, `images` the size of the test set.

    `compiled` is the share of its epochs that were trained with compiled networks; 0 for a time, which has no rounding.
    `pair` are the values of the fields, beside the seed, that pair it with samples of other cells.
    `origins` are the code and data that trained its epochs; none for a time. `outcomes` say which images are right,
    for a top-1 error or accuracy. `replaced` are footnotes on defaults of parts that were others in other trials.
    """

    key: str
    name: str
    seed: int
    epoch: int | None
    value: float
    images: int | None
    exclusive: bool = True
    compiled: float = 0.0
    pair: str = ""
    origins: tuple[Origin, ...] = ()
    outcomes: Outcomes | None = None
    replaced: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """A place in a table.

    `state` is done, partial (some seeds), missing, running, failed, diverged or text. `spread` is what stands
    after the plus-minus sign, by the table's caption. A starred time shared its device. `absent` holds the trials
    without a value: key, name and state; `config` is the configuration of one cell, where it is of one.
    """

    state: str = "missing"
    value: float | None = None
    spread: float | None = None
    n: int = 0
    planned: int = 0
    diverged: int = 0
    star: bool = False
    bold: bool = False
    notes: tuple[str, ...] = ()
    samples: tuple[Sample, ...] = ()
    absent: tuple[tuple[str, str, str], ...] = ()
    quantity: str = ""
    text: str = ""
    config: Mapping[str, object] | None = field(default=None, compare=False, repr=False)

    @property
    def mixed(self) -> str:
        """Return the footnote on trials that rounded differently, empty where all of them rounded alike."""
        shares = {each.key: each.compiled for each in self.samples}
        compiled, partly = sum(map(bool, shares.values())), sum(0 < share < 1 for share in shares.values())
        if not compiled or (compiled == len(shares) and not partly):
            return ""
        if len(shares) == 1:
            return "trained partly with compiled networks, which round differently"
        text = f"{compiled} of the {len(shares)} trials trained with compiled networks, which round differently"
        return text + (f" ({partly} of them in only a part of the epochs)" if partly else "")

    @property
    def differing(self) -> Mixed:
        """Return what to say of trials that were trained by different code, on different data or by older defaults."""
        by_code = mixed({each.name: each.origins for each in self.samples})
        replaced = dict.fromkeys(footnote for each in self.samples for footnote in each.replaced)
        return by_code._replace(footnotes=(*by_code.footnotes, *replaced))


@dataclass(frozen=True)
class Row:
    """A row: its group (a network), its address within the table, its labels, and one entry per column.

    `note` is the mark of a footnote on the row, `deviation` what a line's says. `n` and `planned` are the seeds that
    its entries have, unless they say otherwise, and `seeds` is what the table says of them.
    """

    group: str
    key: str
    labels: tuple[str, ...]
    entries: tuple[Entry, ...]
    note: str = ""
    deviation: str = ""
    n: int = 0
    planned: int = 0
    seeds: str = ""


@dataclass(frozen=True)
class Table:
    """A table; `name` is its file name and the first part of every entry's address.

    `layout` is the name a grid asks for; `fixed` holds the configuration fields that all its trials share, `stub`
    the headings of the label columns, `group_head` that of the groups. `details` are the rules that a short caption
    leaves out, for the notes below; `declaration` is what the table was made from, as YAML has it; `reference` are the
    published values that it is compared with, and `latex` says how LaTeX prints it.
    """

    name: str
    layout: str
    title: str
    caption: str
    stub: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    footnotes: tuple[tuple[str, str], ...] = ()
    selection: Selection | None = None
    fixed: Mapping[str, object] = field(default_factory=dict)
    group_head: str = "Network"
    details: str = ""
    declaration: Mapping[str, object] | None = None
    reference: tuple[Printed, ...] = ()
    latex: LatexSpec = field(default_factory=LatexSpec)

    @property
    def label_heads(self) -> tuple[str, ...]:
        """Return the headings of the label columns, the seeds' among them where rows differ in them."""
        return (*self.stub, *(["Seeds"] if any(row.seeds for row in self.rows) else []))

    def labels(self, row: Row) -> tuple[str, ...]:
        """Return a row's labels, as many as `label_heads`."""
        return (*row.labels, row.seeds) if len(self.label_heads) > len(self.stub) else row.labels


def add_note(notes: list[tuple[str, str]], text: str) -> str:
    """Return the mark (a, b, ...) of a footnote, which is added unless it is in the list already."""
    for mark, noted in notes:
        if noted == text:
            return mark
    above, letter = divmod(sum(mark != "*" for mark, _ in notes), 26)
    mark = (chr(ord("a") + above - 1) if above else "") + chr(ord("a") + letter)
    notes.append((mark, text))
    return mark


def mark_mixed(rows: Sequence[Row], notes: list[tuple[str, str]]) -> list[Row]:
    """Return the rows with a footnote, added to `notes`, on every number whose trials are not alike.

    They rounded differently, or were trained by different code of a part, or on different data.
    """

    def marked(entry: Entry) -> Entry:
        footnotes = [*filter(None, [entry.mixed]), *entry.differing.footnotes]
        return (
            replace(entry, notes=(*entry.notes, *(add_note(notes, one) for one in footnotes))) if footnotes else entry
        )

    return [replace(row, entries=tuple(map(marked, row.entries))) for row in rows]


def mark_unmeasured(rows: Sequence[Row], columns: Sequence[Column], notes: list[tuple[str, str]]) -> list[Row]:
    """Return the rows with a footnote, added to `notes`, where trials are done that did not measure a metric.

    Of the metrics of every evaluation a trial lacks none; where it lacks all of them, no epoch is selected.
    """

    def marked(row: Row) -> Row:
        measured = {sample.key for entry in row.entries for sample in entry.samples if "/" in entry.quantity}
        entries = []
        for column, entry in zip(columns, row.entries, strict=True):
            without = [key for key, _, state in entry.absent if state == "done" and key in measured]
            if without and column.own:
                total = len(without) + len({sample.key for sample in entry.samples})
                which = "the trial" if total == 1 else f"{len(without)} of the {total} trials"
                name = column.quantity.rpartition("/")[2]
                footnote = (
                    f"{which} did not measure {name} at the epochs that count: the grid file did not ask for it then, "
                    "and orchestrate score measures it only where probabilities are kept"
                )
                entry = replace(entry, notes=(*entry.notes, add_note(notes, footnote)))
            entries.append(entry)
        return replace(row, entries=tuple(entries))

    return [marked(row) for row in rows]


def entries_of(table: Table) -> Iterator[tuple[Row, Column, Entry]]:
    """Yield every place of a table: its row, its column, and what stands there."""
    for row in table.rows:
        for column, each in zip(table.columns, row.entries, strict=True):
            yield row, column, each
