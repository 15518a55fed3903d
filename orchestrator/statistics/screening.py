"""Find pairs of many candidates that a test may tell apart, without testing every pair."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from orchestrator.statistics.comparison import ENOUGH_SEEDS, Candidate, unpacked

# Few candidates are tested faster than screened.
FEW = 16
# Images whose outcomes are unpacked at once, so that memory stays small for a large test set.
_BLOCK = 4096
Array = np.ndarray[Any, Any]
Screen = Callable[[int], Iterable[int]]


def screened(candidates: Sequence[Candidate], level: float) -> Screen:
    """Return a function from a candidate's place to the places before it whose test with it may have p < `level`.

    The test is that of `compare`. Pairs that are left out have p >= `level`; those that remain must be tested, since
    their statistic was computed less exactly here. Where candidates have different seeds, or outcomes of a part of
    them are kept, every pair remains.
    """
    if len(candidates) < FEW:
        return range
    seeds = candidates[0].values.keys()
    if any(each.values.keys() != seeds for each in candidates):
        return range
    kept = [each.outcomes is not None and each.outcomes.keys() >= seeds for each in candidates]
    values = np.array([[each.values[seed] for seed in sorted(seeds)] for each in candidates])
    images = np.array([float(each.images or np.inf) for each in candidates])
    if len(seeds) >= ENOUGH_SEEDS:
        return _by_seeds(values, images, level)
    if all(kept):
        sets = {each.outcomes[seed][1:] for each in candidates if each.outcomes for seed in seeds}
        return _by_images(candidates, sorted(seeds), level) if len(sets) == 1 else range
    if any(kept) or not np.isfinite(images).all():
        return range
    return _by_size(values.mean(1), images, level)


def _by_seeds(values: Array, images: Array, level: float) -> Screen:
    """Screen by Student's t, paired over the seeds, of values [K, S]."""
    from scipy.special import stdtrit

    count = values.shape[1]
    beyond = -float(stdtrit(count - 1, level / 2)) * (1 - 1e-6) / count**0.5

    def places(place: int) -> Iterable[int]:
        differences = values[:place] - values[place]
        # As in `paired_test`: shares of a test set scatter by no less than the rounding to one image.
        least = np.where(np.isinf(images[:place]) | np.isinf(images[place]), 0.0, _step(images, place))
        spread = np.maximum(differences.std(1, ddof=1), least)
        return _places(abs(differences.mean(1)) >= beyond * spread)

    return places


def _step(images: Array, place: int) -> Array:
    smallest = np.minimum(images[:place], images[place])
    return np.asarray(100 / smallest / 12**0.5)


def _by_size(means: Array, images: Array, level: float) -> Screen:
    """Screen by the binomial noise of the test sets, of means [K] in percent."""
    from scipy.special import ndtri

    beyond = -float(ndtri(level / 2)) * (1 - 1e-6)
    rates = np.clip(means / 100, 0, 1)
    squares = rates * (1 - rates)

    def places(place: int) -> Iterable[int]:
        noise = 100 * np.sqrt((squares[:place] + squares[place]) / np.minimum(images[:place], images[place]))
        return _places(abs(means[:place] - means[place]) >= beyond * noise)

    return places


def _by_images(candidates: Sequence[Candidate], seeds: Sequence[Any], level: float) -> Screen:
    """Screen by the normal approximation of the sign-flip test, which every pair of few differing images is left to.

    With scores of size 2 at most and a sum of squares v, the exact p-value is that of the normal times a factor of
    about exp(-z^4 / 3v) or more; pairs whose factor may be 1/2 or less remain.
    """
    from scipy.special import ndtri

    # The sums over seeds of rights per image are [K, N]; all that is needed are their products with one another.
    right = [[each.outcomes[seed] for seed in seeds] for each in candidates if each.outcomes]
    size = right[0][0].size
    products = np.zeros((len(right), len(right)))
    for start in range(0, size, _BLOCK):
        sums = [sum(unpacked(each, start, min(start + _BLOCK, size)) for each in row) for row in right]
        block = np.array(sums, np.float32)
        products += block @ block.T
    totals = np.array([sum(int.from_bytes(each.correct).bit_count() for each in row) for row in right])
    # A normal p-value of twice the level is still of no interest.
    beyond = -float(ndtri(min(level, 0.5)))
    own = products.diagonal()

    def places(place: int) -> Iterable[int]:
        squares = own[:place] + own[place] - 2 * products[:place, place]
        differences = abs(totals[:place] - totals[place])
        return _places((differences >= beyond * np.sqrt(squares)) | (squares < beyond**4))

    return places


def _places(where: Array) -> Iterable[int]:
    return (int(place) for place in where.nonzero()[0])
