"""Mean, spread, Student's t and the binomial noise of a finite test set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

# The chance of a false alarm that tests and intervals allow.
LEVEL = 0.05


def mean_of(values: Sequence[float]) -> float:
    """Return the mean of one or more values."""
    return math.fsum(values) / len(values)


def spread_of(values: Sequence[float]) -> float | None:
    """Return the sample standard deviation, None for one value; `statistics.stdev` is exact but 50 times slower."""
    if len(values) < 2:
        return None
    mean = mean_of(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def student_p(t: float, freedom: float) -> float:
    """Return the two-sided p-value of Student's t."""
    from scipy.special import stdtr

    return 2 * float(stdtr(freedom, -abs(t)))


class PairedTest(NamedTuple):
    """The two-sided p-value of a paired t test, and half the 95 % confidence interval of the mean difference."""

    p: float
    margin: float


def paired_test(differences: Sequence[float], scale: float, images: int | None = None) -> PairedTest | None:
    """Test by Student's t whether two or more paired differences have the mean zero; None where they show no scatter.

    `scale` is the largest of the values that were subtracted, which says how far equal differences may be apart by
    rounding. `images` is the size of the test set where the values are shares of it, in percent: such differences are
    multiples of one image and may be equal by chance, so their standard deviation counts as no less than that of the
    rounding to one image, 100 / images / sqrt(12). Other differences that are equal and not zero have no test: nothing
    says how much they would scatter. Without any difference p is 1.
    """
    n, mean, spread = len(differences), mean_of(differences), spread_of(differences) or 0.0
    if spread <= 1e-12 * scale:
        spread, mean = 0.0, 0.0 if abs(mean) <= 1e-12 * scale else mean
    if images:
        spread = max(spread, 100 / images / math.sqrt(12))
    if not spread:
        return PairedTest(1.0, 0.0) if not mean else None
    error = spread / math.sqrt(n)
    return PairedTest(student_p(mean / error, n - 1), student_quantile(n - 1) * error)


@cache
def student_quantile(freedom: float, level: float = LEVEL) -> float:
    """Return the t that `level` of the distribution lies beyond, on both sides together."""
    from scipy.special import stdtrit

    return -float(stdtrit(freedom, level / 2))


def normal_p(z: float) -> float:
    """Return the two-sided p-value of a standard normal."""
    return math.erfc(abs(z) / math.sqrt(2))


# The standard normal's quantile: 5 % lie beyond, on both sides together.
NORMAL_QUANTILE = 1.959963984540054


def half_width(values: Sequence[float]) -> float:
    """Half the width of the 95 % confidence interval of the mean of two or more values."""
    return student_quantile(len(values) - 1) * (spread_of(values) or 0.0) / math.sqrt(len(values))


def error_rate_noise(percent: float, images: int) -> float:
    """Return the binomial standard deviation, in percent, of an error rate measured on so many images."""
    rate = min(max(percent / 100, 0.0), 1.0)
    return 100 * math.sqrt(rate * (1 - rate) / images)
