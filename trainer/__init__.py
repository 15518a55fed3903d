"""One shared PyTorch trainer: a configuration in, one result per epoch out.

The package knows nothing of grids, Ray or SQL. Importing it, its configuration, its methods and its
result types does not import torch, so that a grid can be checked in milliseconds.
"""

from typing import TYPE_CHECKING

from trainer.errors import TrainerError
from trainer.lazy import on_first_use

if TYPE_CHECKING:
    from trainer.method import Batch, Method, Output, Requires
    from trainer.parts import dataset, metric, network
    from trainer.recipe import Optimizer, Schedule

__all__ = [
    "Batch",
    "Method",
    "Optimizer",
    "Output",
    "Requires",
    "Schedule",
    "TrainerError",
    "dataset",
    "metric",
    "network",
]

if not TYPE_CHECKING:
    __getattr__ = on_first_use(
        __name__,
        {
            ".method": ("Batch", "Method", "Output", "Requires"),
            ".recipe": ("Optimizer", "Schedule"),
            ".parts": ("dataset", "metric", "network"),
        },
    )
