"""Collect the tables and figures that grids declare, by name, and read those that ship."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from orchestrator.tables.schema import Declaration
from reports.errors import ReportError
from reports.results import GridInfo

S = TypeVar("S", bound=Declaration)
# None for a table of a grid's own, which nobody declared.
W = TypeVar("W", bound=Declaration | None, covariant=True)


class Asked(NamedTuple, Generic[W]):
    """A table or figure that grids ask for, and those grids; `written` is its YAML. Without a `spec`, a grid's own."""

    spec: W
    grids: tuple[str, ...]
    written: Mapping[str, Any] | None = None


@cache
def read_shipped(path: Path) -> Mapping[str, Any]:
    """Return the declaration in a file of ours, in JSON's types."""
    from ruamel.yaml import YAML

    written: dict[str, Any] = YAML(typ="safe", pure=True).load(path)
    return written


def collected(
    kind: str,
    grids: Iterable[GridInfo],
    written_of: Callable[[GridInfo], Iterable[Mapping[str, Any]]],
    parse: Callable[[Mapping[str, Any]], S],
    more: Sequence[Mapping[str, Any]],
) -> dict[str, Asked[S]]:
    """Return by name what grids declare of a kind (`table` or `figure`), and `more`, which is for all the grids.

    Raises ReportError for grids that declare differently under one name, and as `parse`.
    """
    grids = list(grids)
    ordered: dict[str, Asked[S]] = {}
    for grid in grids:
        for written in written_of(grid):
            spec = parse(written)
            earlier = ordered.get(spec.name)
            if earlier and earlier.spec != spec:
                raise ReportError(
                    f"grids {earlier.grids[0]} and {grid.name} declare different {kind}s named {spec.name}; "
                    "give one of them another name, or one --grid at a time"
                )
            ordered[spec.name] = Asked(spec, (*(earlier.grids if earlier else ()), grid.name), written)
    for written in more:
        spec = parse(written)
        ordered[spec.name] = Asked(spec, tuple(grid.name for grid in grids), written)
    return ordered
