"""Choose the cells of one table: one setting, the networks that were asked for, and the methods of its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.tables.addresses import slug
from reports import titles
from reports.results import Cell, Results

# What may differ between the rows of one table; everything else is its setting.
VARIES = frozenset({"network", "peer", "methods", "heads", "stages"})


@dataclass(frozen=True)
class Slice:
    """The cells of one table. `fixed` is its setting, `networks` and `grids` those of the grids that ask for it.

    A second setting's name has that of its first grid.
    """

    name: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    networks: tuple[str, ...] = ()
    grids: frozenset[str] = frozenset()
    cells: tuple[Cell, ...] = ()

    def find(self, network: str, methods: Iterable[str], accept: Callable[[Cell], bool] | None = None) -> Cell | None:
        """Return the cell of a network alone with exactly these methods; whole and plain unless `accept` allows more.

        Without `accept`, other hyperparameters than the defaults count only where a grid that asks for the table
        leaves no choice. Of cells that remain, one without idle heads comes first.
        """
        wanted = set(methods)
        fitting = [
            cell
            for cell in self.cells
            if cell.network == network
            and set(cell.methods) == wanted
            and cell.config.get("peer") is None
            and (accept(cell) if accept else whole(cell))
        ]
        if accept is None:
            plain = [cell for cell in fitting if not any(cell.methods.values())]
            asked = [cell for cell in fitting if self.grids.intersection(cell.grids)]
            fitting = plain or (asked if len({repr(cell.methods) for cell in asked}) == 1 else [])
        return min(fitting, key=lambda cell: cell.config.get("heads") != "none", default=None)

    def group(self, network: str, name: str | None = None) -> str:
        """Return a network's heading, by its title or another `name`, with the parameters that were counted."""
        counts: dict[bool, int] = {}
        for cell in self.cells:
            if cell.network == network and whole(cell) and set(cell.methods).isdisjoint(("dml", "dcm")):
                for trial in cell.trials:
                    if trial.parameters:
                        counts[cell.config.get("heads") != "none"] = trial.parameters
        parts = [f"{titles.count(counts[False])} parameters"] if False in counts else []
        parts += [f"{titles.count(counts[True])}{'' if parts else ' parameters'} with heads"] if True in counts else []
        return (name or titles.network(network)) + (f" ({', '.join(parts)})" if parts else "")

    def heads(self, network: str) -> int:
        """Return how many heads the whole network carries, by its evaluations or BYOT's blocks; 3 without either."""
        cells = [cell for cell in self.cells if cell.network == network and whole(cell)]
        measured = {
            classifier
            for cell in cells
            for trial in cell.done
            for _, classifier in trial.measurements
            if classifier.startswith("head")
        }
        named = [block for cell in cells for block in cell.methods.get("byot", {}).get("blocks", ())]
        return len(measured) or max([*named, 3])

    @property
    def about(self) -> str:
        """Return the setting, as a caption begins."""
        return titles.setting(self.fixed) + "." if self.cells else "No trial of the chosen grids fits this table."


def whole(cell: Cell) -> bool:
    """Return whether the network has all its stages."""
    return cell.config.get("stages") is None


def distinctions(cells: Sequence[Cell], fields: Iterable[str]) -> list[str]:
    """Return the fields that tell cells of one network and one combination of methods apart."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(repr((cell.network, sorted(cell.methods.items()))), []).append(cell)
    return [
        name
        for name in fields
        if any(len({repr(cell.config.get(name)) for cell in group}) > 1 for group in groups.values())
    ]


def varying(cells: Sequence[Cell]) -> list[str]:
    """Return fields besides network and methods that differ between cells; heads only if methods leave them open."""
    names = [name for name in (cells[0].config if cells else ()) if name not in ("network", "methods", "heads")]
    differing = [name for name in names if len({repr(cell.config.get(name)) for cell in cells}) > 1]
    return differing + distinctions(cells, ("heads",))


def slices(
    results: Results,
    layout: str,
    accept: Callable[[Cell], bool],
    *,
    varies: frozenset[str] = VARIES,
    asking: Iterable[str] = (),
    order: Sequence[str] = (),
) -> list[Slice]:
    """Return the cells that a layout accepts, by setting; the papers' setting first, then in the grids' order.

    Settings and networks are those of the grids that ask for the layout (`asking`), of all where none does; networks in
    `order`, others as they come. A layout that nothing fits gets one empty slice.
    """
    asking = frozenset(asking)
    groups: dict[str, tuple[dict[str, Any], dict[str, None], list[Cell]]] = {}
    for cell in filter(accept, results.cells):
        fixed = {name: each for name, each in cell.config.items() if name not in varies}
        _, networks, cells = groups.setdefault(repr(sorted(fixed.items())), (fixed, {}, []))
        cells.append(cell)
        if not asking or asking.intersection(cell.grids):
            networks.setdefault(cell.network)
    asked = sorted((part for part in groups.values() if part[1]), key=lambda part: bool(titles.departures(part[0])))
    owners = [
        next(iter([name for name in cells[0].grids if name in asking] or cells[0].grids)) for _, _, cells in asked
    ]
    return [
        Slice(
            layout if place == 0 else f"{layout}-{slug(owner)}",
            fixed,
            tuple(sorted(networks, key=lambda name: order.index(name) if name in order else len(order))),
            asking,
            tuple(cells),
        )
        for place, (owner, (fixed, networks, cells)) in enumerate(zip(owners, asked, strict=True))
    ] or [Slice(layout)]
