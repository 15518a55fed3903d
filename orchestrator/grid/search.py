"""Define a search for hyperparameters: the spaces of a row, the rows, and configurations with other values in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from trainer.config import TrainConfig
from trainer.parts import METHODS, METRICS


@dataclass(frozen=True)
class Space:
    """Values that a hyperparameter may have: a range of `uniform`, `log` or `int`, both ends included, or a `choice`.

    `path` leads to it in a configuration: ("learning_rate",) or ("methods", "pskd", "alpha").
    """

    path: tuple[str, ...]
    kind: str
    values: tuple[Any, ...]

    @property
    def name(self) -> str:
        """Return the path as tables and messages name it: `learning_rate`, `pskd.alpha`."""
        return ".".join(self.path[1:] if self.path[0] == "methods" else self.path)

    @property
    def size(self) -> int | None:
        """Return the number of its values; None for a continuous range."""
        if self.kind == "choice":
            return len(self.values)
        return self.values[1] - self.values[0] + 1 if self.kind == "int" else None


@dataclass(frozen=True)
class TunedRow:
    """A row of a grid: its configuration with the first of its seeds, the keys of its trials, and what is tuned in it.

    `key` is that of the configuration with seed 0, whatever the grid's other rows are.
    """

    name: str
    key: str
    config: TrainConfig
    seeds: tuple[int, ...]
    keys: tuple[str, ...]
    spaces: tuple[Space, ...]


@dataclass(frozen=True)
class Tuning:
    """The tuning of a grid: `draws` of every row, number 0 the row as it is, and the one that decides, by `metric`.

    A draw trains for `epochs` (None: as long as its row) from `seed`. Its score is the metric on the validation images
    at the epochs that the grid's rule of `selection` picks.
    """

    draws: int
    metric: str
    epochs: int | None
    seed: int
    search: str
    selection: str
    rows: tuple[TunedRow, ...] = field(default=())

    @property
    def higher_is_better(self) -> bool:
        """Return the direction of the metric."""
        return METRICS[self.metric].facts.direction == "higher"

    def row(self, name: str) -> TunedRow:
        """Return the row of this name."""
        return next(row for row in self.rows if row.name == name)


def changed(config: TrainConfig, values: Mapping[tuple[str, ...], Any], epochs: int | None, seed: int) -> TrainConfig:
    """Return a configuration with other values at some paths, another seed, and other epochs unless None.

    Raises pydantic's ValidationError.
    """
    given = config.science() | {"seed": seed} | ({"epochs": epochs} if epochs is not None else {})
    methods = {name: dict(parameters) for name, parameters in config.methods.items()}
    for path, value in values.items():
        if path[0] == "methods":
            methods[path[1]][path[2]] = value
        else:
            given[path[0]] = value
    return TrainConfig(**(given | ({"methods": methods} if methods else {})))


def value_at(config: TrainConfig, path: tuple[str, ...]) -> Any:
    """Return the value at a path of a configuration, of a hyperparameter that is left out its default."""
    if path[0] != "methods":
        return getattr(config, path[0])
    given = config.methods[path[1]]
    default = next(one.default for one in fields(METHODS[path[1]].make) if one.name == path[2])
    return given.get(path[2], default)
