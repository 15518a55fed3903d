"""Read the tables that ship, the files beside this one, and find which tables the grids of a report ask for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from orchestrator.records import DEFAULT, TUNED, TUNING
from orchestrator.tables.addresses import slug
from orchestrator.tables.parsing import parse_table
from orchestrator.tables.references import with_values
from orchestrator.tables.schema import ColumnSpec, GroupSpec, TableSpec, shipped_names
from reports.columns import own_columns
from reports.declarations import Asked, collected, read_shipped
from reports.errors import ReportError
from reports.layouts.cells import varying
from reports.results import Cell, GridInfo

SHIPPED = shipped_names("table")
_FOLDER = Path(__file__).parent


@cache
def shipped(name: str) -> TableSpec:
    """Return a table that ships, by its name."""
    table, problems = parse_table(shipped_yaml(name))
    if table is None:
        raise ReportError(f"{name}.yaml: {problems}")
    return table


def shipped_yaml(name: str) -> Mapping[str, Any]:
    """Return the declaration of a table that ships, in JSON's types."""
    return read_shipped(_FOLDER / f"{name}.yaml")


def layout_name(name: int | str) -> str:
    """Return the name of a shipped table by its number or name; raises ReportError for an unknown one."""
    layout = f"table{name}" if str(name).isdigit() else str(name)
    if layout not in SHIPPED:
        allowed = sorted(set(SHIPPED) - {f"table{number}" for number in (1, 2, 3, 4)})
        raise ReportError(f"unknown table {str(name)!r}; allowed: 1, 2, 3, 4, {', '.join(allowed)}")
    return layout


def declared(written: Mapping[str, Any]) -> TableSpec:
    """Return a declared table as a database or a program has it; raises ReportError with all its problems."""
    name = written.get("name", "without a name")
    # Of a database's tables the values of references were read with the grid file.
    whole, unread = with_values(written, Path())
    if unread:
        raise ReportError("\n".join(f"table {name}: {problem}" for problem in unread))
    table, problems = parse_table(whole, metrics=own_columns())
    if table is None:
        raise ReportError("\n".join(f"table {name}: {'.'.join(path)}: {what}" for path, what in problems))
    return table


def asked_layouts(grid: GridInfo) -> list[str]:
    """Return the names of the shipped tables that a grid asks for."""
    return [layout_name(name) for name in grid.report.get("tables") or () if not isinstance(name, Mapping)]


def asked(grids: Iterable[GridInfo], more: Sequence[Mapping[str, Any]] = ()) -> dict[str, Asked[TableSpec | None]]:
    """Return the tables that grids ask for, by name: those that ship, those that grids declare, and `more` for all.

    A grid that asks for none is asked for its own table, by the name grid:NAME. Raises ReportError for grids that
    declare different tables of one name.
    """
    grids = list(grids)
    asking = {name: tuple(grid.name for grid in grids if name in asked_layouts(grid)) for name in SHIPPED}
    ships = {name: Asked(shipped(name), names, shipped_yaml(name)) for name, names in asking.items() if names}
    own = {f"grid:{grid.name}": Asked(None, (grid.name,)) for grid in grids if not grid.report.get("tables")}
    return {**ships, **collected("table", grids, _declarations, declared, more), **own}


def _declarations(grid: GridInfo) -> list[Mapping[str, Any]]:
    """Return the tables that a grid declares, as its file has them."""
    return [written for written in grid.report.get("tables") or () if isinstance(written, Mapping)]


def own_name(grid: str) -> str:
    """Return the name of a grid's own table."""
    return f"grid-{slug(grid)}"


def _own_metrics(cells: Sequence[Cell]) -> list[str]:
    """Return the users' own metrics that trials of the cells have measured."""
    measured = {
        name for cell in cells for trial in cell.done for each in trial.measurements.values() for name in each.metrics
    }
    return [name for name in own_columns() if name in measured]


def own_table(grid: GridInfo, cells: Sequence[Cell], part: str = "") -> TableSpec:
    """Return the table of a grid that declares none: a row per cell, a column per field that varies in the grid."""
    axes = [name for name in grid.report.get("axes") or () if name not in ("network", "methods", "seed")]
    fields = dict.fromkeys(["methods", *axes, *varying(cells)])
    columns = ["top1", "top5", "nll", "ece", "aurc", *_own_metrics(cells), "train_time", "epoch_time"]
    specs = [ColumnSpec(metric=name) for name in columns]
    if any(network for cell in cells for trial in cell.done for network, _ in trial.measurements):
        specs.insert(1, ColumnSpec(metric="top1", key="net2_top1", title="Net 2 top-1 error", network=1))
    order = {}
    if TUNING in fields and (tune := grid.report.get("tune")):
        order = {TUNING: (DEFAULT, TUNED)}
        gain = ColumnSpec(metric=tune["metric"], key="gain", title="Against default", minus={TUNING: DEFAULT})
        specs.insert([spec.metric for spec in specs].index(tune["metric"]) + 1, gain)
    return TableSpec(
        name=own_name(grid.name),
        title=f"Grid {grid.name}{part}",
        groups=GroupSpec(fields=("network",)),
        rows=tuple(fields),
        columns=tuple(specs),
        order=order,
        notes="full",
    )
