"""Draw hyperparameters at random, each draw a pure function of the seed, the row, its number and the spaces."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice, product
from typing import Any

from pydantic import ValidationError

from orchestrator.grid.search import Space, TunedRow, Tuning, changed, value_at
from trainer.config import TrainConfig

Values = dict[tuple[str, ...], Any]
# Digits that count of a number that was drawn: equal on every machine, and short enough to print.
DIGITS = 4
# How often to draw anew what another draw of the row has already, before the row's values are listed one by one.
ATTEMPTS = 50
MOST_LISTED = 4096
# Draws at random before a model chooses, at most: with fewer it has nothing to learn from.
MOST_BEFORE_MODEL = 10


def draw_config(tuning: Tuning, row: TunedRow, values: Values) -> TrainConfig:
    """Return the configuration of a draw; raises pydantic's ValidationError."""
    return changed(row.config, values, tuning.epochs, tuning.seed)


def winner_config(row: TunedRow, draw: TrainConfig, seed: int) -> TrainConfig:
    """Return a row with the hyperparameters of one of its draws, on a seed of the grid."""
    return changed(row.config, values_of(row, draw), None, seed)


def values_of(row: TunedRow, draw: TrainConfig) -> Values:
    """Return what a draw of a row has in place of what is tuned in it, of a choice as the file has it."""
    return {space.path: _chosen(space, draw) for space in row.spaces}


def _chosen(space: Space, draw: TrainConfig) -> Any:
    """Return the value of a draw in a space.

    A configuration settles what it is given: a list becomes a tuple, and what is the default of so many epochs None,
    which would be another value with other epochs. So a choice is recognized by what it makes of the draw.
    """
    for value in space.values if space.kind == "choice" else ():
        # A value may not go with the rest of this draw.
        with suppress(ValidationError):
            if changed(draw, {space.path: value}, None, draw.seed).key() == draw.key():
                return value
    return value_at(draw, space.path)


def default_draw(tuning: Tuning, row: TunedRow) -> TrainConfig:
    """Return draw 0: the row as it is."""
    return draw_config(tuning, row, {})


def first_draws(tuning: Tuning, row: TunedRow) -> Iterator[TrainConfig]:
    """Return the draws of a row that depend on no result: of a search by a model, those that it begins with."""
    count = tuning.draws if tuning.search == "random" else min(MOST_BEFORE_MODEL, max(2, tuning.draws // 3))
    return islice(random_draws(tuning, row), count)


def most_draws(tuning: Tuning, row: TunedRow) -> int:
    """Return how many draws a row gets: fewer than the others only where its spaces hold no more."""
    sizes = [space.size for space in row.spaces]
    size = math.prod(size for size in sizes if size)
    if not all(sizes) or size > MOST_LISTED or size >= 2 * tuning.draws:
        return tuning.draws
    return sum(1 for _ in random_draws(tuning, row))


def sampler_seed(tuning: Tuning, row: TunedRow) -> int:
    """Return the seed of a model of a row, below 2^31."""
    return int(_unit(tuning.seed, row.key, 0, 0, "model") * 2**31)


def random_draws(tuning: Tuning, row: TunedRow) -> Iterator[TrainConfig]:
    """Yield the draws of a row, the default first, no two alike; fewer than asked for where its spaces hold no more.

    Draw k depends on the draws before it in so far as it differs from them: more draws leave the first ones as they
    are, and so do other rows.
    """
    first = default_draw(tuning, row)
    seen = {first.key()}
    yield first
    for number in range(1, tuning.draws):
        config = fresh_draw(tuning, row, number, seen)
        if config is None:
            return
        seen.add(config.key())
        yield config


def fresh_draw(tuning: Tuning, row: TunedRow, number: int, seen: set[str]) -> TrainConfig | None:
    """Return a random draw of a row that is none of the `seen` (keys); None where its spaces hold no other."""
    sizes = [space.size for space in row.spaces]
    finite = math.prod(size for size in sizes if size) if all(sizes) else None
    for attempt in range(ATTEMPTS):
        config = draw_config(tuning, row, random_values(row.spaces, tuning.seed, row.key, number, attempt))
        if config.key() not in seen:
            return config
    if finite is None or finite > MOST_LISTED:
        return None
    listed = (draw_config(tuning, row, values) for values in _all_values(row.spaces))
    rest = [config for config in listed if config.key() not in seen]
    return rest[int(_unit(tuning.seed, row.key, number, ATTEMPTS, "") * len(rest))] if rest else None


def random_values(spaces: Sequence[Space], seed: int, row: str, number: int, attempt: int = 0) -> Values:
    """Return the values of a draw of a row."""
    return {space.path: _value(space, _unit(seed, row, number, attempt, space.name)) for space in spaces}


def _all_values(spaces: Sequence[Space]) -> Iterator[Values]:
    several = [
        space.values if space.kind == "choice" else range(space.values[0], space.values[1] + 1) for space in spaces
    ]
    for values in product(*several):
        yield {space.path: value for space, value in zip(spaces, values, strict=True)}


def _unit(seed: int, row: str, number: int, attempt: int, name: str) -> float:
    """Return a number from 0 to below 1 that nothing but the arguments decides, on every machine and version."""
    text = "\0".join(map(str, (seed, row, number, attempt, name)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]) / 2**48


def _value(space: Space, unit: float) -> Any:
    if space.kind == "choice":
        return space.values[int(unit * len(space.values))]
    low, high = space.values
    if space.kind == "int":
        return low + int(unit * (high - low + 1))
    return rounded(space, low + unit * (high - low) if space.kind == "uniform" else low * (high / low) ** unit)


def rounded(space: Space, value: float) -> float:
    """Return a value of a continuous space with the digits that count, inside the space."""
    low, high = map(float, space.values)
    return min(max(float(f"{value:.{DIGITS}g}"), low), high)
