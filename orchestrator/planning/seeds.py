"""Tell the differences that a grid's seeds separate, the pairs of rows that are open, and the cost of closing them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from orchestrator.planning.estimate import Measured, Work, make_estimate
from orchestrator.records import row_identity, row_of
from orchestrator.statistics import error_rate_noise, mean_of, paired_test, spread_of
from orchestrator.statistics.power import pair_level, seeds_needed, separable
from orchestrator.text import counted
from trainer.datasets import dataset_spec

if TYPE_CHECKING:
    from orchestrator.grid import Trial

# Metrics that have binomial noise: shares of test images, in percent.
RATES = ("top1", "top5", "accuracy")
# The error, in percent, that the binomial noise is said of where there is no result.
ASSUMED_ERROR = 20.0
# Numbers of seeds beside the grid's own to name a difference for.
USUAL = (3, 5, 10)


@dataclass(frozen=True)
class SeedRow:
    """A row: its name, its group, a configuration of it, its seeds in the grid, and the values of those that are done.

    `images` is the number of test images of its values, 0 where that is not known.
    """

    name: str
    group: str
    config: Mapping[str, Any]
    seeds: tuple[int, ...]
    values: Mapping[int, float] = field(default_factory=dict)
    images: int = 0


@dataclass(frozen=True)
class Pair:
    """Two rows that are not separated yet: their difference over `n` shared seeds, and the two-sided p-value.

    `needed` is the number of seeds that would separate that difference in 80 % of the cases, None beyond 1,000;
    `trials` how many more trials that takes, and `device_seconds` their time, None without measurements.
    """

    first: str
    second: str
    n: int
    difference: float
    p: float | None
    needed: int | None
    trials: int | None
    device_seconds: float | None


@dataclass(frozen=True)
class GroupSeeds:
    """The differences that the seeds of one group of rows separate.

    `spread` is the standard deviation of the paired differences of two rows, `source` says where it comes from: `grid`,
    `database` or `binomial`. `separates` are differences by number of seeds, `level` is the p-value below which a pair
    is separated. `closing` and `closing_seconds` are the trials and the time that close all pairs that can be closed.
    """

    group: str
    metric: str
    rows: int
    seeds: int
    spread: float | None
    source: str
    level: float
    separates: Mapping[int, float]
    separated: int
    untested: int
    open: tuple[Pair, ...]
    closing: int = 0
    closing_seconds: float | None = None


def rows_of(trials: Sequence[Trial], scores: Mapping[str, tuple[float, int]]) -> list[SeedRow]:
    """Return the rows of a grid with the values of their trials; rows of one network and data set are a group."""
    cells: dict[str, list[Trial]] = {}
    for trial in trials:
        if trial.role == "draw":
            continue
        cells.setdefault(trial.config.cell_key(), []).append(trial)
    sets = {trial.config.dataset for trial in trials}
    rows = []
    for members in cells.values():
        config = members[0].config
        results = {trial.config.seed: scores[trial.key] for trial in members if trial.key in scores}
        network, _, rest = members[0].name.partition("/")
        rows.append(
            SeedRow(
                row_of(rest),
                f"{network} on {config.dataset}" if len(sets) > 1 else network,
                config.model_dump(mode="json"),
                tuple(trial.config.seed for trial in members),
                {seed: value for seed, (value, _) in results.items()},
                max((images for _, images in results.values()), default=0),
            )
        )
    return rows


def rows_elsewhere(trials: Mapping[str, Mapping[str, Any]], scores: Mapping[str, tuple[float, int]]) -> list[SeedRow]:
    """Return rows of done trials of any grid, given their configurations by key, grouped as `rows_of` does."""
    cells: dict[str, list[str]] = {}
    for key, config in trials.items():
        if key in scores:
            cells.setdefault(row_identity(config), []).append(key)
    rows = []
    for name, keys in cells.items():
        config = trials[keys[0]]
        # Rows of other epochs or subsets are other experiments.
        group = repr([config.get(field) for field in ("network", "peer", "dataset", "epochs", "subset")])
        values = {int(trials[key]["seed"]): scores[key][0] for key in keys}
        rows.append(SeedRow(name, group, config, tuple(values), values))
    return rows


def group_seeds(
    rows: Sequence[SeedRow], metric: str, elsewhere: Sequence[SeedRow] = (), measured: Sequence[Measured] = ()
) -> list[GroupSeeds]:
    """Return what the seeds of every group with two rows or more separate.

    `elsewhere` are rows of other grids, whose spread counts where a group has none: those on the same data set.
    """
    groups: dict[str, list[SeedRow]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    return [_group(members, metric, elsewhere, measured) for members in groups.values() if len(members) > 1]


def seeds_line(rows: Sequence[SeedRow], metric: str, elsewhere: Sequence[SeedRow] = ()) -> str | None:
    """Return a line for a plan: which difference the seeds of its largest group separate, and by which noise.

    None where no two rows are compared, or where nothing tells the noise.
    """
    groups: dict[str, list[SeedRow]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    largest = max(groups.values(), key=len, default=[])
    if len(largest) < 2:
        return None
    seeds = min(len(row.seeds) for row in largest)
    spread, source = noise_of(largest, metric, elsewhere)
    if spread is None:
        return None
    where = {
        "grid": f"by the spread of the seeds that are done ({spread:.2g})",
        "database": f"by the spread that other grids of this database had on that data set ({spread:.2g})",
        "binomial": f"by the binomial noise of the test images alone ({spread:.2g}), as nothing was measured yet",
    }[source]
    several = f"the best of {counted(len(largest), 'row')}" if len(largest) > 2 else "two rows"
    if seeds < 2:
        return f"one seed separates no difference of {metric} over seeds; `orchestrate seeds` says what more would"
    difference = separable(spread, seeds, pair_level(len(largest)))
    return f"{counted(seeds, 'seed')} separate {several} by {difference:.2g} in {metric}, four times in five, {where}"


def noise_of(
    rows: Sequence[SeedRow], metric: str, elsewhere: Sequence[SeedRow] = ()
) -> tuple[float | None, Literal["grid", "database", "binomial", "none"]]:
    """Return the standard deviation of the paired differences of two rows, and what says so."""
    if (spread := _spread(rows)) is not None:
        return spread, "grid"
    if (spread := _spread_elsewhere(rows, elsewhere)) is not None:
        return spread, "database"
    spread = _binomial(rows, metric)
    return spread, "none" if spread is None else "binomial"


def _group(
    rows: Sequence[SeedRow], metric: str, elsewhere: Sequence[SeedRow], measured: Sequence[Measured]
) -> GroupSeeds:
    level = pair_level(len(rows))
    spread, source = noise_of(rows, metric, elsewhere)
    planned = min(len(row.seeds) for row in rows)
    separated = untested = 0
    pairs: list[Pair] = []
    wanted: dict[str, int] = {}
    for first, second in combinations(rows, 2):
        shared = sorted(first.values.keys() & second.values.keys())
        if not shared:
            untested += 1
            continue
        values = [(first.values[seed], second.values[seed]) for seed in shared]
        p = paired_p(values, metric, min(first.images, second.images)) if len(shared) >= 3 else None
        if p is not None and p < level:
            separated += 1
            continue
        difference = mean_of([one - other for one, other in values])
        needed = seeds_needed(difference, spread, level) if spread else None
        if needed is not None:
            # As many as it has do not: what they show is smaller, or scatters more, than the number supposes.
            needed = max(needed, len(shared) + 1, 3)
            for row in (first, second):
                wanted[row.name] = max(wanted.get(row.name, 0), needed)
        trials, seconds = _cost([first, second], {first.name: needed, second.name: needed}, measured)
        pairs.append(Pair(first.name, second.name, len(shared), difference, p, needed, trials, seconds))
    closing, closing_seconds = _cost(rows, wanted, measured)
    return GroupSeeds(
        rows[0].group,
        metric,
        len(rows),
        planned,
        spread,
        source,
        level,
        {n: separable(spread, n, level) for n in sorted({*USUAL, planned} - {0, 1})} if spread is not None else {},
        separated,
        untested,
        tuple(sorted(pairs, key=lambda pair: (pair.needed or math.inf, -abs(pair.difference)))),
        closing or 0,
        closing_seconds,
    )


def paired_p(pairs: Sequence[tuple[float, float]], metric: str, images: int) -> float | None:
    """Return the p-value of the test that tables make of two rows by their values seed by seed, None where it has none.

    `images` is the number of test images.
    """
    if len(pairs) < 2:
        return None
    scale = max(abs(value) for pair in pairs for value in pair)
    tested = paired_test([one - other for one, other in pairs], scale, images if metric in RATES else None)
    return tested.p if tested else None


def seeds_for(group: GroupSeeds, differences: Sequence[float]) -> dict[float, int | None]:
    """Return how many seeds each difference needs in a group, None beyond 1,000; empty where the noise is unknown."""
    if group.spread is None:
        return {}
    counts = {difference: seeds_needed(difference, group.spread, group.level) for difference in differences}
    # Fewer than three are not tested.
    return {difference: count if count is None else max(3, count) for difference, count in counts.items()}


def _cost(
    rows: Sequence[SeedRow], wanted: Mapping[str, int | None], measured: Sequence[Measured]
) -> tuple[int | None, float | None]:
    """Return the trials that rows lack to have so many seeds, and their time on a device."""
    if any(count is None for count in wanted.values()):
        return None, None
    missing = {row.name: max(0, (wanted.get(row.name) or 0) - len(row.values)) for row in rows}
    work = [Work(row.config, row.config["epochs"]) for row in rows for _ in range(missing[row.name])]
    estimate = make_estimate(work, measured, 1)
    return len(work), estimate.device_seconds if estimate else None


def _spread(rows: Sequence[SeedRow]) -> float | None:
    """Return the standard deviation of paired differences, pooled over all pairs with two shared seeds or more."""
    squares, freedom = [], []
    for first, second in combinations(rows, 2):
        shared = first.values.keys() & second.values.keys()
        spread = spread_of([first.values[seed] - second.values[seed] for seed in shared])
        # Rows that are equal to the last bit are one computation, and show no noise.
        if spread:
            squares.append(spread**2 * (len(shared) - 1))
            freedom.append(len(shared) - 1)
    return math.sqrt(sum(squares) / sum(freedom)) if freedom else None


def _spread_elsewhere(rows: Sequence[SeedRow], elsewhere: Sequence[SeedRow]) -> float | None:
    """Return the spread of the other grids' groups on the data set of these rows; None without any."""
    groups: dict[str, list[SeedRow]] = {}
    for row in elsewhere:
        if row.config["dataset"] == rows[0].config["dataset"]:
            groups.setdefault(row.group, []).append(row)
    spreads = [spread for members in groups.values() if (spread := _spread(members)) is not None]
    return math.sqrt(fmean(spread**2 for spread in spreads)) if spreads else None


def _binomial(rows: Sequence[SeedRow], metric: str) -> float | None:
    """Return the binomial noise of a difference of two error rates; None for other metrics, or an unknown test set."""
    images = max(row.images for row in rows) or dataset_spec(rows[0].config["dataset"]).test_images
    if metric not in RATES or not images:
        return None
    values = [value for row in rows for value in row.values.values()]
    return math.sqrt(2) * error_rate_noise(fmean(values) if values else ASSUMED_ERROR, images)
