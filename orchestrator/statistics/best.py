"""Find which candidates may be the best, though the best one is chosen by the same data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from orchestrator.statistics.comparison import ENOUGH_SEEDS, Candidate, Comparison, compare
from orchestrator.statistics.moments import LEVEL

if TYPE_CHECKING:
    from orchestrator.statistics.screening import Screen

HSU, HOLM, NONE = "hsu", "holm", "none"


@dataclass(frozen=True)
class Best:
    """The candidates that may be the best, by index, and how that was decided.

    `despite` are those among them that a candidate with a better mean is not: their own numbers scatter more.
    `comparisons` are those with the candidate of the best mean, `correction` is `none` where two were compared.
    """

    members: frozenset[int] = frozenset()
    despite: frozenset[int] = frozenset()
    comparisons: tuple[Comparison, ...] = ()
    correction: str = NONE


def best_set(candidates: Sequence[Candidate], lower_is_better: bool, digits: int, correction: str = HSU) -> Best:
    """Return the candidates that are not ruled out as the best; none where no test is possible.

    A candidate is ruled out when one with a better mean is better beyond chance. `hsu`: with 95 % confidence the truly
    best candidate is among the members, whichever the data made look best. Of k candidates that one is compared with
    k - 1 others, one-sided, so a pair is separated at 5 % / (k - 1) of one side (Hsu, 1984, with Bonferroni's
    inequality in place of equal variances); for two candidates it is the usual two-sided 5 %. `holm`: all statements
    about all k (k - 1) / 2 pairs hold together with 95 % confidence (Holm, 1979), which asks for more. `none`: each
    candidate against the observed best at 5 %, as if nobody had chosen it.

    What prints the same mean as a member is one.
    """
    if len(candidates) < 2:
        return Best()
    means = [candidate.mean for candidate in candidates]
    order = sorted(range(len(means)), key=lambda index: means[index] if lower_is_better else -means[index])
    best = order[0]
    against = {index: compare(candidates[best], candidates[index]) for index in order[1:]}
    tested = {index: each for index, each in against.items() if each is not None}
    if not tested:
        return Best()
    if len(candidates) == 2 or correction == NONE:
        correction, out = NONE, {index for index, each in tested.items() if each.p < LEVEL}
    else:

        def p_of(better: int, worse: int) -> float | None:
            comparison = against[worse] if better == best else compare(candidates[better], candidates[worse])
            # Over the seeds that both have, the better mean may be the worse one.
            if comparison is None:
                return None
            return comparison.p if (comparison.difference < 0) == lower_is_better else 1.0

        if correction == HSU:
            # numpy loads where a table has rows to compare.
            from orchestrator.statistics.screening import screened

            level = 2 * LEVEL / (len(order) - 1)
            out = _out_by_hsu(order, p_of, level, screened([candidates[index] for index in order], level))
        else:
            out = _out_by_holm(order, p_of)
    # Enough seeds whose differences are equal have no test: nothing rules their candidate out.
    shared = {index: candidates[best].values.keys() & candidates[index].values.keys() for index in against}
    equal = {index for index in against.keys() - tested.keys() if len(shared[index]) >= ENOUGH_SEEDS}
    members = {best, *tested, *equal} - out
    printed = {f"{means[index]:.{digits}f}" for index in members}
    members |= {index for index, mean in enumerate(means) if f"{mean:.{digits}f}" in printed}
    first_out = next((place for place, index in enumerate(order) if index not in members), len(order))
    despite = frozenset(index for index in order[first_out:] if index in members)
    return Best(frozenset(members), despite, tuple(tested.values()), correction)


def _out_by_hsu(
    order: Sequence[int], p_of: Callable[[int, int], float | None], level: float, suspects: Screen
) -> set[int]:
    """Return the candidates that a better one is told from, by the two-sided p-value of (better, worse), if any.

    `order` begins with the best mean; `suspects` names by a candidate's place the better ones' that may rule it out. A
    candidate is compared until one does: in a table of a thousand rows the first ones rule out most.
    """
    return {
        worse
        for place, worse in enumerate(order)
        if any((p := p_of(order[better], worse)) is not None and p < level for better in suspects(place))
    }


def _out_by_holm(order: Sequence[int], p_of: Callable[[int, int], float | None]) -> set[int]:
    """Return the candidates that a better one is told from, by the p-values of all pairs together."""
    p_values = ((p_of(better, worse), worse) for better, worse in combinations(order, 2))
    pairs = sorted((p, worse) for p, worse in p_values if p is not None)
    out = set()
    for place, (p, worse) in enumerate(pairs):
        if p >= LEVEL / (len(pairs) - place):
            break
        out.add(worse)
    return out
