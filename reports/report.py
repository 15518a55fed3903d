"""A whole report: every table and figure that the grids ask for, in every format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from orchestrator.database import queries
from reports.columns import Column
from reports.errors import ReportError, unknown
from reports.layouts.cells import asked_layouts
from reports.layouts.interactions import losses, moments
from reports.layouts.other import generic
from reports.layouts.paper import asked, build
from reports.paper.contradictions import contradiction_table, contradictions
from reports.paper.published import compare, ledger
from reports.render import plain
from reports.render.latex import latex
from reports.results import GridInfo, Results, grid_reports, load
from reports.table import Entry, Row, Table

if TYPE_CHECKING:
    from orchestrator.database import Database
    from reports.figures.drawing import Drawing

FORMATS = ("md", "tex", "html", "csv", "json")
# In a report's folder: the names of all files that reports have written there.
CONTENTS = ".orchestrate-report"
Named = TypeVar("Named", "Table", "Drawing")
_STATES = ("done", "running", "pending", "failed", "diverged")


class Gathered(NamedTuple):
    """What a report consists of, before it is rendered; `results` are those behind the first table."""

    results: Results
    tables: list[Table]

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
) -> list[Path]:
    """Write a file per table and format (table1.md, table1.tex, ...), report.html, and the figures; return the paths.

    `formats` are among `FORMATS`, all of them when None; figures (PDF, SVG, PNG) come with md, tex and html.
    `selection` replaces what the grids say. `vs_paper` adds the comparison with the published values.

    Raises ReportError for an unknown format, grid or rule, for grids that disagree about a table's rule, and for a
    folder that cannot be written.
    """
    chosen = list(FORMATS) if formats is None else list(dict.fromkeys(formats))
    for each in chosen:
        if each not in FORMATS:
            raise ReportError(f"unknown format {each!r}; allowed: {', '.join(FORMATS)}")
    draws = bool({"md", "tex", "html"}.intersection(chosen))
    if draws:
        # matplotlib takes a second to load, which the database can use: it works outside of Python's lock.
        Thread(target=import_module, args=("reports.figures.figure2",)).start()
    gathered = gather(database, grids=grids, selection=selection, vs_paper=vs_paper)
    drawings = _drawings(database, gathered.results) if draws else []
    try:
        out.mkdir(parents=True, exist_ok=True)
        written = _write(gathered, drawings, out, chosen, grids)
        names = "".join(f"{path.name}\n" for path in sorted({*written, *_contents(out)}))
        (out / CONTENTS).write_text(f"# Files that `orchestrate report` wrote here\n{names}", encoding="utf-8")
        return written
    except OSError as error:
        raise ReportError(f"cannot write to {out}: {error.strerror or error}; choose another folder") from error


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
    database: Database, *, grids: Sequence[str] | None = None, selection: str | None = None, vs_paper: bool = False
) -> Gathered:
    """Every table of a report; names are unique, a second setting's has the setting in its name."""
    reports = grid_reports(database, grids)
    rules: dict[str, str] = {}
    said_by: dict[str, str] = {}
    for name, report in reports.items():
        rule = _rule(report, selection)
        for layout in asked([GridInfo(name, report, {})]):
            if rules.setdefault(layout, rule) != rule:
                raise ReportError(
                    f"grids {said_by[layout]} ({rules[layout]}) and {name} ({rule}) select differently, and one table "
                    f"({layout}) must not mix rules; give --selection, or one --grid at a time"
                )
            said_by.setdefault(layout, name)
    by_rule: dict[str, list[str]] = {}
    for layout, rule in rules.items():
        by_rule.setdefault(rule, []).append(layout)
    loaded = {rule: load(database, grids, rule) for rule in by_rule or {selection or "best_test": []}}
    first = next(iter(loaded.values()))
    built = [table for rule, layouts in by_rule.items() for table in build(loaded[rule], layouts)]
    built = [table for table in built if table.rows or table.layout != "interactions"]
    shown = {key for table in built for key in _trials(table)}
    built += [
        table
        for grid in first.grids
        if asked_layouts(grid)
        if (table := generic(loaded[_rule(grid.report, selection)], grid, shown)).rows
    ]
    with database.reading() as connection:
        terms = {(row.trial_id, row.epoch): row.losses for row in queries.losses(connection, moments(first))}
    built += losses(first, terms)
    if vs_paper:
        built += [compared for table in built if (compared := compare(table)) is not None]
        built.append(contradiction_table(contradictions(ledger())))
    return Gathered(first, _uniquely_named([overview(first), *built]))


def _rule(report: Mapping[str, Any], selection: str | None) -> str:
    return selection or report.get("selection") or "best_test"


def _trials(table: Table) -> set[str]:
    """Return the keys of the trials whose place a table has, with or without a number."""
    entries = [each for row in table.rows for each in row.entries]
    with_number = {sample.key for each in entries for sample in each.samples}
    return with_number | {key for each in entries for key, _, _ in each.absent}


def overview(results: Results) -> Table:
    """Return the progress of every grid."""
    columns = [Column("trials", "Trials", digits=0), *(Column(state, state.title(), digits=0) for state in _STATES)]
    rows = []
    for grid in results.grids:
        counts = [sum(grid.states.values()), *(grid.states.get(state, 0) for state in _STATES)]
        entries = tuple(Entry("done", float(count), text=f"{count:,}" if count else "0") for count in counts)
        rows.append(Row("", grid.name, (grid.name,), entries))
    caption = "Trials of each grid by state." if rows else "No grid has been run into this database yet."
    return Table("overview", "overview", "Progress", caption, ("Grid",), tuple(columns), tuple(rows))


def _uniquely_named(several: Iterable[Named]) -> list[Named]:
    """Tables or figures, a number behind names that are taken: those of grids may look alike in a file name."""
    taken: set[str] = set()
    named = []
    for each in several:
        name, number = each.name, 2
        while name in taken:
            name, number = f"{each.name}-{number}", number + 1
        taken.add(name)
        named.append(replace(each, name=name))
    return named


def _drawings(database: Database, results: Results) -> list[Drawing]:
    """Draw the figures that the grids ask for, and training curves of trials that have begun."""
    if not any(trial.last_epoch is not None or trial.epoch for cell in results.cells for trial in cell.trials):
        return []
    from reports.figures.curves import curves, shown_trials, stride
    from reports.figures.figure2 import figure2

    drawings = figure2(results) if any(2 in (grid.report.get("figures") or ()) for grid in results.grids) else []
    with database.reading() as connection:
        shown = shown_trials(results)
        rows = [(trial, epoch, error) for trial, epoch, error in queries.curves(connection, shown, stride(shown))]
    return _uniquely_named(drawings + curves(results, rows))


def _write(
    gathered: Gathered, drawings: Sequence[Drawing], out: Path, formats: Sequence[str], grids: Sequence[str] | None
) -> list[Path]:
    written: list[Path] = []

    def write(name: str, text: str) -> None:
        path = out / name
        path.write_text(text, encoding="utf-8", newline="\n")
        written.append(path)

    for table in gathered.tables:
        for each in formats:
            if each == "md":
                write(f"{table.name}.md", plain.markdown(table))
            elif each == "tex":
                write(f"{table.name}.tex", latex(table, grids))
            elif each == "csv":
                write(f"{table.name}.csv", plain.csv(table))
            elif each == "json":
                write(f"{table.name}.json", plain.json(table))
    for drawing in drawings:
        written += drawing.save(out)
    if "html" in formats:
        from reports.render.html import html

        write("report.html", html(gathered.tables, drawings, *_headline(gathered.results)))
    return written


def _headline(results: Results) -> tuple[str, str]:
    names = [grid.name for grid in results.grids]
    trials = [trial for cell in results.cells for trial in cell.trials]
    done = sum(trial.state == "done" for trial in trials)
    title = f"Results: {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}" if names else "Results"
    return title, f"{done:,} of {len(trials):,} trials done. Hover over a number for the trials behind it."
