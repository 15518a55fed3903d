"""Spread a 5 % test over several looks at growing numbers of seeds: alpha spending for the paired t test.

The boundaries are exact for normal differences, at any number of seeds: no normal approximation of t. SciPy and numpy
are imported where they compute.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from functools import cache
from statistics import NormalDist
from typing import Any, NamedTuple, TypeVar

from orchestrator.statistics.moments import LEVEL

K = TypeVar("K", bound=Hashable)

# Cells of the grid on which the distribution of the statistic is followed from seed to seed.
CELLS = 401
# Steps in which Student's distribution is tabulated, by the angle whose tangent is its quantile.
ANGLES = 20_001


class Verdict(NamedTuple):
    """Decision on a pair at a look: separated or not, and the two-sided p-value below which it would be."""

    separated: bool
    level: float


def verdicts(
    p_values: Mapping[K, float | None], looks: Mapping[K, int], seeds: tuple[int, ...], family: int, before: int = 0
) -> dict[K, Verdict]:
    """Return the verdict on every pair that is still open, by its p-value (None: no test) and its look, from 0.

    `seeds` are those of the looks. `family` is the number of pairs that the error is shared among, `before` how many of
    them were separated at earlier looks. With m pairs not separated, each is tested at 5 % / m, spread over its looks;
    those that it separates leave their share to the others, at once (Holm, 1979, which holds for tests in groups as
    well: Maurer and Bretz, 2013). So the probability of any false separation at any look is at most 5 %.
    """
    decided: dict[K, Verdict] = {}
    while True:
        separated = sum(verdict.separated for verdict in decided.values())
        share = LEVEL / max(1, family - before - separated)
        new = {
            pair: Verdict(p is not None and p <= bound, bound)
            for pair, p in p_values.items()
            if pair not in decided or not decided[pair].separated
            for bound in [look_levels(share, seeds)[looks[pair]]]
        }
        decided |= new
        if not any(verdict.separated for verdict in new.values()):
            return decided


def spent(level: float, share: float) -> float:
    """Return how much of a two-sided level may be used up when `share` of the seeds are there.

    O'Brien and Fleming's manner in the form of Lan and DeMets (1983): 2 - 2 Phi(z / sqrt(share)).
    """
    normal = NormalDist()
    return 2 * normal.cdf(normal.inv_cdf(level / 2) / math.sqrt(share))


@cache
def look_levels(level: float, seeds: tuple[int, ...]) -> tuple[float, ...]:
    """Return for each look, at so many `seeds` (growing, from 2), the two-sided p-value below which it stops.

    Without a difference, the paired t test is below any of them with probability `level`. This is exact for normal
    differences of any variance: let r be their sum over the root of the sum of their squares, after n seeds. Then t is
    a growing function of r, and r after one more seed is (r + u) / sqrt(1 + u^2), where u is Student's t with n degrees
    of freedom over sqrt(n), independent of all earlier r (Basu's theorem). So r is a Markov chain whose distribution
    can be followed, with what has crossed a boundary taken out.
    """
    import numpy as np
    from scipy.optimize import brentq
    from scipy.special import stdtr

    levels: list[float] = []
    used = 0.0
    places: Any = np.empty(0)
    weights: Any = np.empty(0)
    for look, n in enumerate(seeds):
        allowed = spent(level, n / seeds[-1]) - used
        used += allowed
        if look == 0:
            bound = _r_of(-_student_quantile(allowed / 2, n - 1), n)
            edges = np.linspace(-bound, bound, CELLS + 1)
            weights = np.diff(stdtr(n - 1, _t_of(edges, n)))
        else:
            for before in range(seeds[look - 1], n - 1):
                edges = np.linspace(-math.sqrt(before + 1), math.sqrt(before + 1), CELLS + 1)
                weights = np.diff(weights @ _chances(places, edges, before))
                places = (edges[1:] + edges[:-1]) / 2

            bound = brentq(_excess, 0.0, math.sqrt(n), (places, weights, n - 1, allowed), xtol=1e-12)
            edges = np.linspace(-bound, bound, CELLS + 1)
            weights = np.diff(weights @ _chances(places, edges, n - 1))
        places = (edges[1:] + edges[:-1]) / 2
        levels.append(2 * float(stdtr(n - 1, -_t_of(bound, n))))
    return tuple(levels)


def _excess(bound: float, places: Any, weights: Any, n: int, allowed: float) -> float:
    """Return by how much the probability that r is beyond a bound after one more seed exceeds what is allowed."""
    import numpy as np

    below, above = weights @ _chances(places, np.array([-bound, bound]), n)
    return float(below + weights.sum() - above - allowed)


def _chances(places: Any, limits: Any, n: int) -> Any:
    """Return the probabilities [P, L] that r is below each limit after one more seed, from each place after `n`."""
    import numpy as np

    angles, below_angle = _by_angle(n)
    # With u = tan(angle), the next r is sqrt(1 + r^2) sin(angle + turn), where turn = arctan r.
    turn = np.arctan(places)[:, None]
    sine = np.clip(limits[None, :] / np.sqrt(1 + places**2)[:, None], -1.0, 1.0)

    middle = np.arcsin(sine)
    first, outer, last = (
        np.interp(angle - turn, angles, below_angle) for angle in (middle, -math.pi - middle, math.pi - middle)
    )
    return first - outer + 1 - last


@cache
def _by_angle(n: int) -> tuple[Any, Any]:
    """Return angles from -pi/2 to pi/2, and the probability that sqrt(n) times u is below that of each."""
    import numpy as np
    from scipy.special import stdtr

    angles = np.linspace(-math.pi / 2, math.pi / 2, ANGLES)
    below = np.empty(ANGLES)
    below[1:-1] = stdtr(n, math.sqrt(n) * np.tan(angles[1:-1]))
    below[0], below[-1] = 0.0, 1.0
    return angles, below


def _t_of(r: Any, n: int) -> Any:
    """Return Student's t of r; both are of n differences."""
    import numpy as np

    return r * math.sqrt(n - 1) / np.sqrt(np.maximum(n - r**2, 1e-300))


def _r_of(t: float, n: int) -> float:
    return t * math.sqrt(n) / math.sqrt(n - 1 + t * t)


def _student_quantile(below: float, freedom: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, below))
