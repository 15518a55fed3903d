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

    def one_of(
        self, node: Node | None, key: str, kind: str, allowed: Sequence[str], otherwise: str, more: str = ""
    ) -> str:
        """Return a value of a list, `otherwise` for a missing one and, once it is noted, for one that is not in it.

        `more` ends the list of those that are allowed.
        """
        if node is None:
            return otherwise
        value = node.plain()
        if value in allowed:
            return str(value)
        self.note(node.place, key, unknown(kind, value, allowed, more))
        return otherwise

    def whole(
        self, node: Node | None, key: str, least: int, most: int, why: str = "", kind: str = "not a whole number"
    ) -> int | None:
        """Return a whole number from `least` to `most`, None for a missing one and, once it is noted, for another."""
        if node is None:
            return None
        if type(node.value) is int and least <= node.value <= most:
            return node.value
        what = f"{shown(node.plain())} is {kind} from {least} to {most:,}"
        self.note(node.place, key, f"{what} ({why})" if why else what)
        return None

    def items(self, node: Node | None, key: str) -> list[Node]:
        """Return the items of a list; nothing for a missing or empty one."""
        if node is None or node.value is None:
            return []
        if not isinstance(node.value, list):
            self.note(node.place, key, f"{shown(node.plain())} is not a list")
            return []
        return node.value
