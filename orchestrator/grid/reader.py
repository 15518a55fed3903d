"""Take a grid file's tree apart, section by section."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from orchestrator.grid.document import Node
from orchestrator.grid.problems import Place, Problem, joined
from trainer.problems import shown, unknown

_WHOLE = "a grid file is whole: write the values here, share them by anchors (&name, *name), or give --set FIELD=VALUE"
# Keys of other tools, and what to do instead.
FOREIGN = {
    # YAML 1.2 has no merge keys, though many readers accept them.
    "<<": "merge keys (<<: *name) are not supported; write the keys out, or give a whole section as *name",
    "defaults": f"a list of defaults is not read; {_WHOLE}",
    "hydra": "settings of Hydra are not read; leave them out",
    "include": f"files are not included; {_WHOLE}",
}


class Reader:
    """Takes a tree apart and collects its problems, so that all are reported at once."""

    def __init__(self, file: str, problems: Sequence[Problem] = ()) -> None:
        self.file = file
        self.problems = list(problems)
        # What is wrong with the YAML at a place is the cause of what else is wrong there.
        self._refused = {(problem.line, problem.column) for problem in problems}

    def note(self, place: Place, key: str, message: str) -> None:
        """Record a problem, unless the YAML itself is wrong at this place."""
        if place not in self._refused:
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

        `elsewhere` gives, for keys that are allowed in another section, where that is.
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
            if name in FOREIGN:
                what = FOREIGN[name]
            elif elsewhere and name in elsewhere:
                what = f"belongs {elsewhere[name]}"
            else:
                what = unknown(kind, name, allowed)
            self.note(node.places[name], joined(key, name), what)
        return {name: child for name, child in node.value.items() if name in allowed}

    def items(self, node: Node | None, key: str) -> list[Node]:
        """Return the items of a list; nothing for a missing or empty one."""
        if node is None or node.value is None:
            return []
        if not isinstance(node.value, list):
            self.note(node.place, key, f"{shown(node.plain())} is not a list")
            return []
        return node.value
