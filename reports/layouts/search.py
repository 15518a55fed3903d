"""Build the table of a search: what every row was given, what its draws came to, and which one won."""

from __future__ import annotations

from orchestrator.tables.addresses import slug
from reports.columns import Column, column_of
from reports.results import Selection
from reports.table import Entry, Row, Table
from reports.text import number
from reports.tuning import Search, budget, hyperparameters


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
    rows = []
    for name, row in tune["rows"].items():
        draws = search.draws.get(name, {})
        over = sum(state in ("done", "failed") for state, _ in draws.values())
        failed = sum(state == "failed" for state, _ in draws.values())
        total = max(len(draws), row["draws"])
        counts = f"{over}" if over == total else f"{over} of {total}"
        winner = row.get("winner")
        entries = [
            _text(f"{counts} ({failed} failed)" if failed else counts),
            _score(draws.get(0, ("", None))[1], metric),
            _score(draws.get(winner, ("", None))[1] if winner is not None else None, metric),
            _text("" if winner is None else str(winner)),
            _text("" if winner is None else hyperparameters(row["values"])),
        ]
        rows.append(Row("", name, (name,), tuple(entries)))
    name = f"search-{slug(search.grid)}"
    caption = budget(tune)[0]
    rule = Selection.parse(tune["selection"])
    return Table(name, name, f"Search of {search.grid}", caption, ("Row",), columns, tuple(rows), selection=rule)


def _text(text: str) -> Entry:
    return Entry("text", text=text or "\u2013")


def _score(value: float | None, metric: Column) -> Entry:
    return _text("" if value is None else number(value, metric))
