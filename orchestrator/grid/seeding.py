"""Read the section `seeds` of a grid file: more seeds where the results ask for them, by a rule that stands before."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.grid.document import Node
from orchestrator.grid.names import trial_names
from orchestrator.grid.problems import Place
from orchestrator.grid.reader import Reader
from orchestrator.records import row_of
from orchestrator.tables.fields import comparable, has
from orchestrator.text import counted
from trainer.builtin_metrics import ALWAYS
from trainer.config import TrainConfig
from trainer.problems import shown, unknown

SEEDS = ("start", "step", "most", "against", "metric")
MOST_SEEDS = 100
EXAMPLE = "{start: 3, step: 2, most: 9, against: baseline}"


@dataclass(frozen=True)
class SeedRule:
    """Look at `start` seeds, then at `step` more each time, at `most` seeds at last.

    `pairs` are the rows and what each is compared with, as keys of their configurations with seed 0; `against` is what
    the file says of the latter. A pair stops at the look that separates it in `metric`.
    """

    start: int
    step: int
    most: int
    against: Any
    metric: str
    pairs: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @property
    def looks(self) -> tuple[int, ...]:
        """Return the numbers of seeds at which the rule looks."""
        return (*range(self.start, self.most, self.step), self.most)

    def facts(self, selection: str) -> dict[str, Any]:
        """Return the rule in JSON's types, with the rule that selects the epochs; what it is compared by later."""
        names = ("start", "step", "most", "against", "metric")
        return {name: getattr(self, name) for name in names} | {"selection": selection}


def with_seeds(configs: Mapping[str, TrainConfig], count: int) -> dict[str, TrainConfig]:
    """Return the configurations of every row with seeds 0 to `count` - 1, by key, row by row."""
    every = (config.model_copy(update={"seed": seed}) for config in configs.values() for seed in range(count))
    return {config.key(): config for config in every}


def read_seeds(
    reader: Reader,
    node: Node | None,
    configs: Mapping[str, TrainConfig],
    metrics: Collection[str],
    given: Mapping[str, Place],
    most_trials: int,
) -> SeedRule | None:
    """Return the rule for the seeds of a grid's configurations; its problems are noted in the reader.

    `metrics` are the grid's own. `given` are the places, by key, where the file gives seeds itself.
    """
    if node is None:
        return None
    if not isinstance(node.value, dict):
        what = f"{shown(node.plain())} is no rule; a list of seeds stands under `grid` (seed: [0, 1, 2]), a rule is "
        reader.note(node.place, "seeds", f"{what}{EXAMPLE}")
        return None
    entries = reader.mapping(node, "seeds", SEEDS)
    noted = len(reader.problems)
    for name in ("most", "against"):
        if name not in entries:
            reader.note(node.place, "seeds", f"has no {name}; a whole rule is {EXAMPLE}")
    for key, place in given.items():
        reader.note(place, key, "seeds come by the rule of `seeds`, from 0 on; leave one of the two out")

    def seeds(key: str, least: int, why: str = "") -> int | None:
        return reader.whole(entries.get(key), f"seeds.{key}", least, MOST_SEEDS, why, "no number of seeds")

    start = seeds("start", 2, "two seeds have the first difference that scatters") or 3
    step = seeds("step", 1) or 2
    most = seeds("most", start + 1, f"more than the {start} of the first look") or start + 1
    if len(configs) * most > most_trials:
        what = f"makes up to {len(configs) * most:,} trials; one file may hold {most_trials:,}"
        reader.note(entries["most"].place, "seeds.most", what)
    allowed = [*ALWAYS, "accuracy", "auroc", *metrics]
    metric = reader.one_of(entries.get("metric"), "seeds.metric", "metric", allowed, "top1")
    rule = SeedRule(start, step, most, entries["against"].plain() if "against" in entries else None, metric)
    if len(reader.problems) > noted or not configs:
        return None
    pairs = _pairs(reader, entries["against"], configs)
    return SeedRule(rule.start, rule.step, rule.most, rule.against, metric, pairs)


def _pairs(reader: Reader, node: Node, configs: Mapping[str, TrainConfig]) -> tuple[tuple[str, str], ...]:
    """Return every row with the one that it is compared with: equal but for the fields that `against` names."""
    wanted = node.plain() if isinstance(node.value, dict) else {"methods": node.plain()}
    for name in wanted:
        if name not in TrainConfig.model_fields or name == "seed":
            reader.note(node.place, "seeds.against", unknown("field", name, list(TrainConfig.model_fields)))
            return ()
    dumps = {key: config.model_dump(mode="json") for key, config in configs.items()}
    baselines = [key for key, values in dumps.items() if has(values, wanted)]
    if not baselines:
        what = f"{shown(node.plain())} is no row of this grid; name the methods of one, or a field with its value"
        reader.note(node.place, "seeds.against", what)
        return ()
    # Heads may follow from the methods: where nothing agrees with them, rows are compared without.
    exact, near = ({_rest(dumps[key], {*wanted, *more}): key for key in baselines} for more in ((), ("heads",)))
    names = dict(zip(configs, trial_names(dict(configs), ()), strict=True))
    if len(exact) < len(baselines):
        what = f"{shown(node.plain())} are several rows that differ in nothing else; write one out with its parameters"
        reader.note(node.place, "seeds.against", what)
    pairs, alone = [], []
    for key, values in dumps.items():
        if key in baselines:
            continue
        other = exact.get(_rest(values, set(wanted))) or near.get(_rest(values, {*wanted, "heads"}))
        if other is None:
            alone.append(row_of(names[key]))
        else:
            pairs.append((configs[key].cell_key(), configs[other].cell_key()))
    if alone:
        have = "has" if len(alone) == 1 else "have"
        what = f"{counted(len(alone), 'row')} {have} no such row to be compared with, for example {alone[0]}"
        reader.note(node.place, "seeds.against", f"{what}; add it to the grid, or put the others into another file")
    elif not pairs:
        reader.note(node.place, "seeds.against", "is every row of this grid, so that there is nothing to compare")
    return tuple(pairs)


def _rest(values: Mapping[str, Any], without: Collection[str]) -> str:
    return comparable({name: value for name, value in values.items() if name not in without and name != "seed"})
