"""One shared PyTorch trainer: a configuration in, one result per epoch out.

The package knows nothing of grids, Ray or SQL. Importing it, its configuration, its methods and its
result types does not import torch, so that a grid can be checked in milliseconds.
"""

from trainer.errors import TrainerError

__all__ = ["TrainerError"]
