"""Build the table of sequential seeds: at which look each pair of rows stopped, and how many seeds that saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from orchestrator.tables.addresses import slug
from orchestrator.text import counted
from reports.columns import Column, column_of
from reports.results import Results, Selection
from reports.table import Entry, Row, Table

if TYPE_CHECKING:
    from orchestrator.database import Database
    from orchestrator.records import LookRow

COLUMNS = (
    Column("look", "Look", form="text"),
    Column("seeds", "Seeds", form="text"),
    Column("difference", "Difference", form="text"),
    Column("p", "p", form="text"),
    Column("level", "Needed", form="text"),
    Column("verdict", "Verdict", form="text"),
)


def looks_tables(database: Database, results: Results) -> list[Table]:
    """Return a table of the looks of every grid of a report whose seeds come by a rule."""
    tables = []
    for grid in results.grids:
        if rule := grid.report.get("seeds"):
            tables.append(_table(grid.name, rule, database.looks(grid.name)))
    return tables


def with_seeds_by_rule(tables: Sequence[Table], results: Results, looks: Sequence[Table]) -> list[Table]:
    """Return tables whose captions say, where rows differ in their seeds, that these came by a rule."""
    rows: Mapping[str, str] = {
        trial.key: grid.name
        for grid in results.grids
        if grid.report.get("seeds")
        for cell in results.cells
        if grid.name in cell.grids
        for trial in cell.trials
    }
    if not looks or not rows:
        return list(tables)
    changed = []
    for table in tables:
        keys = {sample.key for row in table.rows for entry in row.entries for sample in entry.samples}
        grids = sorted({rows[key] for key in keys if key in rows})
        if grids and len({row.planned for row in table.rows if row.planned}) > 1:
            named = " and ".join(f"looks-{slug(name)}" for name in grids)
            words = (
                f"Rows have as many seeds as a rule gave them that looks at the results: see {named}, whose tests "
                "allow for the looks; those behind bold and p-values here do not."
            )
            table = replace(table, caption=f"{table.caption} {words}".strip())
        changed.append(table)
    return changed


def _table(grid: str, rule: Mapping[str, Any], looks: Sequence[LookRow]) -> Table:
    metric = column_of(rule["metric"])
    last = {(look.row_key, look.baseline_key): look for look in looks}
    rows, saved = [], 0
    for look in last.values():
        saved += rule["most"] - look.seeds if look.separated else 0
        difference = "" if look.difference is None else f"{look.difference:+.{metric.digits}f}"
        texts = (
            str(look.look),
            f"{look.seeds}" if look.shared == look.seeds else f"{look.seeds}, {look.shared} in both",
            f"{difference} {metric.unit}".strip() or "none",
            "no test" if look.p is None else f"{look.p:.2g}",
            f"{look.level:.2g}",
            _verdict(look, rule),
        )
        entries = tuple(Entry("text", text=text) for text in texts)
        key = slug(f"{look.row_name}-{look.baseline_name}")
        rows.append(Row(look.baseline_name, key, (look.row_name,), entries, n=1, planned=1))
    name = f"looks-{slug(grid)}"
    numbers = ", ".join(map(str, (*range(rule["start"], rule["most"], rule["step"]), rule["most"])))
    caption = (
        f"Seeds of {grid} by rule: every row is compared with another in {metric.title} at {numbers} seeds, by the "
        "paired t test, and stops where its p-value is at or below what is needed at that look. Over all looks and all "
        "rows with one baseline, a false separation has a probability of at most 5 %. "
        + (f"Stopping early saved {counted(saved, 'seed')} of rows." if saved else "")
        + ("" if rows else "No look was made yet.")
    ).strip()
    return Table(
        name,
        name,
        f"Looks at {grid}",
        caption,
        ("Row",),
        COLUMNS,
        tuple(rows),
        selection=Selection.parse(rule["selection"]),
        group_head="Against",
    )


def _verdict(look: LookRow, rule: Mapping[str, Any]) -> str:
    if look.separated:
        saved = rule["most"] - look.seeds
        return f"separated, {counted(saved, 'seed')} saved" if saved else "separated"
    return "open after the last look" if look.seeds >= rule["most"] else "goes on"
