"""Tables beyond the main paper's four: pairs, out-of-distribution, two readings of DMFL, interactions, any grid."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from reports import titles
from reports.columns import EPOCH, QUALITY, TOP1, TRAINING, Column
from reports.layouts.assemble import Line, assemble
from reports.layouts.cells import VARIES, Slice, by_paper, slices, varying, whole
from reports.results import Cell, GridInfo, Results
from reports.table import Table

MUTUAL = [(), ("dml",), ("dcm",)]


def dcm(results: Results) -> list[Table]:
    """DCM's pairs; a pair's baseline is each of its networks trained alone."""
    columns = (
        replace(TOP1, key="net1", title="Net 1 top-1 error"),
        replace(TOP1, key="net2", title="Net 2 top-1 error", quantity="1:main/top1_error"),
    )
    sets = [set(methods) for methods in MUTUAL]
    tables = []
    for part in slices(results, "dcm", lambda cell: set(cell.methods) in sets and whole(cell)):
        together = {(*_pair(cell), *cell.methods): cell for cell in reversed(part.cells) if cell.methods}
        lines = []
        for first, second in dict.fromkeys(_pair(cell) for cell in part.cells if cell.methods):
            for methods in MUTUAL:
                alone = {"net1": (part.find(first, ()), TOP1.quantity), "net2": (part.find(second, ()), TOP1.quantity)}
                plain = titles.plain(methods)
                lines.append(
                    Line(
                        f"{titles.network(first)} + {titles.network(second)}",
                        f"{first}+{second}/{titles.methods_key(plain)}",
                        (titles.methods(plain),),
                        together.get((first, second, *methods)),
                        {} if methods else alone,
                    )
                )
        about = ("Two networks that teach each other; the baseline is each of them trained alone.",)
        tables.append(
            assemble(
                part,
                "dcm",
                "Mutual learning",
                columns,
                lines,
                selection=results.selection,
                group_head="Networks",
                about=about,
            )
        )
    return tables


def _pair(cell: Cell) -> tuple[str, str]:
    return cell.network, cell.config.get("peer") or cell.network


def ood(results: Results) -> list[Table]:
    """Build the table of the detection of images from another data set."""
    columns = (Column("auroc", "AUROC", "%", "main/ood_auroc", "higher"), TOP1)
    varies = VARIES | {"dataset", "ood_dataset"}
    tables = []
    for part in slices(results, "ood", lambda cell: bool(cell.config.get("ood_dataset")), varies=varies):
        cells = [cell for network in part.networks for cell in part.cells if cell.network == network]
        lines = []
        for cell in sorted(cells, key=lambda cell: (cell.config["dataset"], cell.config["ood_dataset"])):
            inside, outside = cell.config["dataset"], cell.config["ood_dataset"]
            group = f"{titles.dataset(inside)} in, {titles.dataset(outside)} out"
            labels = (titles.network(cell.network), titles.methods(cell.methods))
            key = f"{inside}-{outside}/{cell.network}/{titles.methods_key(cell.methods)}"
            lines.append(Line(group, key, labels, cell))
        tables.append(
            assemble(
                part,
                "ood",
                "Out-of-distribution detection",
                columns,
                lines,
                selection=results.selection,
                stub=("Network", "Method"),
                group_head="Data sets",
                about=("AUROC of the top softmax probability.",),
            )
        )
    return tables


def _has_methods(methods: Mapping[str, Any], cell: Cell) -> bool:
    return cell.methods == methods


def fidelity(results: Results) -> list[Table]:
    """DMFL as the paper's equation has it and as its code was released, whose term has no gradient."""
    released = {"variant": "released"}
    allowed = {"dmfl": ({}, released), "pskd": ({},), "byot": ({},)}

    def accept(cell: Cell) -> bool:
        return whole(cell) and all(given in allowed.get(name, ()) for name, given in cell.methods.items())

    tables = []
    for part in slices(results, "fidelity", accept):
        lines = []
        for network in part.networks:
            for others in ((), ("pskd",), ("byot",), ("pskd", "byot")):
                plain = titles.plain(others)
                variants = [
                    ("without", "without DMFL", plain),
                    ("released", "DMFL as released", plain | {"dmfl": released}),
                    ("equation", "DMFL as in equation 3", plain | {"dmfl": {}}),
                ]
                cells = [part.find(network, wanted, partial(_has_methods, wanted)) for _, _, wanted in variants]
                if cells[1]:
                    group = titles.network(network) + (f" with {titles.methods(plain)}" if others else "")
                    place = f"{network}/{titles.methods_key(plain)}"
                    lines += [
                        Line(group, f"{place}/{key}", (label,), cell)
                        for (key, label, _), cell in zip(variants, cells, strict=True)
                    ]
        tables.append(
            assemble(
                part,
                "fidelity",
                "Two readings of DMFL",
                (*QUALITY, EPOCH),
                lines,
                selection=results.selection,
                about=("The released term has no gradient: it should train as without it.",),
            )
        )
    return tables


def generic(results: Results, grid: GridInfo, shown: Collection[str] = ()) -> Table:
    """Build a grid's own table: a row per cell, named by varying fields, without the trials already `shown`."""
    mine = [cell for cell in results.cells if grid.name in cell.grids]
    cells = [cell for cell in mine if not any(trial.key in shown for trial in cell.trials)]
    differing = varying(cells)
    config = cells[0].config if cells else {}
    fixed = {name: each for name, each in config.items() if name not in (*VARIES, *differing)}
    part = Slice(f"grid-{titles.slug(grid.name)}", fixed, cells=tuple(cells))
    columns = [*QUALITY, TRAINING, EPOCH]
    if any(network for cell in cells for trial in cell.done for network, _ in trial.measurements):
        columns.insert(1, replace(TOP1, key="net2_top1", title="Net 2 top-1 error", quantity="1:main/top1_error"))
    lines = []
    for network in by_paper(dict.fromkeys(cell.network for cell in cells)):
        for cell in cells:
            if cell.network == network:
                others = [(name, cell.config.get(name)) for name in differing]
                key = "/".join(
                    [network, titles.methods_key(cell.methods)]
                    + [f"{name}-{titles.slug(titles.value(each))}" for name, each in others]
                )
                labels = (titles.methods(cell.methods), *(titles.value(each) for _, each in others))
                lines.append(Line(titles.network(network), key, labels, cell))
    return assemble(
        part,
        part.name,
        f"Grid {grid.name}" + (", what no other table shows" if len(cells) < len(mine) else ""),
        columns,
        lines,
        selection=results.selection,
        stub=("Method", *(name.replace("_", " ").capitalize() for name in differing)),
    )
