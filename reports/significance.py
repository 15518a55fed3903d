"""Which differences mean something: paired t tests over seeds, and the binomial noise of a finite test set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

LEVEL = 0.05
# Fewer seeds than this estimate no spread worth testing with.
ENOUGH_SEEDS = 3


def mean_of(values: Sequence[float]) -> float:
    """Return the mean of one or more values."""
    return math.fsum(values) / len(values)


def spread_of(values: Sequence[float]) -> float | None:
    """Return the sample standard deviation, None for one value; `statistics.stdev` is exact but 50 times slower."""
    if len(values) < 2:
        return None
    mean = mean_of(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def student_p(t: float, freedom: int) -> float:
    """Return the two-sided p-value of Student's t for an integer number of degrees of freedom.

    Closed form: Abramowitz and Stegun, 26.7.3 (odd) and 26.7.4 (even).
    """
    angle = math.atan(abs(t) / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term = total = (cosine if odd else 1.0) if freedom > 1 else 0.0
    for k in range(3 if odd else 2, freedom - 1, 2):
        term *= cosine**2 * ((k - 1) / k)
        total += term
    inside = (angle + sine * total) * 2 / math.pi if odd else sine * total
    return max(0.0, 1 - inside)


@cache
def student_quantile(freedom: int) -> float:
    """Return the t that `LEVEL` of the distribution lies beyond, on both sides together."""
    low, high = 0.0, 20.0
    while high - low > 1e-10 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if student_p(middle, freedom) > LEVEL else (low, middle)
    return high


def paired_p(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the p-value of a paired t test, two-sided; equal differences leave no noise, so it is 0 or 1 then."""
    differences = [a - b for a, b in zip(first, second, strict=True)]
    mean, spread = mean_of(differences), spread_of(differences) or 0.0
    if spread <= 1e-12 * max(map(abs, [*first, *second]), default=0.0):
        return 1.0 if abs(mean) <= spread else 0.0
    return student_p(mean / spread * math.sqrt(len(differences)), len(differences) - 1)


def error_rate_noise(percent: float, images: int) -> float:
    """Return the binomial standard deviation, in percent, of an error rate measured on so many images."""
    rate = min(max(percent / 100, 0.0), 1.0)
    return 100 * math.sqrt(rate * (1 - rate) / images)


def error_rate_p(first: float, second: float, images: int) -> float:
    """Return the two-sided p-value that two error rates (percent) on test sets of that size are one, as if unpaired."""
    noise = math.hypot(error_rate_noise(first, images), error_rate_noise(second, images))
    if noise == 0:
        return 1.0 if first == second else 0.0
    return math.erfc(abs(first - second) / noise / math.sqrt(2))


def half_width(values: Sequence[float]) -> float:
    """Half the width of the 95 % confidence interval of the mean of two or more values."""
    return student_quantile(len(values) - 1) * (spread_of(values) or 0.0) / math.sqrt(len(values))


@dataclass(frozen=True)
class Candidate:
    """Compete for the best place of a column: a value per seed, or per what else pairs them.

    `images` are those of the test set, for an error rate.
    """

    values: Mapping[Any, float]
    images: int | None = None

    @property
    def mean(self) -> float:
        return mean_of(list(self.values.values()))


def difference_p(first: Candidate, second: Candidate) -> float | None:
    """Return the p-value that two candidates are equally good, None where no test is possible.

    Paired over the seeds they share when these are three or more; binomial for error rates otherwise.
    """
    shared = sorted(first.values.keys() & second.values.keys())
    if len(shared) >= ENOUGH_SEEDS:
        return paired_p([first.values[seed] for seed in shared], [second.values[seed] for seed in shared])
    if first.images and second.images:
        return error_rate_p(first.mean, second.mean, min(first.images, second.images))
    return None


def best_set(candidates: Sequence[Candidate], lower_is_better: bool, digits: int) -> set[int]:
    """Return the indices of candidates that may equal the best at the 5 % level; empty where no test is possible.

    Whatever prints the same mean as a member is one.
    """
    if len(candidates) < 2:
        return set()
    means = [candidate.mean for candidate in candidates]
    best = min(range(len(means)), key=lambda index: means[index] if lower_is_better else -means[index])
    found = {index: difference_p(candidates[best], other) for index, other in enumerate(candidates) if index != best}
    if all(p is None for p in found.values()):
        return set()
    members = {best} | {index for index, p in found.items() if p is not None and p >= LEVEL}
    printed = {f"{means[index]:.{digits}f}" for index in members}
    return {index for index, mean in enumerate(means) if f"{mean:.{digits}f}" in printed}
