"""Pictures of docs/figures.md: its declarations, drawn from made-up numbers.

`python -m tests.reports.figure_pictures` writes docs/images/figure-NAME.png.
"""

from __future__ import annotations

import math
import random
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from orchestrator.database import Database
from reports.figures import curves
from reports.figures.declared import Plot
from reports.figures.drawing import Drawing
from reports.figures.rendering import rendered
from reports.gathering import gather, plotted
from tests.reports.lookup import declarations
from tests.reports.synthetic import ERROR, GAIN, Filler, configuration, make_database, name_of
from trainer.config import TrainConfig

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/figures.md"
COMBINATIONS = ([], ["byot"], ["pskd"], ["byot", "pskd"])


def steps(epoch: int, epochs: int, noise: random.Random) -> float:
    """Return how far an epoch's error is above the last one's, with a learning rate that falls in three steps."""
    level = 55.0 * math.exp(-8.0 * epoch / epochs)
    level += next(above for end, above in ((0.5, 16.0), (0.75, 3.5), (1.1, 0.0)) if epoch < end * epochs)
    return level + abs(noise.gauss(0, 0.2 + level / 40)) if epoch < epochs - 1 else 0.0


def _trial(config: TrainConfig) -> tuple[str, TrainConfig, dict[str, Any]]:
    """Return a trial with an error that its fields decide."""
    noise = random.Random(f"{config.key()} figures")
    error = ERROR[config.network] - sum(GAIN[name] for name in config.methods) + noise.gauss(0, 0.15)
    error += 1.6 * math.log10(config.learning_rate / 0.08) ** 2 * (1 + 0.5 * ("byot" in config.methods))
    alpha = config.methods.get("pskd", {}).get("alpha")
    error += 9.0 * (alpha - 0.75) ** 2 if alpha is not None else 0.0
    return name_of(config), config, {"error": error, "epochs": 60}


def fill(filler: Filler) -> None:
    """Fill a database with methods, networks, learning rates, seeds, and values of a hyperparameter."""
    filler.above = steps
    rates = [
        configuration(methods, network=network, learning_rate=rate, seed=seed)
        for network in ("resnet18", "resnet50")
        for methods in COMBINATIONS
        for rate in (0.01, 0.03, 0.1, 0.3)
        for seed in range(5)
    ]
    variants: list[Any] = [{"pskd": {"alpha": alpha}} for alpha in (0.2, 0.4, 0.6, 0.8, 1.0)]
    alphas = [
        configuration(methods, network="resnet34", seed=seed)
        for methods in ([], ["byot"], *variants)
        for seed in range(5)
    ]
    filler.grid("rates", {}, map(_trial, rates))
    filler.grid("alphas", {}, map(_trial, alphas))


def page_plots(database: Database) -> list[Plot]:
    """Return the page's figures as data from such a database."""
    return plotted(database, gather(database), figures=declarations(PAGE))


def page_drawings(database: Database) -> list[Drawing]:
    """Return the page's figures, drawn."""
    drawings = []
    for plot in page_plots(database):
        with database.reading() as connection:
            rows = curves.read(connection, plot) if plot.spec.kind == "clock" else {}
        drawing = rendered(plot, rows)
        assert drawing is not None, plot.spec.name
        drawings.append(drawing)
    return drawings


def main() -> None:
    """Write every picture of the page."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs/images"
    with TemporaryDirectory() as place, make_database(Path(place, "results.db"), fill) as database:
        for drawing in page_drawings(database):
            print(drawing.name, "|", drawing.caption)
            drawing.save(Path(place))
            Path(place, f"{drawing.name}.png").replace(folder / f"figure-{drawing.name}.png")


if __name__ == "__main__":
    main()
