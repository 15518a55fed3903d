"""Build the table of a search: what every row was given, what its draws came to, and which one won."""

from __future__ import annotations

from orchestrator.records import DrawRow
from orchestrator.tables.addresses import slug
from reports.columns import Column, column_of
from reports.results import Selection
from reports.table import Entry, Row, Sample, Table, add_note
from reports.text import MISSING
from reports.tuning import Search, budget, hyperparameters

# What the scores are, for whoever compares numbers of several tables: no other table has one on validation images.
QUANTITY = "validation"


def search_table(search: Search) -> Table:
    """Return a table with a row per tuned row: draws, the score of the default and of the winner, and the winner."""
    tune = search.tune
    metric = column_of(tune["metric"])
    columns = (
        Column("draws", "Draws"),
        Column("default", f"{metric.title} of draw 0", metric.unit, digits=metric.digits),
        Column("best", "Of the best draw", metric.unit, digits=metric.digits),
        Column("winner", "Best draw"),
        Column("hyperparameters", "What it has", form="text"),
    )
    rows, notes = [], list[tuple[str, str]]()
    for name, row in tune["rows"].items():
        draws = search.draws.get(name, {})
        ended = {number: draw for number, draw in draws.items() if draw.state in ("done", "failed")}
        over, total = len(ended), max(len(draws), row["draws"])
        failed = {number: draw.error_class or "no value" for number, draw in ended.items() if draw.score is None}
        counts = f"{over}" if over == total else f"{over} of {total}"
        winner = row.get("winner")
        entries = (
            _text(f"{counts} ({len(failed)} failed)" if failed else counts),
            _score(draws.get(0)),
            _score(draws.get(winner) if winner is not None else None),
            _text("" if winner is None else str(winner)),
            _text("" if winner is None else hyperparameters(row["values"])),
        )
        reasons = ", ".join(f"draw {number} ({why})" for number, why in failed.items())
        note = add_note(notes, f"failed: {reasons}") if reasons else ""
        rows.append(Row("", name, (name,), entries, note, n=1, planned=1))
    name = f"search-{slug(search.grid)}"
    rule = Selection.parse(tune["selection"])
    title, caption = f"Search of {search.grid}", budget(tune)[0]
    return Table(name, name, title, caption, ("Row",), columns, tuple(rows), tuple(notes), selection=rule)


def _text(text: str) -> Entry:
    return Entry("text", text=text or MISSING)


def _score(draw: DrawRow | None) -> Entry:
    """Return the score of a draw, with its trial behind it."""
    if draw is None:
        return _text("")
    if draw.score is None:
        return Entry("missing", planned=1, absent=((draw.key, draw.name, draw.state),), quantity=QUANTITY)
    sample = Sample(draw.key, draw.name, draw.seed, None, draw.score, None)
    return Entry("done", draw.score, None, 1, 1, samples=(sample,), quantity=QUANTITY)
