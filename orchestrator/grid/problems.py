"""What is wrong with a grid file: a problem has a place, and all problems are named at once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.exit_codes import BAD_INPUT
from trainer.problems import shown, unknown

if TYPE_CHECKING:
    from orchestrator.grid.document import Node

Place = tuple[int, int]

MAX_LISTED = 200

# YAML 1.2 has no merge keys, though many readers know them.
MERGE = "merge keys (<<: *name) are not supported; write the keys out, or give a whole section as *name"
# As shells, Hydra, Jinja, Helm and CI services write them.
_TEMPLATE = re.compile(r"\$\{|\$\(|\{\{|\{%")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a file. Lines and columns count from 1; `key` is a path such as grid.network[1]."""

    file: str
    line: int | None
    column: int | None
    key: str
    message: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(part for part in (place, self.key, self.message) if part)


class GridError(Exception):
    """A grid file that cannot be used. `problems` holds everything that is wrong with it, in the order of its lines."""

    exit_code = BAD_INPUT

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = sorted(set(problems), key=lambda problem: (problem.line or 0, problem.column or 0, problem.key))
        lines = list(map(str, self.problems[:MAX_LISTED]))
        if len(self.problems) > MAX_LISTED:
            lines.append(f"... and {len(self.problems) - MAX_LISTED:,} more problems")
        super().__init__("\n".join(lines))


class Reader:
    """Takes a tree apart and collects what is wrong with it, so that all problems are named at once."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []

    def note(self, place: Place, key: str, message: str) -> None:
        """Remember a problem."""
        if _TEMPLATE.search(message):
            message += "; variables and templates are not filled in: write the value itself"
        self.problems.append(Problem(self.file, *place, key, message))

    def mapping(
        self,
        node: Node | None,
        key: str,
        allowed: Iterable[str],
        kind: str = "key",
        elsewhere: Mapping[str, str] | None = None,
    ) -> dict[str, Node]:
        """Return the entries of a mapping under its allowed keys; nothing for a missing or empty one.

        `elsewhere` says of keys that are allowed in another section which one that is.
        """
        if node is None or node.value is None:
            return {}
        if not isinstance(node.value, dict):
            self.note(node.place, key, f"{shown(node.plain())} is not a mapping of keys to values")
            return {}
        allowed = list(allowed)
        for name in node.value:
            if name in allowed:
                continue
            if name == "<<":
                what = MERGE
            elif elsewhere and name in elsewhere:
                what = f"belongs under {elsewhere[name]}"
            else:
                what = unknown(kind, name, allowed)
            self.note(node.places[name], joined(key, name), what)
        return {name: child for name, child in node.value.items() if name in allowed}

    def items(self, node: Node | None, key: str) -> list[Node]:
        """The items of a list; nothing for a missing or empty one."""
        if node is None or node.value is None:
            return []
        if not isinstance(node.value, list):
            self.note(node.place, key, f"{shown(node.plain())} is not a list")
            return []
        return node.value


def joined(key: str, *parts: str) -> str:
    """A path with more parts; numbers are positions in a list: `grid.network[1]`."""
    for part in parts:
        short = (part if len(part) <= 60 else f"{part[:50]}...") or "''"
        key = f"{key}[{part}]" if part.isdecimal() else f"{key}.{short}" if key else short
    return key
