"""Expand the sections `fixed`, `grid` and `exclude` into configurations: products of axes, every cell checked."""

from __future__ import annotations

from functools import cache
from itertools import chain, product
from math import prod
from typing import Any

from pydantic import TypeAdapter, ValidationError

from orchestrator.grid.document import Node
from orchestrator.grid.fields import RELATED, Block, Choice, Choices
from orchestrator.grid.problems import Place, joined
from orchestrator.grid.reader import Reader
from trainer.combination import canonical, checked_methods
from trainer.config import TrainConfig, config_problems
from trainer.problems import shown

# Limit of a plan that takes seconds. A larger grid is a mistake, or needs several files.
MAX_TRIALS = 200_000
MAX_RULES = 100

# A point of each axis of a block.
Cell = tuple[tuple[Choice, ...], ...]


def expand(
    reader: Reader, sections: dict[str, Node], root: Node, settings: dict[str, Node], invalid: set[str]
) -> tuple[dict[str, TrainConfig], list[str]]:
    """Return the configurations of a grid file by key, in the order of the file, and the fields that are axes in it.

    `settings` are the fields of the section `set`, `invalid` those that the file means to give, and fails to. Blocks of
    a grid may share cells: a shared one is trained once. Within a block, a duplicate trial is a problem. Problems are
    noted in the reader; the result is complete only without problems.
    """
    before = len(reader.problems)
    choices = Choices(reader, settings, invalid)
    fixed = choices.fixed(sections.get("fixed"), sections.get("grid"))
    blocks = choices.blocks(sections.get("grid"), root, fixed)
    entries = reader.items(sections.get("exclude"), "exclude")
    if len(entries) > MAX_RULES:
        reader.note(entries[MAX_RULES].place, "exclude", f"has {len(entries):,} entries; one file may hold {MAX_RULES}")
    invalid = set(choices.invalid)
    noted = len(reader.problems)
    whole = noted == before and not invalid
    rules = [_Rule(choices, node, f"exclude[{i}]") for i, node in enumerate(entries[:MAX_RULES])]
    # An unreadable rule leaves in cells that it should have removed: what is wrong with them is not said.
    unsure = set(TrainConfig.model_fields) if len(reader.problems) > noted else _related(invalid)

    configs: dict[str, TrainConfig] = {}
    size = sum(prod(len(axis.points()) for axis in block.axes) for block in blocks)
    if size > MAX_TRIALS:
        reader.note(blocks[0].place, "grid", f"makes {size:,} trials; one file may hold {MAX_TRIALS:,}")
    else:
        for block in blocks:
            _expand_block(reader, block, fixed, rules, configs, unsure)
        if whole and not unsure:
            for rule in rules:
                if not rule.used and not rule.values.keys() & settings.keys():
                    reader.note(rule.place, rule.key, "matches no trial of this grid; correct it or leave it out")
            if not configs and not reader.problems:
                reader.note(sections["exclude"].place, "exclude", "leaves no trial")
    return configs, list(dict.fromkeys(name for block in blocks for axis in block.axes for name in axis.fields))


def _related(invalid: set[str]) -> set[str]:
    """Return invalid fields with those whose check reads them."""
    return invalid.union(*(group for group in RELATED if group & invalid))


def _expand_block(
    reader: Reader,
    block: Block,
    fixed: dict[str, Choice],
    rules: list[_Rule],
    configs: dict[str, TrainConfig],
    unsure: set[str],
) -> None:
    names = [name for axis in block.axes for name in axis.fields]
    values = {name: choice.value for name, choice in fixed.items()}
    excluding = [(rule, matching) for rule in rules if (matching := rule.matching(block, fixed)) is not None]
    seen: dict[str, Cell] = {}
    for cell in product(*(axis.points() for axis in block.axes)):
        choices = list(chain.from_iterable(cell))
        if excluding and _excluded(choices, excluding):
            continue
        for name, choice in zip(names, choices, strict=True):
            values[name] = choice.value
        try:
            config = TrainConfig(**values)
        except ValidationError as error:
            chosen = fixed | dict(zip(names, choices, strict=True))
            for path, message in config_problems(error):
                if path[:1] and path[0] in unsure:
                    continue
                choice = chosen.get(path[0], Choice(None, block.key, block.place))
                reader.note(choice.locate(path[1:]), joined(choice.key, *path[1:]), message)
            continue
        key = config.key()
        first = seen.setdefault(key, cell)
        if first is not cell:
            _note_twice(reader, block, first, cell, unsure)
        configs.setdefault(key, config)


def _note_twice(reader: Reader, block: Block, first: Cell, second: Cell, unsure: set[str]) -> None:
    differing = [triple for triple in zip(block.axes, first, second, strict=True) if triple[1] is not triple[2]]
    # Where several axes repeat values, each repetition also has a cell that differs in it alone.
    if len(differing) != 1 or differing[0][0].fields.keys() & unsure:
        return
    axis, one, other = differing[0]
    if len(axis.fields) == 1:
        what = f"{shown(other[0].written)} makes the same trials as {one[0].key} in line {one[0].place[0]}"
        reader.note(other[0].place, other[0].key, f"{what}; leave one out")
    else:
        points = axis.points()
        row, earlier = points.index(other) + 1, points.index(one) + 1
        reader.note(other[0].place, axis.key, f"row {row} makes the same trials as row {earlier}; leave one out")


class _Rule:
    """An entry of `exclude`: drops the trials that have one of its values in each of its fields.

    Values are compared, not spellings: 0.1 and 1e-1, or `pskd` and `{pskd: {alpha: 0.8}}` with the default of 0.8. A
    field that the file leaves out has its default, which may be the optimizer's own.
    """

    def __init__(self, choices: Choices, node: Node, key: str) -> None:
        self.key: str = key
        self.place: Place = node.place
        self.used = False
        self.values = {
            name: {_comparable(name, value) for value in values} for name, values in choices.rule(node, key).items()
        }

    def matching(self, block: Block, fixed: dict[str, Choice]) -> list[tuple[int, set[int]]] | None:
        """Return the deciding fields of a block by number, with the ids of their matching choices.

        None where nothing matches.
        """
        choices = {name: axis.fields[name] for axis in block.axes for name in axis.fields}
        numbers = {name: number for number, name in enumerate(choices)}
        deciding: list[tuple[int, set[int]]] = []
        for name, wanted in self.values.items():
            if name in choices:
                matching = {id(choice) for choice in choices[name] if _comparable(name, choice.value) in wanted}
                deciding.append((numbers[name], matching))
            elif name in fixed:
                if _comparable(name, fixed[name].value) not in wanted:
                    return None
            elif "optimizer" in choices:
                alike = {id(choice) for choice in choices["optimizer"] if _default(name, choice) in wanted}
                deciding.append((numbers["optimizer"], alike))
            elif _default(name, fixed.get("optimizer")) not in wanted:
                return None
        return deciding


def _default(name: str, optimizer: Choice | None) -> Any:
    """Return the default of a field, comparable, with an optimizer; None stands for the usual one."""
    return _comparable(name, getattr(TrainConfig(**({"optimizer": optimizer.value} if optimizer else {})), name))


def _comparable(name: str, value: Any) -> Any:
    """Return what equal values of a field have in common, whatever their spelling; the value has been checked."""
    if name == "methods":
        return canonical(checked_methods(canonical(value)))
    if name in ("optimizer", "schedule"):
        return canonical(getattr(TrainConfig(**{name: value}), name))
    return _adapter(name).validate_python(value)


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    kind: Any = TrainConfig.model_fields[name].annotation
    return TypeAdapter(kind)


def _excluded(choices: list[Choice], excluding: list[tuple[_Rule, list[tuple[int, set[int]]]]]) -> bool:
    excluded = False
    for rule, matching in excluding:
        if all(id(choices[number]) in ids for number, ids in matching):
            rule.used = excluded = True
    return excluded
