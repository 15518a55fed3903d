"""Comparisons of two candidates, against SciPy, statsmodels and slow, obvious rules."""

import itertools
import math
import random

import numpy as np
import pytest
from scipy import stats

from orchestrator.statistics import (
    Candidate,
    Outcomes,
    best_set,
    compare,
    contrast,
    error_rate_noise,
    half_width,
    mean_of,
    paired_test,
    spread_of,
    student_p,
    student_quantile,
)
from orchestrator.statistics.comparison import sign_flip_p


def outcomes(bits, images="labels") -> Outcomes:
    return Outcomes(np.packbits(np.asarray(bits, bool)).tobytes(), len(bits), images)


def network(*seeds, images="labels") -> Candidate:
    """Return a candidate with the top-1 errors and the outcomes of these rows of right (1) and wrong (0) images."""
    errors = {seed: 100 * (1 - float(np.mean(bits))) for seed, bits in enumerate(seeds)}
    return Candidate(errors, len(seeds[0]), {seed: outcomes(bits, images) for seed, bits in enumerate(seeds)})


def table(both, only_first, only_second, neither):
    """Return the outcomes of two networks with so many images of each kind."""
    first = [1] * both + [1] * only_first + [0] * only_second + [0] * neither
    second = [1] * both + [0] * only_first + [1] * only_second + [0] * neither
    return first, second


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 10, 29, 30, 101])
def test_students_t_equals_scipys(freedom):
    for t in (0.0, 0.1, 0.7, 1.0, 2.0, 4.5, 12.0, 300.0):
        assert student_p(t, freedom) == pytest.approx(2 * stats.t.sf(t, freedom), abs=1e-12)
        assert student_p(-t, freedom) == student_p(t, freedom)
    assert student_quantile(freedom) == pytest.approx(stats.t.isf(0.025, freedom), rel=1e-8)


def test_seeds_are_paired_from_three_on_as_scipy_does_it():
    noise = random.Random(1)
    for size in (3, 4, 9):
        first = [noise.gauss(20, 1) for _ in range(size)]
        second = [value + noise.gauss(0.3, 0.5) for value in first]
        comparison = compare(Candidate(dict(enumerate(first))), Candidate(dict(enumerate(second))))
        expected = stats.ttest_rel(first, second)
        low, high = expected.confidence_interval()
        assert (comparison.test, comparison.n, comparison.flips) == ("paired", size, None)
        assert comparison.p == pytest.approx(expected.pvalue, rel=1e-9)
        assert comparison.difference - comparison.margin == pytest.approx(low)
        assert comparison.difference + comparison.margin == pytest.approx(high)


def test_equal_differences_are_no_certainty():
    one = {0: 20.1, 1: 20.2, 2: 20.3}
    other = {seed: value + 0.02 for seed, value in one.items()}
    # No difference at all is none, in any metric; an error rate's may still be half an image.
    assert compare(Candidate(one), Candidate(one)).p == 1.0
    assert compare(Candidate(one, 10_000), Candidate(one, 10_000)).p == 1.0
    assert compare(Candidate(one), Candidate(other)) is None
    # Two images of 10,000, in each of three seeds: t is 2 sqrt(12) sqrt(3) with the rounding's spread.
    comparison = compare(Candidate(one, 10_000), Candidate(other, 10_000))
    assert comparison.p == pytest.approx(2 * stats.t.sf(12, 2))
    assert comparison.margin == pytest.approx(stats.t.isf(0.025, 2) * 0.01 / 6)
    # Where the seeds scatter by more than the rounding, the size of the test set changes nothing.
    one[0] += 0.5
    assert compare(Candidate(one, 10_000), Candidate(other, 10_000)) == compare(Candidate(one), Candidate(other))


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("scatter", [0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 8.0, 25.0])
def test_rounded_errors_keep_the_level(seeds, scatter):
    """Two rows without a true difference, whose errors are whole images of 10,000 and scatter by a few images."""
    tables = np.round(2_000 + np.random.default_rng(5).normal(0, scatter, (20_000, 2, seeds))) / 100
    wrong = 0
    for first, second in tables.tolist():
        differences = [one - other for one, other in zip(first, second, strict=True)]
        wrong += paired_test(differences, 25, 10_000).p < 0.05
    assert wrong / len(tables) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / len(tables))


def test_tables_of_equal_rows_are_all_bold():
    rows = [Candidate(dict.fromkeys(range(3), 20.0), images) for images in (10_000, 10_000, 10_000)]
    assert best_set(rows, True, 2).members == {0, 1, 2}
    assert best_set([Candidate(row.values) for row in rows], True, 2).members == {0, 1, 2}


def test_mean_spread_and_interval_equal_scipys():
    values = [20.01, 20.18, 19.77, 20.4]
    assert mean_of(values) == pytest.approx(sum(values) / 4)
    assert spread_of(values) == pytest.approx(stats.tstd(values))
    assert spread_of(values[:1]) is None
    low, high = stats.t.interval(0.95, 3, loc=mean_of(values), scale=stats.sem(values))
    assert half_width(values) == pytest.approx((high - low) / 2)


CASES = [(700, 60, 40, 200), (9_000, 400, 300, 300), (50, 1, 9, 4), (90, 0, 6, 4), (10, 5, 5, 3), (99, 0, 0, 1)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_one_seed_is_compared_by_mcnemars_exact_test(case):
    from statsmodels.stats.contingency_tables import mcnemar

    both, one, two, neither = case
    comparison = compare(*map(network, table(*case)))
    assert (comparison.test, comparison.n, comparison.images, comparison.flips) == ("images", 1, sum(case), (one, two))
    assert comparison.p == pytest.approx(mcnemar([[both, one], [two, neither]], exact=True).pvalue, rel=1e-9)
    if one + two:
        assert comparison.p == pytest.approx(stats.binomtest(one, one + two).pvalue, rel=1e-9)
    assert comparison.difference == pytest.approx(100 * (two - one) / sum(case))


def test_the_interval_of_one_seed_is_that_of_agresti_and_min():
    both, one, two, neither = (700, 60, 40, 200)
    comparison = compare(*map(network, table(both, one, two, neither)))
    total, b, c = both + one + two + neither + 2, one + 0.5, two + 0.5
    error = math.sqrt(b + c - (b - c) ** 2 / total) / total
    assert comparison.margin == pytest.approx(100 * stats.norm.isf(0.025) * error)


def test_two_seeds_are_an_exact_sign_flip_test_over_images():
    noise = np.random.default_rng(3)
    for _ in range(20):
        first, second = noise.random((2, 2, 9)) < [[[0.8]], [[0.5]]]
        scores = first.sum(0).astype(int) - second.sum(0)
        comparison = compare(network(*first), network(*second))
        assert (comparison.test, comparison.n) == ("images", 2)
        expected = stats.permutation_test(
            (scores,), np.sum, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
        )
        assert comparison.p == pytest.approx(expected.pvalue)
        sums = [abs(np.dot(signs, scores)) for signs in itertools.product((-1, 1), repeat=9)]
        assert comparison.p == pytest.approx(np.mean(np.array(sums) >= abs(scores.sum())))


def test_images_that_differ_in_both_seeds_do_not_count_as_independent():
    # The same images flip in both seeds: as 2 x 20 independent flips they would be certain, 10 against 4 is not.
    first, second = table(86, 10, 4, 0)
    alone = compare(network(first), network(second))
    twice = compare(network(first, first), network(second, second))
    assert twice.p == pytest.approx(alone.p)
    assert twice.flips == (20, 8)


def test_many_kinds_of_scores_have_an_exact_distribution():
    noise = np.random.default_rng(4)
    scores = noise.integers(-3, 4, 14)
    sums = [abs(np.dot(signs, scores)) for signs in itertools.product((-1, 1), repeat=14)]
    assert sign_flip_p(scores) == pytest.approx(np.mean(np.array(sums) >= abs(scores.sum())))


def test_the_exact_test_keeps_its_level_on_networks_that_are_equally_good():
    noise = np.random.default_rng(5)
    false = 0
    for _ in range(2_000):
        hard = noise.random(300)
        first, second = (noise.random(300) > hard for _ in range(2))
        false += sign_flip_p(first.astype(int) - second) < 0.05
    assert 0.02 < false / 2_000 <= 0.05


def test_other_images_are_not_paired():
    first, second = table(700, 60, 40, 200)
    comparison = compare(network(first), network(second, images="other labels"))
    assert comparison.test == "unpaired"


def test_without_outcomes_two_error_rates_are_two_binomials():
    assert error_rate_noise(20.0, 10_000) == pytest.approx(100 * stats.binom.std(10_000, 0.2) / 10_000)
    comparison = compare(Candidate({0: 20.0}, 10_000), Candidate({0: 21.0}, 10_000))
    noise = math.hypot(error_rate_noise(20.0, 10_000), error_rate_noise(21.0, 10_000))
    assert (comparison.test, comparison.n, comparison.images) == ("unpaired", 1, 10_000)
    assert comparison.p == pytest.approx(2 * stats.norm.sf(1 / noise))
    assert comparison.margin == pytest.approx(stats.norm.isf(0.025) * noise)
    assert compare(Candidate({0: 0.0}, 360), Candidate({0: 0.0}, 360)).p == 1.0
    assert compare(Candidate({0: 0.0}, 360), Candidate({0: 100.0}, 360)).p == 0.0


def test_other_metrics_are_not_tested_with_few_seeds():
    assert compare(Candidate({0: 0.8}), Candidate({0: 0.9})) is None


def test_only_shared_seeds_are_paired():
    one = Candidate({0: 1.0, 1: 2.0, 2: 4.0, 7: 100.0})
    two = Candidate({0: 1.1, 1: 2.3, 2: 4.2, 8: -100.0})
    assert compare(one, two).p == pytest.approx(stats.ttest_rel([1.0, 2.0, 4.0], [1.1, 2.3, 4.2]).pvalue)
    assert compare(one, Candidate({0: 1.0, 1: 2.0, 5: 3.0})) is None


def test_a_sum_of_several_candidates_is_tested_seed_by_seed_or_image_by_image():
    noise = np.random.default_rng(6)
    bits = noise.random((4, 1, 12)) < 0.6
    base, both, one, two = (network(*each) for each in bits)
    comparison = contrast([(base, -1), (both, -1), (one, 1), (two, 1)])
    wrong = 1 - bits[:, 0].astype(int)
    scores = wrong[2] + wrong[3] - wrong[0] - wrong[1]
    assert comparison.difference == pytest.approx(100 * scores.mean())
    assert comparison.p == pytest.approx(sign_flip_p(scores))
    seeds = [Candidate(dict(enumerate(noise.normal(20, 1, 5)))) for _ in range(3)]
    sums = [2 * seeds[0].values[seed] - seeds[1].values[seed] - seeds[2].values[seed] for seed in range(5)]
    comparison = contrast([(seeds[0], 2), (seeds[1], -1), (seeds[2], -1)])
    assert comparison.p == pytest.approx(stats.ttest_1samp(sums, 0).pvalue)
    assert comparison.margin == pytest.approx(half_width(sums))
