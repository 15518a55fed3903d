"""Compare two candidates by what there is: seeds, outcomes per image, or the size of the test set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from orchestrator.statistics.moments import (
    NORMAL_QUANTILE,
    error_rate_noise,
    mean_of,
    normal_p,
    paired_test,
)

if TYPE_CHECKING:
    import numpy as np

# Fewer seeds than this estimate no spread worth testing with.
ENOUGH_SEEDS = 3
# The three tests: paired t over seeds; exact and paired over images; two binomials, as if they had no image in common.
PAIRED, IMAGES, UNPAIRED = "paired", "images", "unpaired"


class Outcomes(NamedTuple):
    """Images that one trained network has right: packed bits, the first image the highest bit of the first byte.

    `images` is the digest of the test set's labels in their order: two of one digest are paired image by image.
    """

    correct: bytes
    size: int
    images: str


@dataclass(frozen=True)
class Candidate:
    """Compete for the best place of a column: a value per seed, or per what else pairs them.

    `images` is the size of the test set, for an error rate; `outcomes`, by the same keys as the values, say which
    images are right, where the value is the top-1 error (or accuracy) of these.
    """

    values: Mapping[Any, float]
    images: int | None = None
    outcomes: Mapping[Any, Outcomes] | None = None

    @property
    def mean(self) -> float:
        return mean_of(list(self.values.values()))


@dataclass(frozen=True)
class Comparison:
    """The difference of two candidates (first minus second), half its 95 % interval, and the two-sided p-value.

    `test` is `paired`, `images` or `unpaired`; `n` are the seeds that both have (for `unpaired` the smaller number of
    seeds), `images` the size of the test set where the test used it. `flips` are the images that only the first and
    only the second has right, summed over the seeds.
    """

    test: str
    p: float
    n: int
    difference: float
    margin: float
    images: int | None = None
    flips: tuple[int, int] | None = None

    @property
    def over_images(self) -> str:
        """Return the name of a test over images: McNemar's is that of one seed."""
        return "McNemar" if self.n == 1 else "sign flips"


def compare(first: Candidate, second: Candidate) -> Comparison | None:
    """Compare two candidates; None where no test is possible.

    From three shared seeds on by Student's t, paired over them (`paired_test`; differences that are equal without being
    multiples of one image have no test). Below, exactly and paired over the images, where all shared seeds have their
    outcomes: for one seed this is McNemar's exact test (`statsmodels` calls it so), for two each image counts with the
    sum of its two differences, which is exact for rows that are exchangeable (`sign_flip_p`). Without outcomes, error
    rates are compared as two binomials of independent images, which sees less.
    """
    return contrast([(first, 1), (second, -1)])


def contrast(terms: Sequence[tuple[Candidate, float]]) -> Comparison | None:
    """Test whether a weighted sum of candidates is zero, by the tests of `compare`; None where none is possible."""
    shared = sorted(set.intersection(*(set(each.values) for each, _ in terms)))
    sums = [math.fsum(weight * each.values[seed] for each, weight in terms) for seed in shared]
    if len(shared) >= ENOUGH_SEEDS:
        scale = max(abs(each.values[seed]) for each, _ in terms for seed in shared)
        if (tested := paired_test(sums, scale, _images(terms))) is None:
            return None
        flips = _flips(terms, shared) if len(terms) == 2 else None
        return Comparison(PAIRED, tested.p, len(sums), mean_of(sums), tested.margin, flips=flips)
    if (scores := _scores(terms, shared)) is not None:
        over = len(scores)
        margin = 100 * _images_margin(scores) / len(shared)
        flips = _flips(terms, shared) if len(terms) == 2 else None
        return Comparison(IMAGES, sign_flip_p(scores), len(shared), mean_of(sums), margin, over, flips)
    if (images := _images(terms)) is None:
        return None
    n = min(len(each.values) for each, _ in terms)
    difference = math.fsum(weight * each.mean for each, weight in terms)
    noise = math.hypot(*(weight * error_rate_noise(each.mean, images) for each, weight in terms))
    p = normal_p(difference / noise) if noise else float(difference == 0)
    return Comparison(UNPAIRED, p, n, difference, NORMAL_QUANTILE * noise, images)


def _images(terms: Sequence[tuple[Candidate, float]]) -> int | None:
    """Return the size of the smallest test set, None where a candidate is no error rate."""
    sizes = [each.images for each, _ in terms if each.images]
    return min(sizes) if len(sizes) == len(terms) else None


def _scores(terms: Sequence[tuple[Candidate, float]], shared: Sequence[Any]) -> np.ndarray[Any, Any] | None:
    """Return per image the weighted sum of its outcomes over candidates and seeds [N], None where one has none.

    Weights are integers here: others have no exact distribution, and no such sum is tested.
    """
    if not shared or any(weight != int(weight) for _, weight in terms):
        return None
    sets: set[tuple[int, str]] = set()
    for candidate, _ in terms:
        if candidate.outcomes is None or any(seed not in candidate.outcomes for seed in shared):
            return None
        sets |= {candidate.outcomes[seed][1:] for seed in shared}
    if len(sets) > 1:
        return None
    total = None
    for candidate, weight in terms:
        for seed in shared:
            assert candidate.outcomes is not None
            bits = _bits(candidate.outcomes[seed]) * int(weight)
            total = bits if total is None else total + bits
    return total


@lru_cache(maxsize=256)
def _bits(outcomes: Outcomes) -> np.ndarray[Any, Any]:
    return unpacked(outcomes, 0, outcomes.size).astype("int32")


def unpacked(outcomes: Outcomes, start: int, end: int) -> np.ndarray[Any, Any]:
    """Return 1 for every image that is right and 0 for every other, of images `start` (a multiple of 8) to `end`."""
    import numpy as np

    packed = np.frombuffer(outcomes.correct, np.uint8)
    return np.unpackbits(packed[start // 8 :], count=end - start)


def _flips(terms: Sequence[tuple[Candidate, float]], shared: Sequence[Any]) -> tuple[int, int] | None:
    (first, _), (second, _) = terms
    only = [0, 0]
    for seed in shared:
        pair = [each.outcomes.get(seed) if each.outcomes else None for each in (first, second)]
        one, two = pair
        if one is None or two is None or one[1:] != two[1:]:
            return None
        left, right = int.from_bytes(one.correct), int.from_bytes(two.correct)
        only[0] += (left & ~right).bit_count()
        only[1] += (right & ~left).bit_count()
    return only[0], only[1]


def sign_flip_p(scores: Any) -> float:
    """Return the exact two-sided p-value of a sum of integers [N] whose signs are by chance: a sign-flip test.

    Where every score is one image more or less, as for two networks of one seed, equal error rates give both signs as
    often, and this is the binomial test of McNemar. Larger scores, of several seeds or of more than two candidates,
    need more than a mean of zero: the null hypothesis is that a score of either sign is as likely at every size, as it
    is where two rows are exchangeable (their outcomes could be swapped). Fisher (1935) has the general form.
    """
    import numpy as np
    from scipy.special import bdtr, bdtrc, gammaln

    observed = abs(int(scores.sum()))
    sizes, counts = np.unique(np.abs(scores[scores != 0]), return_counts=True)
    if not len(sizes) or observed == 0:
        return 1.0
    # The sum of all sizes but the commonest: its values and their probabilities.
    values: np.ndarray[Any, Any] = np.zeros(1)
    chances: np.ndarray[Any, Any] = np.ones(1)
    most = int(counts.argmax())
    for place, (size, count) in enumerate(zip(sizes, counts, strict=True)):
        if place != most:
            ups = np.arange(count + 1)
            steps = size * (2 * ups - count)
            values = (values[:, None] + steps).ravel()
            half = gammaln(count + 1) - gammaln(ups + 1) - gammaln(count - ups + 1) - count * math.log(2)
            chances = (chances[:, None] * np.exp(half)).ravel()
            values, where = np.unique(values, return_inverse=True)
            chances = np.bincount(where, weights=chances)
    size, count = int(sizes[most]), int(counts[most])
    # With k of `count` positive, the sum is value + size (2k - count); it is extreme at or beyond `observed`.
    high = np.ceil(((observed - values) / size + count) / 2)
    low = np.floor(((-observed - values) / size + count) / 2)
    above = np.where(high <= 0, 1.0, bdtrc(np.clip(high - 1, 0, count), count, 0.5))
    below = np.where(low < 0, 0.0, bdtr(np.clip(low, 0, count), count, 0.5))
    return min(1.0, float((chances * (above + below)).sum()))


def _images_margin(scores: Any) -> float:
    """Return half the 95 % interval of the mean of the scores [N], as a share of images.

    Normal, with half an image added to each of the four kinds, so that few differences leave no false certainty
    (Agresti and Min, 2005).
    """
    count = len(scores) + 2
    mean = float(scores.sum()) / count
    squares = (float((scores.astype(float) ** 2).sum()) + 1) / count
    return NORMAL_QUANTILE * math.sqrt(max(squares - mean**2, 0.0) / count)
