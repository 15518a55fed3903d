"""Compute the difference that so many seeds separate by the paired t test, and the seeds that a difference needs.

Without SciPy, whose import would be most of the time that `plan` takes; a test compares the two.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

from orchestrator.statistics.moments import LEVEL

# The probability with which a difference of the size named is separated.
POWER = 0.8
# More seeds than this are not counted out.
MOST_SEEDS = 1000
# Points of the integral over the spread that is estimated.
_POINTS = 1000


def pair_level(rows: int) -> float:
    """Return the two-sided p-value below which a pair of a group of so many rows is separated.

    That of `best_set`: 5 % for two rows; the better of k rows rules the other out by a one-sided 5 % / (k - 1).
    """
    return LEVEL if rows <= 2 else min(1.0, 2 * LEVEL / (rows - 1))


def separable(spread: float, seeds: int, level: float = LEVEL) -> float:
    """Return the difference that so many seeds (2 or more) separate in 80 % of the cases.

    `spread` is the standard deviation of the paired differences, `level` the two-sided p-value that separates.
    """
    return spread * _effect(seeds, level) / math.sqrt(seeds)


def seeds_needed(difference: float, spread: float, level: float = LEVEL) -> int | None:
    """Return the least number of seeds that separate a difference in 80 % of the cases; None beyond `MOST_SEEDS`."""
    effect = abs(difference) / spread if spread else math.inf
    if not effect:
        return None
    low, high = 1, 2
    while chance(effect, high, level) < POWER:
        if high >= MOST_SEEDS:
            return None
        low, high = high, min(2 * high, MOST_SEEDS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if chance(effect, middle, level) >= POWER else (middle, high)
    return high


def chance(effect: float, seeds: int, level: float = LEVEL) -> float:
    """Return the probability that so many seeds separate an effect: a difference in standard deviations of it."""
    if math.isinf(effect):
        return 1.0
    return _beyond(_critical(seeds, level), effect * math.sqrt(seeds), seeds - 1)


@cache
def _effect(seeds: int, level: float) -> float:
    """Return the mean of t, its noncentrality, with which the test separates in 80 % of the cases."""
    critical = _critical(seeds, level)
    return _root(lambda mean: _beyond(critical, mean, seeds - 1) - POWER, 2 * critical + 5)


@cache
def _critical(seeds: int, level: float) -> float:
    """Return the t beyond which a two-sided test of this level separates."""
    high = 10.0
    while _beyond(high, 0.0, seeds - 1) > level / 2:
        high *= 10
    return _root(lambda t: level / 2 - _beyond(t, 0.0, seeds - 1), high)


def _root(rising: Callable[[float], float], high: float) -> float:
    """Return where a rising function is zero, between 0 and `high`."""
    low = 0.0
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return high


def _beyond(t: float, mean: float, freedom: int) -> float:
    """Return the probability that the noncentral t of this noncentrality exceeds t.

    The integral, over the estimated spread s relative to the true one, of the normal probability beyond t s.
    """
    return math.fsum(weight * math.erfc((t * spread - mean) / math.sqrt(2)) for spread, weight in _spreads(freedom))


@cache
def _spreads(freedom: int) -> list[tuple[float, float]]:
    """Return values of the estimated spread, relative to the true one, with half of their probabilities."""
    low = -18 / freedom - 6 / math.sqrt(2 * freedom)
    high = math.log((freedom + 2 * math.sqrt(30 * freedom) + 60) / freedom) / 2
    step = (high - low) / _POINTS
    constant = freedom / 2 * math.log(freedom / 2) - math.lgamma(freedom / 2)
    points = [math.exp(low + step * index) for index in range(_POINTS + 1)]
    # The density on a logarithmic scale, where both of its ends fall off and the trapezoidal rule is all but exact.
    return [(s, step * math.exp(constant + freedom * math.log(s) - freedom * s * s / 2)) for s in points]
