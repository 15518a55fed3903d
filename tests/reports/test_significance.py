"""Statistics against SciPy and against slow, obvious rules."""

import itertools
import math
import random

import pytest
from scipy import stats

from reports.significance import (
    Candidate,
    best_set,
    difference_p,
    error_rate_noise,
    error_rate_p,
    half_width,
    mean_of,
    paired_p,
    spread_of,
    student_p,
    student_quantile,
)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 10, 29, 30, 101])
def test_students_t_equals_scipys(freedom):
    for t in (0.0, 0.1, 0.7, 1.0, 2.0, 4.5, 12.0, 300.0):
        assert student_p(t, freedom) == pytest.approx(2 * stats.t.sf(t, freedom), abs=1e-12)
        assert student_p(-t, freedom) == student_p(t, freedom)
    assert student_quantile(freedom) == pytest.approx(stats.t.isf(0.025, freedom), rel=1e-8)


def test_the_paired_test_equals_scipys():
    noise = random.Random(1)
    for size in (3, 4, 9):
        first = [noise.gauss(20, 1) for _ in range(size)]
        second = [value + noise.gauss(0.3, 0.5) for value in first]
        assert paired_p(first, second) == pytest.approx(stats.ttest_rel(first, second).pvalue, rel=1e-9)


def test_differences_without_noise_are_certain():
    assert paired_p([20.1, 20.2, 20.3], [20.1, 20.2, 20.3]) == 1.0
    assert paired_p([1.0, 2.0, 3.0], [1.5, 2.5, 3.5]) == 0.0


def test_mean_spread_and_interval_equal_scipys():
    values = [20.01, 20.18, 19.77, 20.4]
    assert mean_of(values) == pytest.approx(sum(values) / 4)
    assert spread_of(values) == pytest.approx(stats.tstd(values))
    assert spread_of(values[:1]) is None
    low, high = stats.t.interval(0.95, 3, loc=mean_of(values), scale=stats.sem(values))
    assert half_width(values) == pytest.approx((high - low) / 2)


def test_two_error_rates_are_compared_as_two_binomials():
    assert error_rate_noise(20.0, 10_000) == pytest.approx(100 * stats.binom.std(10_000, 0.2) / 10_000)
    z = 1.0 / math.hypot(error_rate_noise(20.0, 10_000), error_rate_noise(21.0, 10_000))
    assert error_rate_p(20.0, 21.0, 10_000) == pytest.approx(2 * stats.norm.sf(z))
    assert error_rate_p(0.0, 0.0, 360) == 1.0
    assert error_rate_p(0.0, 100.0, 360) == 0.0


def test_few_seeds_are_tested_by_the_test_set_and_other_metrics_not_at_all():
    one, two = Candidate({0: 20.0}, 10_000), Candidate({0: 20.5}, 10_000)
    assert difference_p(one, two) == error_rate_p(20.0, 20.5, 10_000)
    assert difference_p(Candidate({0: 0.8}), Candidate({0: 0.9})) is None
    assert best_set([Candidate({0: 0.8}), Candidate({0: 0.9})], True, 2) == set()


def test_only_shared_seeds_are_paired():
    one = Candidate({0: 1.0, 1: 2.0, 2: 4.0, 7: 100.0})
    two = Candidate({0: 1.1, 1: 2.3, 2: 4.2, 8: -100.0})
    assert difference_p(one, two) == paired_p([1.0, 2.0, 4.0], [1.1, 2.3, 4.2])
    assert difference_p(one, Candidate({0: 1.0, 1: 2.0, 5: 3.0})) is None


def test_a_single_candidate_is_no_competition():
    assert best_set([Candidate({0: 20.0}, 10_000)], True, 2) == set()
    assert best_set([], True, 2) == set()


def test_the_best_set_is_everyone_who_cannot_be_told_from_the_best():
    noise = random.Random(4)
    for _ in range(60):
        candidates = [
            Candidate({seed: noise.gauss(mean, 0.3) for seed in range(5)})
            for mean in (noise.choice((20.0, 20.2, 21.0)) for _ in range(noise.randint(2, 5)))
        ]
        for lower in (True, False):
            found = best_set(candidates, lower, 9)
            sign = 1 if lower else -1
            best = min(range(len(candidates)), key=lambda i, c=candidates, s=sign: s * c[i].mean)
            expected = {best}
            for index, other in enumerate(candidates):
                pairs = [list(each.values.values()) for each in (candidates[best], other)]
                if index != best and stats.ttest_rel(*pairs).pvalue >= 0.05:
                    expected.add(index)
            assert found == expected


def test_what_prints_alike_is_bold_alike():
    # 20.004 and 19.996 print 20.00; the difference of the second to the best is certain, yet nobody could see it.
    best = Candidate({0: 19.996, 1: 19.996, 2: 19.996})
    same = Candidate({0: 20.004, 1: 20.004, 2: 20.004})
    worse = Candidate({0: 21.0, 1: 21.0, 2: 21.0})
    for order in itertools.permutations((best, same, worse)):
        found = best_set(order, True, 2)
        assert {order.index(best), order.index(same)} == found
