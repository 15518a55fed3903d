"""Pictures of docs/how-sure.md, what seeds separate and the levels of looks, and its table of what looks save.

`python -m tests.orchestrator.statistics.pictures` writes docs/images/seeds-power.png and seeds-looks.png and prints the
table.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from scipy import stats

matplotlib.use("Agg")

from matplotlib import pyplot as plt

from orchestrator.statistics.power import pair_level, separable
from orchestrator.statistics.sequential import look_levels, spent

IMAGES = Path(__file__).parents[3] / "docs/images"
SPREAD, PLAN = 0.3, (3, 5, 7, 9)


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
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(IMAGES / "seeds-power.png", dpi=110)


def looks() -> None:
    """Draw the p-value that each look asks for, and how much of the 5 % is used up by then."""
    figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
    axes.plot(PLAN, [spent(0.05, seeds / PLAN[-1]) for seeds in PLAN], "k.:", label="used up of the 5 % by then")
    axes.plot(PLAN, look_levels(0.05, PLAN), "ko-", label="p needed at this look, one pair")
    axes.plot(PLAN, look_levels(0.05 / 3, PLAN), "ks--", label="p needed at this look, three pairs")
    axes.set(xlabel="seeds at the look", ylabel="p-value", xticks=PLAN)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(IMAGES / "seeds-looks.png", dpi=110)


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
    power()
    looks()
    savings()
