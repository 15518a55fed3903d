"""Pictures of docs/how-sure.md, drawn by the functions that the tables use, and its table of what looks save.

`python -m tests.orchestrator.statistics.pictures` writes docs/images/sure-*.png and seeds-*.png and prints the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from scipy import stats

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from orchestrator.statistics import Candidate, Comparison, best_set, compare
from orchestrator.statistics.power import pair_level, separable
from orchestrator.statistics.sequential import look_levels, spent

IMAGES = Path(__file__).parents[3] / "docs/images"
SPREAD, PLAN = 0.3, (3, 5, 7, 9)
GREY = "0.65"
# Invented errors of two rows, a value per seed, whose seeds scatter far more than their differences.
BASELINE, METHOD = (24.9, 26.0, 25.2, 25.9, 24.7), (24.2, 25.5, 24.8, 25.3, 24.3)
# The errors of four invented rows, for which bold is asked.
ROWS = {
    "A": (97.06, 97.12, 97.12),
    "B": (97.19, 97.24, 97.23),
    "C": (96.90, 98.90, 97.60),
    "D": (98.30, 98.55, 98.35),
}
# Images that only one of two networks has right.
FLIPS = (60, 40)


def paired() -> None:
    """Draw two rows seed by seed, and their differences with the interval of the paired test."""
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(7, 3.2), layout="constrained", gridspec_kw={"width_ratios": [2, 1]}
    )
    for seed, pair in enumerate(zip(BASELINE, METHOD, strict=True)):
        left.plot([seed, seed], pair, color=GREY, zorder=1)
    left.plot(BASELINE, "ko", mfc="w", label="baseline")
    left.plot(METHOD, "ko", label="method")
    left.set(xlabel="seed", ylabel="top-1 error (%)", xticks=range(5), ylim=(23.8, 27.1))
    left.set_title("the errors: the rows overlap", fontsize=10)
    left.legend(frameon=False, loc="upper left", ncols=2)
    comparison = _tested(METHOD, BASELINE)
    differences = np.subtract(METHOD, BASELINE)
    right.axhline(0, color="k", linewidth=0.8)
    right.plot(np.zeros(5), differences, "o", color=GREY)
    right.errorbar(0.3, comparison.difference, comparison.margin, fmt="ks", capsize=4)
    right.annotate(
        f"mean and\n95 % interval\np = {comparison.p:.4f}", (0.42, comparison.difference), va="center", fontsize=9
    )
    right.set(xlim=(-0.3, 1.2), ylim=(-1, 0.25), xticks=[], ylabel="method minus baseline")
    right.set_title("their differences do not", fontsize=10)
    _save(figure, "sure-paired.png")


def images() -> None:
    """Draw how often fair coins give so uneven a split of the images that only one network has right."""
    count, more = sum(FLIPS), max(FLIPS)
    heads = np.arange(25, 76)
    chances = 100 * stats.binom.pmf(heads, count, 0.5)
    extreme = np.abs(heads - count / 2) >= more - count / 2
    p = stats.binomtest(more, count).pvalue
    figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
    axes.bar(heads[~extreme], chances[~extreme], color=GREY)
    axes.bar(
        heads[extreme], chances[extreme], color="k", label=f"{more} : {count - more} or worse: {p:.1%} of all cases"
    )
    axes.set(
        xlabel=f"of {count} images that only one network has right: those that A has right",
        ylabel="cases in 100\nif a coin decided",
    )
    axes.legend(frameon=False, loc="upper left")
    axes.set_ylim(0, 11)
    _save(figure, "sure-images.png")


def bold() -> None:
    """Draw four rows whose second-best mean is ruled out as the best while a worse mean is not."""
    candidates = [Candidate(dict(enumerate(values))) for values in ROWS.values()]
    best = best_set(candidates, lower_is_better=True, digits=2)
    figure, axes = plt.subplots(figsize=(6.5, 2.6), layout="constrained")
    for place, values in enumerate(ROWS.values()):
        may_win = place in best.members
        axes.plot(values, [place] * len(values), "o", color="k" if may_win else GREY)
        axes.plot(candidates[place].mean, place, "|", color="k" if may_win else GREY, markersize=22)
        p = "" if place == 0 else f"   p against A: {_tested(values, ROWS['A']).p:.3f}"
        axes.annotate(
            f"{candidates[place].mean:.2f}{p}", (99.05, place), va="center", weight="bold" if may_win else "normal"
        )
    axes.set(
        yticks=range(len(ROWS)),
        yticklabels=ROWS,
        xlim=(96.8, 100.3),
        ylim=(3.6, -0.6),
        xlabel="error (%), a dot a seed",
    )
    axes.set_xticks([97, 97.5, 98, 98.5, 99])
    _save(figure, "sure-bold.png")


def _tested(first: Sequence[float], second: Sequence[float]) -> Comparison:
    """Compare two rows of values over their shared seeds."""
    comparison = compare(Candidate(dict(enumerate(first))), Candidate(dict(enumerate(second))))
    assert comparison is not None
    return comparison


def _save(figure: Figure, name: str) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(IMAGES / name, dpi=110)


def power() -> None:
    """Draw the difference that so many seeds separate, for groups of different sizes."""
    figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
    axes.set_xticks([3, 5, 7, 10, 15, 20])
    numbers = range(3, 21)
    for rows, style in ((2, "-"), (4, "--"), (8, ":")):
        level = pair_level(rows)
        differences = [separable(SPREAD, seeds, level) for seeds in numbers]
        axes.plot(numbers, differences, f"k{style}", label=f"best of {rows} rows" if rows > 2 else "two rows")
    axes.set(xlabel="seeds of each row", ylabel="difference separated\nin 4 of 5 cases", ylim=(0, 1.6))
    axes.set_title(f"differences of two rows scatter by {SPREAD}", fontsize=10)
    axes.legend(frameon=False)
    _save(figure, "seeds-power.png")


def looks() -> None:
    """Draw the p-value that each look asks for, and how much of the 5 % is used up by then."""
    figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
    axes.plot(PLAN, [spent(0.05, seeds / PLAN[-1]) for seeds in PLAN], "k.:", label="used up of the 5 % by then")
    axes.plot(PLAN, look_levels(0.05, PLAN), "ko-", label="p needed at this look, one pair")
    axes.plot(PLAN, look_levels(0.05 / 3, PLAN), "ks--", label="p needed at this look, three pairs")
    axes.set(xlabel="seeds at the look", ylabel="p-value", xticks=PLAN)
    axes.legend(frameon=False)
    _save(figure, "seeds-looks.png")


def savings() -> None:
    """Print for true differences, in units of their scatter, how many seeds looks need, and what they separate."""
    generator = np.random.default_rng(0)
    for effect in (0.0, 1.0, 1.5, 2.0, 3.0):
        differences = generator.standard_normal((20_000, PLAN[-1])) + effect
        stopped, separated = np.full(len(differences), PLAN[-1]), np.zeros(len(differences), bool)
        for seeds, level in zip(PLAN, look_levels(0.05, PLAN), strict=True):
            now = (stats.ttest_1samp(differences[:, :seeds], 0, axis=1).pvalue <= level) & ~separated
            stopped[now] = seeds
            separated |= now
        whole = stats.ttest_1samp(differences, 0, axis=1).pvalue < 0.05
        print(f"| {effect:g} | {stopped.mean():.1f} | {separated.mean():.0%} | {whole.mean():.0%} |")


if __name__ == "__main__":
    for draw in (paired, images, bold, power, looks):
        draw()
    savings()
