"""The number of seeds that a difference needs, against SciPy's noncentral t and against simulated grids."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from orchestrator.statistics import best_set
from orchestrator.statistics.comparison import Candidate
from orchestrator.statistics.power import POWER, chance, pair_level, seeds_needed, separable


@pytest.mark.parametrize(("seeds", "level"), list(product((3, 4, 9, 30, 200), (0.05, 0.05 / 9, 1e-4))))
def test_the_chance_of_separating_is_that_of_the_noncentral_t(seeds: int, level: float) -> None:
    critical = stats.t.isf(level / 2, seeds - 1)
    difference = separable(2.0, seeds, level)
    beyond = stats.nct.sf(critical, seeds - 1, difference / 2.0 * np.sqrt(seeds))
    assert beyond == pytest.approx(POWER, abs=1e-5)
    for effect in (0.1, 0.5, 2.0):
        expected = stats.nct.sf(critical, seeds - 1, effect * np.sqrt(seeds))
        assert chance(effect, seeds, level) == pytest.approx(expected, abs=1e-6)


def test_the_seeds_that_a_difference_needs_are_the_fewest() -> None:
    for seeds, level in product((2, 3, 5, 8, 40), (0.05, 0.0125)):
        difference = separable(0.3, seeds, level)
        assert seeds_needed(difference * 1.0001, 0.3, level) == seeds
        assert seeds_needed(-difference * 0.9999, 0.3, level) == seeds + 1
    assert seeds_needed(0.0, 0.3) is None and seeds_needed(1e-4, 0.3) is None
    assert seeds_needed(0.1, 0.0) == 2
    # What the documentation says of three seeds at the usual noise.
    assert separable(0.3, 3) == pytest.approx(0.98, abs=0.005)


@pytest.mark.parametrize("rows", (2, 3, 5))
def test_at_the_seeds_named_a_pair_is_separated_in_four_of_five_grids(rows: int) -> None:
    """The last row is worse than all others, which are alike; its pair with the first is looked at."""
    generator = np.random.default_rng(4)
    for seeds in (3, 5, 9):
        level = pair_level(rows)
        # Of independent rows whose values scatter by 1, a difference scatters by the root of 2.
        difference = separable(np.sqrt(2), seeds, level)
        assert seeds_needed(difference * 1.0001, np.sqrt(2), level) == seeds
        values = generator.standard_normal((20_000, rows, seeds))
        values[:, -1] += difference
        differences = values[:, -1] - values[:, 0]
        t = differences.mean(1) / differences.std(1, ddof=1) * np.sqrt(seeds)
        p = 2 * stats.t.sf(np.abs(t), seeds - 1)
        assert abs(np.mean((p < level) & (t > 0)) - POWER) < 0.03


def test_the_level_of_a_pair_is_that_of_the_bold_rule() -> None:
    """Of two rows that differ by little more or less than the level asks for, the worse is out or not."""
    for rows, seeds in product((2, 3, 4, 7), (3, 6)):
        critical = stats.t.isf(pair_level(rows) / 2, seeds - 1)
        noise = np.resize([1.0, -1.0], seeds)
        noise -= noise.mean()
        for factor, bold in ((0.999, {0, 1}), (1.001, {0})):
            shift = factor * critical * noise.std(ddof=1) / np.sqrt(seeds)
            values = [np.full(seeds, 5.0), 5.0 + shift + noise, *(900.0 + 90 * k + noise for k in range(rows - 2))]
            best = best_set([Candidate(dict(enumerate(map(float, row)))) for row in values], True, 6)
            assert set(best.members) == bold, (rows, seeds, factor)
