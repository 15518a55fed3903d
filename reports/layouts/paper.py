"""The tables by name: the papers' layouts, formed from whichever cells of the results match their rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from reports import titles
from reports.columns import ABOUT_EPOCH, ABOUT_TRAINING, EPOCH, QUALITY, TOP1, TOP5, TRAINING, Column
from reports.errors import ReportError
from reports.layouts.assemble import Line, assemble
from reports.layouts.cells import Slice, asked_layouts, slices, whole
from reports.layouts.interactions import interactions
from reports.layouts.other import dcm, fidelity, generic, ood
from reports.results import Cell, GridInfo, Results
from reports.table import Table

# What a grid that names no table is given: its own.
GRID = "grid:"
ALL_THREE = ("pskd", "byot", "dmfl")
ABLATION = [(), ("byot",), ("dmfl",), ("pskd",), ("pskd", "byot"), ("pskd", "dmfl"), ("dmfl", "byot"), ALL_THREE]
SELF_DISTILLATION = [(), ("label_smoothing",), ("cskd",), ("tfkd",), ("pskd",)]


def build(results: Results, which: Iterable[int | str] | None = None) -> list[Table]:
    """Build the named tables (1 to 4, a name, or grid:NAME), or those that the grids ask for; one per setting.

    Raises ReportError for an unknown name.
    """
    built = []
    for name in asked(results.grids) if which is None else which:
        if str(name).startswith(GRID):
            built += [generic(results, grid) for grid in results.grids if f"{GRID}{grid.name}" == name]
        else:
            built += LAYOUTS[layout_name(name)](results)
    return built


def asked(grids: Iterable[GridInfo]) -> list[str]:
    """Build the tables that grids ask for; a grid that asks for none gets its own, the ablation one of interactions."""
    grids = list(grids)
    names = dict.fromkeys(layout_name(name) for grid in grids for name in asked_layouts(grid))
    if not names.keys().isdisjoint(("table1", "tinyimagenet")):
        names.setdefault("interactions")
    ordered = sorted(names, key=list(LAYOUTS).index)
    return [*ordered, *(f"{GRID}{grid.name}" for grid in grids if not asked_layouts(grid))]


def layout_name(name: int | str) -> str:
    """Return the name of a table by its number or name; raises ReportError for an unknown one."""
    found = f"table{name}" if str(name).isdigit() else str(name)
    if found not in LAYOUTS:
        raise ReportError(f"unknown table {str(name)!r}; allowed: 1, 2, 3, 4, {', '.join(sorted(LAYOUTS))}")
    return found


def of_methods(
    results: Results, layout: str, rows: Sequence[Sequence[str]], asking: Iterable[str] | None = None
) -> list[Slice]:
    """Return the slices of a layout whose rows are combinations of methods."""
    sets = [set(methods) for methods in rows]
    return slices(results, layout, lambda cell: set(cell.methods) in sets and whole(cell), asking=asking)


def _by_methods(
    layout: str, title: str, rows: Sequence[Sequence[str]], columns: Sequence[Column], about: Sequence[str] = ()
) -> Callable[[Results], list[Table]]:
    """Build a layout whose rows are combinations of methods within networks."""

    def tables(results: Results) -> list[Table]:
        built = []
        for part in of_methods(results, layout, rows):
            cells = [(network, methods, part.find(network, methods)) for network in part.networks for methods in rows]
            lines = [_line(part, network, methods, cell) for network, methods, cell in cells]
            built.append(assemble(part, layout, title, columns, lines, selection=results.selection, about=about))
        return built

    return tables


def _line(part: Slice, network: str, methods: Sequence[str], cell: Cell | None, note: str = "") -> Line:
    given = {name: each for name, each in cell.methods.items() if each} if cell else {}
    deviation = f"with {titles.methods(given)}" if given else ""
    plain = titles.plain(methods)
    key = f"{network}/{titles.methods_key(plain)}"
    return Line(part.group(network), key, (titles.methods(plain),), cell, note=note, deviation=deviation)


def _table2(results: Results) -> list[Table]:
    naming = (
        "Classifier k/N stands behind the k-th of N backbone stages. The paper heads its columns 3/4 and 1/4 the other "
        "way round: its code prints the shallowest classifier first."
    )
    tables = []
    for part in of_methods(results, "table2", [(), ALL_THREE]):
        heads = max((part.heads(network) for network in part.networks), default=3)
        places = {"main": f"{heads + 1}/{heads + 1}"}
        places |= {f"head{depth}": f"{depth}/{heads + 1}" for depth in range(heads, 0, -1)}
        places |= {"ensemble": "Ensemble"}
        columns = [Column(key, title, "%", f"{key}/accuracy", "higher") for key, title in places.items()]
        lines = []
        for network in part.networks:
            idle = part.find(network, (), lambda cell: cell.config.get("heads") != "none" and whole(cell))
            baseline = idle or part.find(network, ())
            note = "its heads are not trained" if idle else "no heads were built" if baseline else ""
            lines.append(_line(part, network, (), baseline, note))
            lines.append(_line(part, network, ALL_THREE, part.find(network, ALL_THREE)))
        about = ("Top-1 accuracy of each classifier and of the ensemble, the mean of their softmax.", naming)
        title = "Accuracy of every classifier"
        tables.append(assemble(part, "table2", title, columns, lines, selection=results.selection, about=about))
    return tables


def _only_blocks_chosen(cell: Cell) -> bool:
    """Return whether a cell has all three methods, with no hyperparameter but BYOT's blocks."""
    given = cell.methods
    return set(given) == set(ALL_THREE) and not given["pskd"] and not given["dmfl"] and set(given["byot"]) <= {"blocks"}


def _has_byot(hyperparameters: dict[str, Any], cell: Cell) -> bool:
    return cell.methods["byot"] == hyperparameters


def _stages(cell: Cell) -> int:
    return cell.config.get("stages") or 4


def _has_stages(number: int, cell: Cell) -> bool:
    return _stages(cell) == number


def _table3(results: Results) -> list[Table]:
    tables = []
    for part in slices(results, "table3", lambda cell: _only_blocks_chosen(cell) and whole(cell)):
        lines = []
        for network in part.networks:
            heads = part.heads(network)
            for first in range(1, heads + 1):
                blocks = list(range(first, heads + 1))
                wanted = {} if first == 1 else {"blocks": blocks}
                cell = part.find(network, ALL_THREE, partial(_has_byot, wanted))
                key = f"{network}/blocks{'-'.join(map(str, blocks))}"
                lines.append(Line(part.group(network), key, ("yes", "yes", ", ".join(map(str, blocks))), cell))
        tables.append(
            assemble(
                part,
                "table3",
                "Blocks that BYOT teaches",
                (TOP1, TOP5, TRAINING),
                lines,
                selection=results.selection,
                stub=("PS-KD", "DMFL", "BYOT loss blocks"),
                about=("Block k is the head behind the k-th backbone stage.", ABOUT_TRAINING),
            )
        )
    return tables


def _table4(results: Results) -> list[Table]:
    def accept(cell: Cell) -> bool:
        if not _only_blocks_chosen(cell):
            return False
        blocks = cell.methods["byot"].get("blocks")
        return blocks == [_stages(cell) - 1] if blocks else _stages(cell) == 2

    tables = []
    for part in slices(results, "table4", accept):
        lines = []
        for network in part.networks:
            stages = {_stages(cell) for cell in part.cells if cell.network == network}
            for number in sorted(stages | {4, 3, 2}, reverse=True):
                cell = part.find(network, ALL_THREE, partial(_has_stages, number))
                lines.append(Line(titles.network(network), f"{network}/stages{number}", (str(number),), cell))
        ending = "The network ends after block N; BYOT teaches the deepest head alone, that of block N - 1."
        tables.append(
            assemble(
                part,
                "table4",
                "Backbone blocks, with PS-KD, BYOT and DMFL",
                (TOP1, TOP5, TRAINING),
                lines,
                selection=results.selection,
                stub=("Backbone blocks N",),
                about=(ending, ABOUT_TRAINING),
            )
        )
    return tables


_FULL = (*QUALITY, TRAINING, EPOCH)
_TIMES = (ABOUT_TRAINING, ABOUT_EPOCH)

LAYOUTS: dict[str, Callable[[Results], list[Table]]] = {
    "table1": _by_methods("table1", "PS-KD, BYOT and DMFL", ABLATION, _FULL, _TIMES),
    "table2": _table2,
    "table3": _table3,
    "table4": _table4,
    "tinyimagenet": _by_methods("tinyimagenet", "PS-KD, BYOT and DMFL", ABLATION, _FULL, _TIMES),
    "pskd": _by_methods("pskd", "Self-knowledge distillation", SELF_DISTILLATION, QUALITY),
    "dcm": dcm,
    "ood": ood,
    "fidelity": fidelity,
    "interactions": interactions,
}
