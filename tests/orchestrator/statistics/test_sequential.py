"""Looks at growing numbers of seeds: their levels are exact, and no family of pairs errs in more than 5 %."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from scipy import stats

from orchestrator.statistics import paired_test
from orchestrator.statistics.sequential import look_levels, spent, verdicts

PLANS = [(3, 5, 7, 9), (2, 3, 4, 5), (3, 4, 5, 6, 7, 8, 9, 10), (5, 10, 15)]


def p_values(differences: Any) -> Any:
    """Return the p-values of paired t tests over the last axis."""
    n = differences.shape[-1]
    t = differences.mean(-1) / differences.std(-1, ddof=1) * np.sqrt(n)
    return 2 * stats.t.sf(np.abs(t), n - 1)


@pytest.mark.parametrize("seeds", PLANS)
def test_every_look_uses_up_exactly_its_share(seeds: tuple[int, ...]) -> None:
    """Without a difference, simulated pairs cross a boundary by each look as often as was spent until then."""
    differences = 7.0 * np.random.default_rng(1).standard_normal((400_000, seeds[-1]))
    crossed = np.zeros(len(differences), bool)
    for n, level in zip(seeds, look_levels(0.05, seeds), strict=True):
        crossed |= p_values(differences[:, :n]) <= level
        allowed = spent(0.05, n / seeds[-1])
        assert abs(crossed.mean() - allowed) < 4 * np.sqrt(allowed / len(differences)) + 1e-5
    assert spent(0.05, 1.0) == pytest.approx(0.05)


def test_the_levels_of_a_plan_rise_and_one_look_is_the_usual_test() -> None:
    for seeds in PLANS:
        levels = look_levels(0.05, seeds)
        assert all(first < second < 0.05 for first, second in pairwise(levels))
        assert levels[0] == pytest.approx(spent(0.05, seeds[0] / seeds[-1]))
        assert all(one < other for one, other in zip(look_levels(0.01, seeds), levels, strict=True))
    assert look_levels(0.05, (6,)) == pytest.approx((0.05,))


def run(values: Any, seeds: tuple[int, ...]) -> list[dict[int, int]]:
    """Return per simulated grid [rows, seeds], its baseline first, the look at which each separated row stopped."""
    # Of every row at every look.
    p = np.stack([p_values(values[:, 1:, :n] - values[:, :1, :n]) for n in seeds], -1).tolist()
    grids = []
    for grid in p:
        stopped: dict[int, int] = {}
        for look in range(len(seeds)):
            rows = {row: tests[look] for row, tests in enumerate(grid, 1) if row not in stopped}
            if rows:
                judged = verdicts(rows, dict.fromkeys(rows, look), seeds, len(grid), len(stopped))
                stopped |= {row: look for row, verdict in judged.items() if verdict.separated}
        grids.append(stopped)
    return grids


@pytest.mark.parametrize("seeds", [(2, 3, 4, 5), (2, 4, 6), (3, 5, 7, 9)])
@pytest.mark.parametrize("scatter", [0.7, 1.0, 2.0, 5.0, 25.0])
def test_errors_in_whole_images_keep_the_five_percent(seeds: tuple[int, ...], scatter: float) -> None:
    """Two rows without a true difference whose errors scatter by a few of 10,000 images, and so are equal by chance."""
    count = 4_000
    errors = np.round(2_000 + np.random.default_rng(4).normal(0, scatter, (count, 2, seeds[-1]))) / 100
    wrong = 0
    for row, baseline in errors.tolist():
        differences = [one - other for one, other in zip(row, baseline, strict=True)]
        for look, n in enumerate(seeds):
            tested = paired_test(differences[:n], 25, 10_000)
            assert tested is not None
            if verdicts({0: tested.p}, {0: look}, seeds, 1)[0].separated:
                wrong += 1
                break
    assert wrong / count < 0.05 + 3 * np.sqrt(0.05 * 0.95 / count)


@pytest.mark.parametrize(("rows", "true"), [(2, 0), (4, 0), (4, 2), (7, 3)])
def test_no_family_of_pairs_errs_in_more_than_five_percent(rows: int, true: int) -> None:
    """Rows share their baseline; the first of them differ from it, clearly, and the others do not."""
    count, seeds = 4_000, (3, 5, 7, 9)
    values = np.random.default_rng(2).standard_normal((count, rows, seeds[-1]))
    values[:, 1 : 1 + true] += 4.0
    wrong = np.mean([any(row > true for row in stopped) for stopped in run(values, seeds)])
    assert wrong < 0.05 + 3 * np.sqrt(0.05 * 0.95 / count)
    # The correction is not so strict that nothing would ever be found.
    assert wrong > 0.015


def test_clear_differences_stop_early_and_save_seeds() -> None:
    seeds = (3, 5, 7, 9)
    values = np.random.default_rng(3).standard_normal((500, 2, 9))
    values[:, 1] += 5.0
    stopped = run(values, seeds)
    assert np.mean([1 in each for each in stopped]) > 0.99
    assert np.mean([seeds[each[1]] for each in stopped if each]) < 6


def test_a_pair_that_is_separated_leaves_its_share_to_the_others_at_once() -> None:
    seeds = (3, 5, 7, 9)
    alone, half = (look_levels(0.05 / pairs, seeds)[3] for pairs in (1, 2))
    between = (alone + half) / 2
    looks = {"a": 3, "b": 3}
    both = verdicts({"a": 1e-9, "b": between}, looks, seeds, 2)
    assert both["a"].separated and both["b"].separated and both["b"].level == alone
    # Without the first, the other has half of the error.
    assert not verdicts({"a": 0.5, "b": between}, looks, seeds, 2)["b"].separated
    assert verdicts({"b": between}, {"b": 3}, seeds, 2, before=1)["b"].separated
    assert not verdicts({"b": between}, {"b": 3}, seeds, 3, before=1)["b"].separated
    # Every pair is judged by its own look.
    late = verdicts({"a": half * 0.9, "b": half * 0.9}, {"a": 3, "b": 0}, seeds, 2)
    assert late["a"].separated and not late["b"].separated
    assert not verdicts({"a": None}, {"a": 3}, seeds, 1)["a"].separated
