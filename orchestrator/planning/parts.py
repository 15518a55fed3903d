"""Name the parts that a grid uses: as the database keeps them, and whether workers will have them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from orchestrator.provenance import part_row
from orchestrator.records import PartRow
from trainer.parts import METRICS
from trainer.plugins import activate
from trainer.registry import Part, PartError

if TYPE_CHECKING:
    from orchestrator.grid import Grid


def used_parts(grid: Grid) -> list[Part[Any]]:
    """Return the parts of a grid's trials and its own metrics, none twice."""
    configs = [trial.config for trial in grid.trials]
    # Of the many trials of a grid, few differ in these.
    kinds = {
        (*one.methods, one.network, one.peer, one.dataset, one.ood_dataset, str(one.optimizer), str(one.schedule)): one
        for one in configs
    }
    used: dict[Part[Any], None] = {part: None for config in kinds.values() for part in config.parts()}
    return [*used, *(METRICS[name] for name in grid.metrics)]


def ready_parts(grid: Grid) -> None:
    """Register the parts of a grid's plug-ins, because another grid may have been loaded since.

    Raises PartError where a plug-in has changed, and for a part that workers would not know.
    """
    activate(grid.plugins)
    brought = {path for plugin in grid.plugins for path in plugin.paths}
    for part in used_parts(grid):
        if not part.ships and part.file not in brought:
            raise PartError(
                f"the {part.kind} {part.name!r} is registered in {part.source}, which no plug-in of {grid.source} "
                "brings, so that workers do not have it; put it into a file, and list the file under `plugins`"
            )


def part_rows(grid: Grid) -> list[PartRow]:
    """Return the parts of a grid as the database keeps them."""
    return [part_row(part) for part in used_parts(grid)]


def other_parts(grid: Grid, stored: Iterable[PartRow]) -> list[str]:
    """Return a line for every part of one's own whose name and version another code has in the database."""
    own = {str(path) for plugin in grid.plugins for path in plugin.paths}
    if not own:
        return []
    latest = {(row.kind, row.name, row.version): row for row in stored}
    lines = []
    for row in part_rows(grid):
        other = latest.get((row.kind, row.name, row.version))
        if other is not None and other.digest != row.digest and row.source.rpartition(":")[0] in own:
            lines.append(
                f"the {row.kind} {row.name!r} of version {row.version} is other code in this database "
                f"({other.source} {other.digest[:8]}, here {row.source} {row.digest[:8]}); raise its version, or give "
                "one of them another name"
            )
    return lines
