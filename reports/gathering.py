"""Gather the tables and figures that grids ask for, as data, from the database."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from orchestrator.database import queries
from orchestrator.tables.schema import TableSpec
from reports.columns import Column
from reports.declarations import Asked
from reports.errors import ReportError, unknown
from reports.figures.declared import Plot, asked_figures, missing_curves, plots
from reports.layouts.declared import build_declared
from reports.layouts.interactions import interactions, losses, moments
from reports.layouts.looks import looks_tables, with_seeds_by_rule
from reports.layouts.search import search_table
from reports.layouts.shipped import SHIPPED, asked, own_table, shipped, shipped_yaml
from reports.loading import grid_reports, load
from reports.paper.published import compare, contradiction_table, references
from reports.results import GridInfo, Results
from reports.table import Entry, Row, Table
from reports.tuning import searches

if TYPE_CHECKING:
    from orchestrator.database import Database
    from reports.figures.drawing import Drawing

Named = TypeVar("Named", "Table", "Drawing")


class Gathered(NamedTuple):
    """Parts of a report before it is rendered; `results` are those behind the first table.

    `loaded` are the results by the rule that selects epochs.
    """

    results: Results
    tables: list[Table]
    loaded: dict[str, Results]

    def table(self, name: str) -> Table:
        """Return the table of this name; raises ReportError with the names that are near where there is none."""
        for table in self.tables:
            if table.name == name:
                return table
        raise unknown("table", name, (table.name for table in self.tables))


def gather(
    database: Database,
    *,
    grids: Sequence[str] | None = None,
    selection: str | None = None,
    vs_paper: bool = False,
    tables: Sequence[Mapping[str, Any]] = (),
    also: Iterable[str] = (),
) -> Gathered:
    """Return every table of a report; names are unique, a second setting's has the setting in its name.

    `tables` are declared ones beside those of the grids; `also` names shipped ones that no grid has to ask for.
    """
    reports = grid_reports(database, grids)
    infos = [GridInfo(name, report, {}) for name, report in reports.items()]
    wanted = asked(infos, tables)
    for name in also:
        layout = next((each for each in SHIPPED if f"{name}-".startswith(f"{each}-")), None)
        if layout is not None:
            wanted.setdefault(layout, Asked(shipped(layout), (), shipped_yaml(layout)))
    rules = {
        name: _one_rule(name, one.grids or tuple(reports), reports, selection)
        for name, one in wanted.items()
        # No epoch is selected for losses.
        if not (one.spec and one.spec.source == "losses")
    }
    loaded = {rule: load(database, grids, rule) for rule in dict.fromkeys(rules.values()) or [selection or "best_test"]}
    first = next(iter(loaded.values()))
    terms: dict[tuple[int, int], Mapping[str, Any]] = {}
    if any(one.spec and one.spec.source == "losses" for one in wanted.values()):
        with database.reading() as connection:
            terms = {(row.trial_id, row.epoch): row.losses for row in queries.losses(connection, moments(first))}
    built: list[Table] = []
    for name, one in wanted.items():
        results = loaded[rules[name]] if name in rules else first
        if one.spec is not None:
            made = build(results, one.spec, one.grids, terms)
            published = references(one.spec)
            built += [replace(table, declaration=one.written, reference=published) for table in made]
        else:
            built += [table for grid in results.grids if grid.name in one.grids for table in own(results, grid)]
    shown = {key for table in built for key in _trials(table)}
    for grid in first.grids:
        if grid.report.get("tables"):
            # A table that is asked for hides no trials: those it has no room for get one of their own.
            built += own(_load_once(loaded, database, grids, _rule(grid.report, selection)), grid, shown)
    looks = looks_tables(database, first)
    built = [*with_seeds_by_rule(built, first, looks), *looks]
    built += [search_table(search) for search in searches(database, grids)]
    if vs_paper:
        built += [compared for table in built if (compared := compare(table)) is not None]
        built.append(contradiction_table())
    return Gathered(first, uniquely_named([*build(first, shipped("overview")), *built]), loaded)


def _load_once(loaded: dict[str, Results], database: Database, grids: Sequence[str] | None, rule: str) -> Results:
    """Return the results under a rule, loaded before or now."""
    if rule not in loaded:
        loaded[rule] = load(database, grids, rule)
    return loaded[rule]


def _one_rule(name: str, asking: Sequence[str], reports: Mapping[str, Mapping[str, Any]], selection: str | None) -> str:
    """Return the rule of a table; raises ReportError where the grids that ask for it disagree."""
    rules = {grid: _rule(reports[grid], selection) for grid in asking}
    first = next(iter(asking), None)
    for grid, rule in rules.items():
        if first is not None and rule != rules[first]:
            raise ReportError(
                f"grids {first} ({rules[first]}) and {grid} ({rule}) select differently, and one table ({name}) must "
                "not mix rules; give --selection, or one --grid at a time"
            )
    return rules[first] if first is not None else selection or "best_test"


def build(
    results: Results,
    table: TableSpec,
    asking: Iterable[str] = (),
    terms: Mapping[tuple[int, int], Mapping[str, Any]] | None = None,
) -> list[Table]:
    """Build the tables of one declaration: several where it gives one per setting. `terms` are losses by epoch."""
    if table.source == "interactions":
        return interactions(results, table, asking)
    if table.source == "losses":
        return losses(results, table, terms or {}, asking)
    if table.source == "grids":
        return [progress(results, table)]
    return build_declared(results, table, asking)


def own(results: Results, grid: GridInfo, shown: Collection[str] = ()) -> list[Table]:
    """Build a grid's own table of the trials that are not `shown` elsewhere; none where all of them are."""
    trained = [cell for cell in results.cells if grid.name in cell.grids]
    cells = [cell for cell in trained if not any(trial.key in shown for trial in cell.trials)]
    if not cells and trained:
        return []
    part = ", what no other table shows" if len(cells) < len(trained) else ""
    return build_declared(replace(results, cells=tuple(cells)), own_table(grid, cells, part), [grid.name])


def _rule(report: Mapping[str, Any], selection: str | None) -> str:
    return selection or report.get("selection") or "best_test"


def _trials(table: Table) -> set[str]:
    """Return the keys of the trials whose place a table has, with or without a number."""
    entries = [each for row in table.rows for each in row.entries]
    with_number = {sample.key for each in entries for sample in each.samples}
    return with_number | {key for each in entries for key, _, _ in each.absent}


def progress(results: Results, table: TableSpec) -> Table:
    """Build a table of the grids, with their trials counted by state."""
    columns = [Column(spec.name, spec.title or spec.metric.title(), digits=0) for spec in table.columns]
    rows = []
    for grid in results.grids:
        counts = {"trials": sum(grid.states.values()), **grid.states}
        numbers = [counts.get(spec.metric, 0) for spec in table.columns]
        entries = tuple(Entry("done", float(count), text=f"{count:,}") for count in numbers)
        rows.append(Row("", grid.name, (grid.name,), entries))
    caption = "Trials of each grid by state." if rows else "No grid has been run into this database yet."
    caption = " ".join([caption, *filter(None, (missing_curves(results, grid) for grid in results.grids))])
    return Table(table.name, table.name, table.title, caption, table.stub or ("Grid",), tuple(columns), tuple(rows))


def uniquely_named(several: Iterable[Named]) -> list[Named]:
    """Return tables or figures with a number behind names that are taken: those of grids may look alike."""
    taken: set[str] = set()
    named = []
    for table in several:
        name, number = table.name, 2
        while name in taken:
            name, number = f"{table.name}-{number}", number + 1
        taken.add(name)
        named.append(replace(table, name=name))
    return named


def plotted(
    database: Database,
    gathered: Gathered,
    *,
    grids: Sequence[str] | None = None,
    selection: str | None = None,
    figures: Sequence[Mapping[str, Any]] = (),
) -> list[Plot]:
    """Return the figures that grids ask for, and the `figures` declared over all of them, as data.

    Raises ReportError for a figure that the results leave open, and for grids that disagree about its rule.
    """
    reports = {grid.name: grid.report for grid in gathered.results.grids}
    plotted: list[Plot] = []
    for name, one in asked_figures(gathered.results.grids, figures).items():
        rule = selection or one.spec.selection or _one_rule(name, one.grids, reports, None)
        results = _load_once(gathered.loaded, database, grids, rule)
        plotted += plots(results, one.spec, one.grids)
    return plotted
