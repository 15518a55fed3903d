"""Problems of a grid file: each has a position, and all are reported at once."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.errors import OrchestrateError

Place = tuple[int, int]

MAX_LISTED = 200


@dataclass(frozen=True)
class Problem:
    """A problem of a file. Lines and columns count from 1; `key` is a path such as grid.network[1]."""

    file: str
    line: int | None
    column: int | None
    key: str
    message: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(part for part in (place, self.key, self.message) if part)


class GridError(OrchestrateError):
    """A grid file cannot be used. `problems` holds all its problems, in the order of lines."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = sorted(set(problems), key=lambda problem: (problem.line or 0, problem.column or 0, problem.key))
        lines = list(map(str, self.problems[:MAX_LISTED]))
        if len(self.problems) > MAX_LISTED:
            lines.append(f"... and {len(self.problems) - MAX_LISTED:,} more problems")
        super().__init__("\n".join(lines))


def joined(key: str, *parts: str) -> str:
    """Return a path with more parts; numbers are positions in a list: `grid.network[1]`."""
    for part in parts:
        short = (part if len(part) <= 60 else f"{part[:50]}...") or "''"
        # A message is one line, whatever a key holds.
        short = "".join(each if each.isprintable() else f"\\u{ord(each):04x}" for each in short)
        key = f"{key}[{part}]" if part.isdecimal() else f"{key}.{short}" if key else short
    return key
