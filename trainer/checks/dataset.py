"""Check a data set: that it gives what it declares, the same every time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer.checks.training import difference
from trainer.data import read_dataset
from trainer.registry import Part
from trainer.spec import DatasetSpec


def gives_what_it_declares(part: Part[DatasetSpec], data_root: Path) -> str | None:
    """Find images or labels that are not those declared.

    Raises DataError for those that reading refuses: other types, shapes, sizes, counts, and labels out of range.
    """
    train, _ = read_dataset(part.name, data_root)
    counts = train.labels.bincount(minlength=train.num_classes)
    if not counts.all():
        return (
            f"{part.source} gives no training image of class {counts.tolist().index(0)} of {train.num_classes}; "
            "number classes from 0, and declare as many as there are"
        )
    most, declared = int(counts.max()), part.facts.largest_class
    if declared not in (None, most):
        return (
            f"{part.source} gives {most:,} training images of its largest class; declared are {declared:,}; mend one "
            "of the two"
        )
    return None


def repeats(part: Part[DatasetSpec], data_root: Path) -> str | None:
    """Find images that are others when they are made again; a folder of images is read without the function."""
    if part.facts.folder:
        return None
    contents = []
    for seed in range(2):
        torch.manual_seed(seed)
        contents.append(_content(part.make(data_root)))
    if difference(contents[0], contents[1]) is None:
        return None
    return (
        f"{part.source} gives other images or labels when it is read again, so that two trials train on different "
        "data; make them from a generator with a fixed seed, or read them from files"
    )


def _content(value: Any) -> Any:
    """Return plain values that are equal where the content is, whatever a function gives; digests save memory."""
    if isinstance(value, np.ndarray | Tensor):
        array = np.ascontiguousarray(value)
        return [str(array.dtype), list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()]
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return [_content(part) for part in value]
    return value


CHECKS: dict[str, Callable[..., str | None]] = {
    "it gives what it declares": gives_what_it_declares,
    "it gives the same images every time": repeats,
}
