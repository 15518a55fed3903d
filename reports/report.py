"""Write a whole report: every table and figure that the grids ask for, in every format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from orchestrator.tables.schema import SOURCES
from reports.errors import ReportError
from reports.figures.declared import curves_of
from reports.gathering import Gathered, gather, plotted, uniquely_named
from reports.paper.template import template
from reports.render import plain
from reports.render.latex import latex
from reports.render.numbers import numbers
from reports.tuning import searches

if TYPE_CHECKING:
    from orchestrator.database import Database
    from reports.figures.drawing import Drawing

FORMATS = ("md", "tex", "html", "csv", "json")
# Written where they are asked for.
MORE_FORMATS = ("parquet",)
# In a report's folder: the names of all files that reports have written there.
CONTENTS = ".orchestrate-report"


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
    return uniquely_named(drawings)


def page_of(database: Database, *, grids: Sequence[str] | None = None) -> dict[str, Any]:
    """Return what the page of a report shows, for `render_page`, without pictures for readers without scripts.

    Raises ReportError as `write_report` does.
    """
    return _page(database, gather(database, grids=grids), [])


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
