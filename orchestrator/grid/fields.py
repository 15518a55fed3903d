"""Read the values that a grid file gives to the fields of a configuration: one each, or an axis of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import chain, combinations
from typing import Any

from pydantic import ValidationError

from orchestrator.grid.document import Node, Reader
from orchestrator.grid.problems import Place, joined
from trainer.config import TrainConfig, config_problems
from trainer.problems import shown

# Fields validated together. If one is invalid or missing, skip the cross-checks: its default would cause false errors.
CROSS_CHECKED = frozenset({"dataset", "validation", "network", "peer", "stages", "heads", "methods"})
# Keys of the sections outside a trial's identity: its resources, with the section of single networks last, and its
# reports.
RESOURCES = ("gpu", "cpu", "gpus_per_trial", "processes", "engine", "deterministic", "per_network")
REPORT = ("tables", "figures", "selection")
ELSEWHERE = dict.fromkeys(RESOURCES, "`resources`") | dict.fromkeys(REPORT, "`report`")


@dataclass(frozen=True, eq=False, slots=True)
class Choice:
    """A value for one field, its position, and the positions of its parts."""

    value: Any
    key: str
    place: Place
    parts: dict[tuple[str, ...], Place] = field(default_factory=dict)

    def locate(self, path: tuple[str, ...]) -> Place:
        """Return the position of the innermost part on a path that has one."""
        positions = (self.parts[path[:length]] for length in range(len(path), 0, -1) if path[:length] in self.parts)
        return next(positions, self.place)


@dataclass(frozen=True, eq=False)
class Block:
    """A product of axes."""

    key: str
    place: Place
    axes: dict[str, list[Choice]]


class Choices:
    """Reads choices and checks each on its own. `invalid` are the fields whose values in the file are wrong."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.invalid: set[str] = set()

    def fixed(self, node: Node | None) -> dict[str, Choice]:
        """Return the section `fixed`: one choice per field."""
        chosen = {}
        for name, child in self._fields(node, "fixed").items():
            choice = self._choice(name, child, joined("fixed", name))
            if choice is None:
                self.invalid.add(name)
            else:
                chosen[name] = choice
        return chosen

    def blocks(self, node: Node | None, root: Node, fixed: dict[str, Choice]) -> list[Block]:
        """Return the section `grid`: one block or a list of them; without it, the one trial that `fixed` describes."""
        if node is None or node.value is None:
            return [Block("grid", (node or root).place, {})]
        if node.value == []:
            self.reader.note(node.place, "grid", "has no blocks")
        blocks = []
        for child, key in _items(node, "grid"):
            axes = {}
            for name, values in self._fields(child, key).items():
                if name in fixed:
                    also = f"fixed.{name} in line {fixed[name].place[0]}"
                    self.reader.note(
                        child.places[name], joined(key, name), f"is given by {also} as well; leave one out"
                    )
                axis = self.axis(name, values, joined(key, name))
                if axis:
                    axes[name] = axis
                else:
                    self.invalid.add(name)
            blocks.append(Block(key, child.place, axes))
        return blocks

    def rule(self, node: Node, key: str) -> dict[str, list[Any]]:
        """Return an entry of `exclude`: the values to drop, by field."""
        axes = {name: self.axis(name, child, joined(key, name)) for name, child in self._fields(node, key).items()}
        if not axes and not node.value:
            self.reader.note(node.place, key, "names nothing to leave out, such as {network: resnet50}")
        return {name: [choice.value for choice in axis] for name, axis in axes.items()}

    def axis(self, name: str, node: Node, key: str) -> list[Choice]:
        """Return the valid choices of an axis: a list, a single value, or for methods a powerset."""
        if node.value is None or node.value == []:
            self.reader.note(node.place, key, "has no values; give a list of them")
            return []
        if name == "methods" and isinstance(node.value, dict) and get_close_matches("powerset", node.value):
            return self._powerset(node, key)
        choices = [self._choice(name, child, place) for child, place in _items(node, key)]
        return [choice for choice in choices if choice is not None]

    def _fields(self, node: Node | None, key: str) -> dict[str, Node]:
        """Return the entries of a mapping of configuration fields."""
        entries = self.reader.mapping(node, key, TrainConfig.model_fields, elsewhere=ELSEWHERE)
        if node is not None and isinstance(node.value, dict):
            for name in node.value.keys() - entries.keys() - ELSEWHERE.keys():
                self.invalid.update(get_close_matches(name[:100], TrainConfig.model_fields, n=1, cutoff=0.5))
        elif node is not None and node.value is not None:
            self.invalid |= CROSS_CHECKED
        return entries

    def _choice(self, name: str, node: Node, key: str) -> Choice | None:
        """Return one value, checked without the other fields; None where it is invalid."""
        if name == "methods":
            choice = self._methods(node, key)
        else:
            choice = Choice(node.plain(), key, node.place, dict(_places(node)))
        if choice is not None:
            try:
                TrainConfig(**{name: choice.value})
            except ValidationError as error:
                # An error without a location is not about this value but about its combination with defaults.
                if any(entry["loc"] for entry in error.errors(include_url=False)):
                    for path, message in config_problems(error):
                        self.reader.note(choice.locate(path[1:]), joined(key, *path[1:]), message)
                    return None
        return choice

    def _methods(self, node: Node, key: str) -> Choice | None:
        """Return a set of methods:

        `baseline`, `pskd+byot`, a list of names, or a mapping of them to hyperparameters.
        """
        if node.value in (None, "baseline"):
            return Choice({}, key, node.place)
        value: dict[str, Any] = {}
        parts: dict[tuple[str, ...], Place] = {}
        valid = True
        for item in node.value if isinstance(node.value, list) else [node]:
            named: list[tuple[str, Node | None, Place]]
            if isinstance(item.value, str):
                named = [(name.strip(), None, item.place) for name in item.value.split("+")]
            elif isinstance(item.value, dict):
                named = [(name, child, item.places[name]) for name, child in item.value.items()]
            else:
                what = f"{shown(item.plain())} is not a method; write its name, or a mapping: {{pskd: {{alpha: 0.8}}}}"
                self.reader.note(item.place, key, what)
                valid = False
                continue
            for name, child, place in named:
                if name in value:
                    self.reader.note(place, key, f"names {shown(name)} twice")
                    valid = False
                value[name] = {} if child is None or child.value is None else child.plain()
                parts[(name,)] = place
                parts |= {(name, *below): there for below, there in _places(child)}
        return Choice(value, key, node.place, parts) if valid else None

    def _powerset(self, node: Node, key: str) -> list[Choice]:
        """Return every subset of a list of methods, smaller ones first; each method may carry hyperparameters."""
        below = self.reader.mapping(node, key, ["powerset"]).get("powerset")
        if below is None:
            return []
        key = joined(key, "powerset")
        if not below.value:
            self.reader.note(below.place, key, "has no methods; give a list of them")
        elements: dict[str, Choice] = {}
        for item, place in _items(below, key):
            element = self._choice("methods", item, place)
            if element is None:
                continue
            if len(element.value) != 1:
                what = f"{shown(item.plain())} is not one method; combinations and the baseline come by themselves"
                self.reader.note(item.place, place, what)
            elif (name := next(iter(element.value))) in elements:
                self.reader.note(item.place, place, f"names {shown(name)} again, as line {elements[name].place[0]}")
            else:
                elements[name] = element
        if not elements:
            return []
        subsets = chain.from_iterable(combinations(elements.values(), size) for size in range(len(elements) + 1))
        return [_union(subset, below.place, key) for subset in subsets]


def _union(subset: tuple[Choice, ...], place: Place, key: str) -> Choice:
    value: dict[str, Any] = {}
    parts: dict[tuple[str, ...], Place] = {}
    for choice in subset:
        value |= choice.value
        parts |= choice.parts
    return Choice(value, key, place, parts)


def _items(node: Node, key: str) -> list[tuple[Node, str]]:
    """Return the items of a list with their paths; a single value stands for a list of one."""
    if isinstance(node.value, list):
        return [(child, f"{key}[{i}]") for i, child in enumerate(node.value)]
    return [(node, key)]


def _places(node: Node | None) -> Iterator[tuple[tuple[str, ...], Place]]:
    """Yield the positions of all nodes below a node, by path."""
    if node is None or not isinstance(node.value, (dict, list)):
        return
    entries = node.value.items() if isinstance(node.value, dict) else ((str(i), c) for i, c in enumerate(node.value))
    for name, child in entries:
        yield (name,), node.places.get(name, child.place)
        for below, place in _places(child):
            yield (name, *below), place
