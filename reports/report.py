"""A whole report: every table and figure that the grids ask for, in every format."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from orchestrator.database import queries
from orchestrator.tables.schema import SOURCES, TableSpec
from reports.columns import Column
from reports.declarations import Asked
from reports.errors import ReportError, unknown
from reports.figures.declared import Plot, asked_figures, curves_of, missing_curves, plots
from reports.layouts.declared import build_declared
from reports.layouts.interactions import interactions, losses, moments
from reports.layouts.looks import looks_tables, with_seeds_by_rule
from reports.layouts.search import search_table
from reports.layouts.shipped import SHIPPED, asked, own_table, shipped, shipped_yaml
from reports.paper.contradictions import contradiction_table, contradictions
from reports.paper.published import compare, ledger, references
from reports.paper.template import template
from reports.render import plain
from reports.render.latex import latex
from reports.render.numbers import numbers
from reports.results import GridInfo, Results, grid_reports, load
from reports.table import Entry, Row, Table
from reports.tuning import searches

if TYPE_CHECKING:
    from orchestrator.database import Database
    from reports.figures.drawing import Drawing

FORMATS = ("md", "tex", "html", "csv", "json")
# Written where they are asked for.
MORE_FORMATS = ("parquet",)
# In a report's folder: the names of all files that reports have written there.
CONTENTS = ".orchestrate-report"
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


def write_report(
    database: Database,
    out: Path,
    *,
    formats: Iterable[str] | None = None,
    selection: str | None = None,
    vs_paper: bool = False,
    grids: Sequence[str] | None = None,
    tables: Sequence[Mapping[str, Any]] = (),
    figures: Sequence[Mapping[str, Any]] = (),
) -> list[Path]:
    """Write a file per table and format (table1.md, table1.tex, ...), report.html, and the figures; return the paths.

    `formats` are among `FORMATS` (all of them when None) and `MORE_FORMATS`; figures (PDF, SVG, PNG) come with md, tex
    and html. `selection` replaces what the grids say. `vs_paper` adds the comparison with the published values.
    `tables` and `figures` are declared ones over all the grids, beside those that the grids ask for.

    Raises ReportError for an unknown format, grid or rule, for grids that disagree about a table's rule, and for a
    folder that cannot be written.
    """
    chosen = list(FORMATS) if formats is None else list(dict.fromkeys(formats))
    for format_name in chosen:
        if format_name not in (*FORMATS, *MORE_FORMATS):
            raise ReportError(f"unknown format {format_name!r}; allowed: {', '.join((*FORMATS, *MORE_FORMATS))}")
    draws = bool({"md", "tex", "html"}.intersection(chosen))
    if draws:
        # matplotlib takes a second to load, which the database can use: it works outside of Python's lock.
        Thread(target=import_module, args=("reports.figures.rendering",)).start()
    gathered = gather(database, grids=grids, selection=selection, vs_paper=vs_paper, tables=tables)
    drawings = _drawings(database, gathered, grids, selection, figures) if draws else []
    page = _page(database, gathered, drawings) if "html" in chosen else None
    try:
        out.mkdir(parents=True, exist_ok=True)
        written = _write(gathered, drawings, page, out, chosen, grids)
        names = "".join(f"{path.name}\n" for path in sorted({*written, *_contents(out)}))
        (out / CONTENTS).write_text(f"# Files that `orchestrate report` wrote here\n{names}", encoding="utf-8")
        return written
    except OSError as error:
        raise ReportError(f"cannot write to {out}: {error.strerror or error}; choose another folder") from error


def write_template(
    database: Database,
    name: str,
    path: Path,
    *,
    grids: Sequence[str] | None = None,
    tables: Sequence[Mapping[str, Any]] = (),
) -> int:
    """Write the template of a file of published values for a table, run or not; return its number of cells.

    Raises ReportError for a table that the report has not, and for a file that is there or cannot be written.
    """
    table = gather(database, grids=grids, tables=tables, also=[name]).table(name)
    if not (table.declaration and table.rows) or table.declaration.get("rows") in SOURCES:
        raise ReportError(f"table {name} has no cells to compare; declare a table with rows and columns")
    text = template(table, path.name)
    try:
        with open(path, "x", encoding="utf-8", newline="") as file:
            file.write(text)
    except FileExistsError:
        raise ReportError(f"{path} is there already, and is not overwritten; give another name with --out") from None
    except OSError as error:
        raise ReportError(f"cannot write {path}: {error.strerror or error}") from error
    return text.partition("\nrow,column")[2].count("\n") - 1


def earlier_files(out: Path, written: Iterable[Path]) -> list[Path]:
    """Return the files in a report's folder that earlier reports wrote, but not the last one, which wrote `written`.

    Files of any other origin are never among them: reports keep a list of theirs.
    """
    return sorted(_contents(out).difference(written))


def _contents(out: Path) -> set[Path]:
    """Return the files that reports have written into a folder, as far as they still exist."""
    try:
        names = (out / CONTENTS).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return set()
    return {out / name for name in names if Path(name).name == name and (out / name).is_file()}


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
        built.append(contradiction_table(contradictions(ledger())))
    return Gathered(first, _uniquely_named([*build(first, shipped("overview")), *built]), loaded)


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


def _uniquely_named(several: Iterable[Named]) -> list[Named]:
    """Tables or figures, a number behind names that are taken: those of grids may look alike in a file name."""
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


def _drawings(
    database: Database, gathered: Gathered, grids: Sequence[str] | None, selection: str | None, figures: Any
) -> list[Drawing]:
    """Draw the figures that the grids ask for, and training curves of trials that have begun."""
    wanted = plotted(database, gathered, grids=grids, selection=selection, figures=figures)
    results = gathered.results
    if not any(trial.last_epoch is not None or trial.epoch for cell in results.cells for trial in cell.trials):
        return []
    from reports.figures import curves
    from reports.figures.rendering import rendered
    from reports.figures.search import best_so_far

    wanted += [plot for grid in results.grids for plot in curves_of(results, grid)]
    drawings = []
    for plot in wanted:
        rows = {}
        if plot.spec.kind == "clock":
            with database.reading() as connection:
                rows = curves.read(connection, plot)
        if (drawing := rendered(plot, rows)) is not None:
            drawings.append(drawing)
    searched = searches(database, [grid.name for grid in results.grids])
    drawings += [drawing for search in searched if (drawing := best_so_far(search)) is not None]
    return _uniquely_named(drawings)


def page_of(
    database: Database,
    *,
    grids: Sequence[str] | None = None,
    selection: str | None = None,
    tables: Sequence[Mapping[str, Any]] = (),
    draw: bool = False,
) -> dict[str, Any]:
    """Return what the page of a report shows, for `render_page`; pictures for readers without scripts with `draw`.

    Raises ReportError as `write_report` does.
    """
    gathered = gather(database, grids=grids, selection=selection, tables=tables)
    return _page(database, gathered, _drawings(database, gathered, grids, selection, ()) if draw else [])


def _page(database: Database, gathered: Gathered, drawings: Sequence[Drawing]) -> dict[str, Any]:
    from reports.page import page_data

    return page_data(database, gathered.results, gathered.tables, drawings)


def _write(
    gathered: Gathered,
    drawings: Sequence[Drawing],
    page: Mapping[str, Any] | None,
    out: Path,
    formats: Sequence[str],
    grids: Sequence[str] | None,
) -> list[Path]:
    written: list[Path] = []

    def write(name: str, text: str) -> None:
        path = out / name
        path.write_text(text, encoding="utf-8", newline="\n")
        written.append(path)

    for table in gathered.tables:
        for format_name in formats:
            if format_name == "md":
                write(f"{table.name}.md", plain.markdown(table))
            elif format_name == "tex":
                write(f"{table.name}.tex", latex(table, grids))
            elif format_name == "csv":
                write(f"{table.name}.csv", plain.csv(table))
            elif format_name == "json":
                write(f"{table.name}.json", plain.json(table))
            elif format_name == "parquet":
                path = out / f"{table.name}.parquet"
                plain.frame(table).to_parquet(path, index=False)
                written.append(path)
    if "tex" in formats:
        write("numbers.tex", numbers(gathered.tables, grids))
    for drawing in drawings:
        written += drawing.save(out)
    if page is not None:
        from reports.page import render_page

        write("report.html", render_page(page))
    return written
