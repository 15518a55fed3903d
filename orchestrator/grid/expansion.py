"""Expand the sections `fixed`, `grid` and `exclude` into configurations: products of axes, every cell checked."""

from __future__ import annotations

import json
from itertools import product
from math import prod
from typing import Any

from pydantic import ValidationError

from orchestrator.grid.document import Node, Reader
from orchestrator.grid.fields import CROSS_CHECKED, Block, Choice, Choices
from orchestrator.grid.problems import Place, joined
from trainer.config import TrainConfig, config_problems
from trainer.problems import shown

# Limit of a plan that takes seconds. A larger grid is a mistake, or needs several files.
MAX_TRIALS = 200_000
MAX_RULES = 100


def expand(reader: Reader, sections: dict[str, Node], root: Node) -> tuple[dict[str, TrainConfig], set[str]]:
    """Return the configurations of a grid file by key, in the order of the file, and the fields that are axes in it.

    Blocks of a grid may share cells: a shared one is trained once. Within a block, a duplicate trial is a problem.
    Problems are noted in the reader; the result is complete only without problems.
    """
    valid = not reader.problems
    choices = Choices(reader)
    fixed = choices.fixed(sections.get("fixed"))
    blocks = choices.blocks(sections.get("grid"), root, fixed)
    valid = valid and not choices.invalid & CROSS_CHECKED
    noted = len(reader.problems)
    entries = reader.items(sections.get("exclude"), "exclude")
    if len(entries) > MAX_RULES:
        reader.note(entries[MAX_RULES].place, "exclude", f"has {len(entries):,} entries; one file may hold {MAX_RULES}")
    rules = [_Rule(choices, node, f"exclude[{i}]") for i, node in enumerate(entries[:MAX_RULES])]
    # An unreadable rule leaves in cells that it should have removed.
    valid = valid and noted == len(reader.problems)

    configs: dict[str, TrainConfig] = {}
    size = sum(prod(map(len, block.axes.values())) for block in blocks)
    if size > MAX_TRIALS:
        reader.note(blocks[0].place, "grid", f"makes {size:,} trials; one file may hold {MAX_TRIALS:,}")
    elif valid:
        for block in blocks:
            _expand_block(reader, block, fixed, rules, configs)
        if not reader.problems:
            for rule in rules:
                if not rule.used:
                    reader.note(rule.place, rule.key, "matches no trial of this grid; correct it or leave it out")
            if not configs:
                reader.note(sections["exclude"].place, "exclude", "leaves no trial")
    return configs, {name for block in blocks for name in block.axes}


def _expand_block(
    reader: Reader, block: Block, fixed: dict[str, Choice], rules: list[_Rule], configs: dict[str, TrainConfig]
) -> None:
    names = list(block.axes)
    values = {name: choice.value for name, choice in fixed.items()}
    excluding = [(rule, matching) for rule in rules if (matching := rule.matching(block, fixed)) is not None]
    seen: dict[str, tuple[Choice, ...]] = {}
    for cell in product(*block.axes.values()):
        if excluding and _excluded(cell, excluding):
            continue
        for name, choice in zip(names, cell, strict=True):
            values[name] = choice.value
        try:
            config = TrainConfig(**values)
        except ValidationError as error:
            chosen = fixed | dict(zip(names, cell, strict=True))
            for path, message in config_problems(error):
                choice = chosen.get(path[0], Choice(None, block.key, block.place))
                reader.note(choice.locate(path[1:]), joined(choice.key, *path[1:]), message)
            continue
        key = config.key()
        first = seen.setdefault(key, cell)
        if first is not cell:
            _note_twice(reader, first, cell)
        configs.setdefault(key, config)


def _note_twice(reader: Reader, first: tuple[Choice, ...], second: tuple[Choice, ...]) -> None:
    differing = [(one, other) for one, other in zip(first, second, strict=True) if one is not other]
    # Where several axes repeat values, each repetition also has a cell that differs in it alone.
    if len(differing) == 1:
        one, other = differing[0]
        where = f"{one.key} in line {one.place[0]}"
        reader.note(other.place, other.key, f"{shown(other.value)} makes the same trials as {where}; leave one out")


class _Rule:
    """An entry of `exclude`: drops the trials that have one of its values in each of its fields, as written."""

    def __init__(self, choices: Choices, node: Node, key: str) -> None:
        self.key: str = key
        self.place: Place = node.place
        self.used = False
        self.values = {name: set(map(_comparable, values)) for name, values in choices.rule(node, key).items()}

    def matching(self, block: Block, fixed: dict[str, Choice]) -> list[tuple[int, set[int]]] | None:
        """Return the deciding axes of a block, with the ids of their matching choices; None where nothing matches."""
        axes: list[tuple[int, set[int]]] = []
        for name, wanted in self.values.items():
            if name in block.axes:
                axis = list(block.axes).index(name)
                axes.append((axis, {id(choice) for choice in block.axes[name] if _comparable(choice.value) in wanted}))
            else:
                default = TrainConfig.model_fields[name].get_default(call_default_factory=True)
                if _comparable(fixed[name].value if name in fixed else default) not in wanted:
                    return None
        return axes


def _comparable(value: Any) -> Any:
    return json.dumps(value, sort_keys=True) if isinstance(value, (dict, list)) else value


def _excluded(cell: tuple[Choice, ...], excluding: list[tuple[_Rule, list[tuple[int, set[int]]]]]) -> bool:
    excluded = False
    for rule, matching in excluding:
        if all(id(cell[axis]) in ids for axis, ids in matching):
            rule.used = excluded = True
    return excluded
