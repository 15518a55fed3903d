"""Read the values that a grid file gives to the fields of a configuration: one each, or an axis of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import chain, combinations
from typing import Any

from pydantic import ValidationError

from orchestrator.grid.document import Node
from orchestrator.grid.problems import Place, joined
from orchestrator.grid.reader import Reader
from orchestrator.grid.seeding import SEEDS
from orchestrator.grid.tuning import TUNE
from orchestrator.text import counted
from trainer.config import TrainConfig, config_problems
from trainer.problems import shown

# Fields validated together. Where one is invalid or missing, what is wrong with another is not said: its default would
# cause false errors.
RELATED = (
    frozenset({"dataset", "validation", "subset"}),
    frozenset({"network", "peer", "stages", "heads", "methods"}),
    frozenset({"epochs", "warmup"}),
    frozenset({"optimizer", "momentum", "nesterov"}),
    frozenset({"schedule", "milestones", "gamma"}),
)
SECTIONS = (
    "name",
    "plugins",
    "fixed",
    "grid",
    "exclude",
    "set",
    "order",
    "metrics",
    "outcomes",
    "resources",
    "seeds",
    "tune",
    "report",
)
ORDERS = ("depth", "breadth")
ZIP = "zip"
# Keys of the sections outside a trial's identity: its resources, with the section of single networks last, and its
# reports.
RESOURCES = ("gpu", "cpu", "gpus_per_trial", "processes", "engine", "deterministic", "per_network")
REPORT = ("tables", "figures", "selection")
# Where every key of a grid file belongs.
ELSEWHERE = {
    **dict.fromkeys(TUNE, "under `tune`"),
    **dict.fromkeys(TrainConfig.model_fields, "under `fixed`, or under `grid` with a list of values"),
    **dict.fromkeys(RESOURCES, "under `resources`"),
    **dict.fromkeys(REPORT, "under `report`"),
    **dict.fromkeys(SECTIONS, "beside `grid`, as a section of its own"),
    ZIP: "under `grid`",
}
# What `set` takes beside the fields of a configuration, and how keys of other sections are written there.
SET_ELSEWHERE = (
    *("name", "order", "metrics", "outcomes"),
    *(f"resources.{key}" for key in RESOURCES),
    *(f"seeds.{key}" for key in SEEDS),
    *(f"tune.{key}" for key in TUNE),
    *(f"report.{key}" for key in REPORT),
)
SET_AS = {name.rpartition(".")[2]: f"here as {name}" for name in SET_ELSEWHERE if "." in name}


@dataclass(frozen=True, eq=False, slots=True)
class Choice:
    """A value for one field, its position, the positions of its parts, and the value as the file writes it."""

    value: Any
    key: str
    place: Place
    parts: dict[tuple[str, ...], Place] = field(default_factory=dict)
    written: Any = None

    def locate(self, path: tuple[str, ...]) -> Place:
        """Return the position of the innermost part on a path that has one."""
        positions = (self.parts[path[:length]] for length in range(len(path), 0, -1) if path[:length] in self.parts)
        return next(positions, self.place)


@dataclass(frozen=True, eq=False)
class Axis:
    """Choices of one field, or of several that vary together: as many of each (`zip`)."""

    key: str
    fields: dict[str, list[Choice]]

    def points(self) -> list[tuple[Choice, ...]]:
        """Return the choices of its fields, point by point."""
        return list(zip(*self.fields.values(), strict=True))


@dataclass(frozen=True, eq=False)
class Block:
    """A product of axes."""

    key: str
    place: Place
    axes: list[Axis]


class Choices:
    """Reads choices and checks each on its own. `invalid` are the fields whose values in the file are wrong.

    A field of `settings` has that value in every trial, whatever `fixed` and `grid` say of it: as an axis where the
    file has the field as one, or where the value is a list and the field takes none; else as in `fixed`.
    """

    def __init__(self, reader: Reader, settings: dict[str, Node], invalid: set[str]) -> None:
        self.reader = reader
        self.settings = settings
        self.invalid = set(invalid)

    def fixed(self, node: Node | None, grid: Node | None) -> dict[str, Choice]:
        """Return the section `fixed`, with the settings that are no axes of the section `grid`: a choice per field."""
        entries = {name: (child, joined("fixed", name)) for name, child in self._fields(node, "fixed").items()}
        axes = self._axes_set(grid)
        entries |= {name: (child, joined("set", name)) for name, child in self.settings.items()}
        chosen = {}
        for name, (child, key) in entries.items():
            if name in axes:
                continue
            choice = self._choice(name, child, key)
            if choice is None:
                self.invalid.add(name)
            else:
                chosen[name] = choice
        return chosen

    def blocks(self, node: Node | None, root: Node, fixed: dict[str, Choice]) -> list[Block]:
        """Return the section `grid`: one block or a list of them; without it, the one trial that `fixed` describes."""
        if node is not None and node.value == []:
            self.reader.note(node.place, "grid", "has no blocks")
        added = []
        for name in self._axes_set(node):
            if choices := self.axis(name, self.settings[name], joined("set", name)):
                added.append(Axis(joined("set", name), {name: choices}))
            else:
                self.invalid.add(name)
        if node is None or node.value is None:
            return [Block("grid", (node or root).place, added)]
        return [
            Block(key, child.place, [*self._block(child, key, fixed), *added]) for child, key in _items(node, "grid")
        ]

    def _block(self, node: Node, key: str, fixed: dict[str, Choice]) -> list[Axis]:
        axes = []
        places = {name: (f"fixed.{name}", choice.place) for name, choice in fixed.items()}
        entries = self._fields(node, key, ZIP)
        zipped = entries.pop(ZIP, None)
        lists = [({name: child}, key, node) for name, child in entries.items()]
        if zipped is not None:
            if not zipped.value:
                self.reader.note(node.places[ZIP], joined(key, ZIP), "has no fields; give a mapping of them to lists")
            for item, path in _items(zipped, joined(key, ZIP)):
                lists.append((self._fields(item, path), path, item))
        for together, path, parent in lists:
            own = {name: child for name, child in together.items() if name not in self.settings}
            for name in own:
                if name in places:
                    other, place = places[name]
                    what = f"is given by {other} in line {place[0]} as well; leave one out"
                    self.reader.note(parent.places[name], joined(path, name), what)
                places.setdefault(name, (joined(path, name), parent.places[name]))
            read = {name: self.axis(name, child, joined(path, name)) for name, child in own.items()}
            whole = self._agree(own, path, parent)
            if own and whole and all(len(read[name]) == _count(name, child) for name, child in own.items()):
                axes.append(Axis(path if len(own) > 1 else joined(path, *own), read))
            elif len(own) == 1 and any(read.values()):
                axes.append(Axis(joined(path, *own), read))
            else:
                self.invalid |= own.keys()
        return axes

    def _agree(self, entries: dict[str, Node], key: str, parent: Node) -> bool:
        """Return whether the fields of a `zip` have as many values each; notes those that have not."""
        counts = {name: _count(name, child) for name, child in entries.items()}
        first = next(iter(counts), "")
        differing = [name for name in counts if counts[name] != counts[first]]
        for name in differing:
            what = (
                f"has {counted(counts[name], 'value')}, and {first} in line {parent.places[first][0]} has "
                f"{counts[first]:,}; fields that vary together have as many each"
            )
            self.reader.note(parent.places[name], joined(key, name), what)
        return not differing

    def _axes_set(self, node: Node | None) -> list[str]:
        """Return the settings that are axes, given the section `grid`."""
        axes: set[str] = set()
        for child, _ in _items(node, "") if node is not None else ():
            entries = child.value if isinstance(child.value, dict) else {}
            zips = [item.value for item, _ in _items(entries[ZIP], "")] if ZIP in entries else []
            axes.update(entries, *(item for item in zips if isinstance(item, dict)))
        return [
            name
            for name, child in self.settings.items()
            if name in axes or (isinstance(child.value, list) and name not in ("methods", "milestones"))
        ]

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

    def _fields(self, node: Node | None, key: str, *more: str) -> dict[str, Node]:
        """Return the entries of a mapping of configuration fields, and of `more` keys."""
        entries = self.reader.mapping(node, key, [*TrainConfig.model_fields, *more], elsewhere=ELSEWHERE)
        if node is not None and isinstance(node.value, dict):
            for name in node.value.keys() - entries.keys() - ELSEWHERE.keys():
                self.invalid.update(get_close_matches(name[:100], TrainConfig.model_fields, n=1, cutoff=0.5))
        elif node is not None and node.value is not None:
            self.invalid |= TrainConfig.model_fields.keys()
        return entries

    def _choice(self, name: str, node: Node, key: str) -> Choice | None:
        """Return one value, checked without the other fields; None where it is invalid."""
        if name == "methods":
            choice = self._methods(node, key)
        else:
            choice = Choice(node.plain(), key, node.place, dict(_places(node)), node.plain())
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
            return Choice({}, key, node.place, {}, node.value)
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
        return Choice(value, key, node.place, parts, node.plain()) if valid else None

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
    return Choice(value, key, place, parts, "+".join(value) or "baseline")


def _count(name: str, node: Node) -> int:
    """Return the number of values that an axis lists, good ones or not."""
    if name == "methods" and isinstance(node.value, dict) and (below := node.value.get("powerset")):
        return 1 << len(_items(below, ""))
    return len(_items(node, ""))


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
