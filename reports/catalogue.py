"""Titles and facts of methods, networks, data sets and metrics, as the database being reported has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.database import Database
    from orchestrator.records import PartRow

# Of a part with several versions or digests, the newest row.
_parts: ContextVar[Mapping[tuple[str, str], PartRow]] = ContextVar("parts")


def use_parts(database: Database) -> None:
    """Take titles and facts from this database from now on, in this thread."""
    use(database.parts())


def use(parts: Iterable[PartRow]) -> None:
    """Take titles and facts from these parts from now on, in this thread."""
    _parts.set({(part.kind, part.name): part for part in parts})


def title_of(kind: str, name: str) -> str:
    """Return the title of a part; its name where the database has none."""
    part = _parts.get({}).get((kind, name))
    return part.title if part else name


def default_of(kind: str, name: str, parameter: str) -> Any:
    """Return the default of a part's hyperparameter; None where the database does not know it."""
    part = _parts.get({}).get((kind, name))
    defaults = part.facts.get("defaults") if part else None
    return defaults.get(parameter) if isinstance(defaults, Mapping) else None


def metrics() -> dict[str, PartRow]:
    """Return the metrics of the database by name, those of every evaluation among them."""
    return {name: part for (kind, name), part in _parts.get({}).items() if kind == "metric"}
