"""Check parts before they are trusted: every term, state, draw and shape, on digits and on a CPU, in seconds each.

Our own parts are tested by the same checks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from trainer.checks import dataset, method, metric, network, recipe
from trainer.errors import TrainerError
from trainer.plugin_files import raised
from trainer.registry import Part

Check = Callable[[Part[Any]], str | None]


@dataclass(frozen=True)
class Checked:
    """A promise that was checked of a part, and what was found to be wrong with it and what to do, or None."""

    part: Part[Any]
    promise: str
    problem: str | None


def check_part(part: Part[Any], data_root: Path) -> Iterator[Checked]:
    """Check a registered part; yields each promise when it was checked.

    Data sets are read below `data_root`; everything else is tried on images that need no files. What a part raises is a
    problem of the part. The state of torch's global generator is left as it was.
    """
    # Of each kind, promises in words, and functions that return what is wrong with a part, or None.
    of_dataset: dict[str, Check] = {
        promise: partial(check, data_root=data_root) for promise, check in dataset.CHECKS.items()
    }
    checks: dict[str, dict[str, Check]] = {
        "method": method.CHECKS,
        "network": network.CHECKS,
        "data set": of_dataset,
        "metric": metric.CHECKS,
        "optimizer": recipe.OPTIMIZER_CHECKS,
        "schedule": recipe.SCHEDULE_CHECKS,
    }
    for promise, check in checks[part.kind].items():
        with torch.random.fork_rng(devices=[]):
            try:
                problem = check(part)
            except TrainerError as error:
                # Such a message says where and what to do, and begins with the name of the data set.
                problem = " ".join(str(error).split()).removeprefix(f"{part.name}: ")
            except Exception as error:
                problem = _raised(part, error)
        yield Checked(part, promise, problem)


def _raised(part: Part[Any], error: Exception) -> str:
    """Return what was raised, with the last line of the part's own files that led there."""
    where, what = raised(error, part.files)
    return f"{where}: raises {what}" if where else f"raises {what}"
