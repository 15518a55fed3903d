"""The picture of docs/tuning.md, on made-up numbers: `python -m tests.reports.search_picture` writes it."""

from __future__ import annotations

import math
from pathlib import Path

from orchestrator.grid.draws import random_values
from orchestrator.grid.search import Space
from orchestrator.records import DrawRow
from reports.columns import TOP1
from reports.figures.drawing import styled
from reports.figures.search import draw
from reports.tuning import Search

PATH = Path(__file__).parents[2] / "docs/images/best-so-far.png"
RATE = Space(("learning_rate",), "log", (0.01, 0.3))
ALPHA = Space(("methods", "pskd", "alpha"), "uniform", (0.3, 0.95))
# The best error (%) of a row, and how much a wrong rate and a wrong alpha cost.
ROWS = {"resnet18/baseline": (24.1, 1.2, 0.0), "resnet18/pskd": (22.0, 2.1, 6.0), "resnet18/byot": (22.6, 1.4, 0.0)}


def search() -> Search:
    """Return a search of 20 draws whose scores a formula gives; draw 0 has a rate of 0.1 and an alpha of 0.8."""
    draws = {}
    for name, (best, rate, alpha) in ROWS.items():
        values = [{RATE.path: 0.1, ALPHA.path: 0.8}]
        values += [random_values([RATE, ALPHA], 100, name, number) for number in range(1, 20)]
        draws[name] = {
            number: DrawRow("", "", "done", 100, error, None)
            for number, one in enumerate(values)
            for error in [best + rate * abs(math.log(one[RATE.path] / 0.04)) + alpha * abs(one[ALPHA.path] - 0.55)]
        }
    return Search("made-up", {"rows": {name: {} for name in ROWS}, "metric": "top1"}, draws)


def main() -> None:
    """Write the picture."""
    made = search()
    figure = draw([(name, made.best_so_far(name, lower=True)) for name in ROWS], TOP1)
    with styled():
        figure.savefig(PATH, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
