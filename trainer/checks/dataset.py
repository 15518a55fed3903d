"""Check a data set: that it gives what it declares, the same every time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from trainer.checks.training import difference
from trainer.data import ImageFiles, Images, read_dataset
from trainer.parts import Part


def gives_what_it_declares(part: Part[Any], data_root: Path) -> str | None:
    """Find images or labels that are not those declared. Reading refuses wrong types and shapes."""
    spec = part.facts
    counts = spec.train_images, spec.test_images
    for split, images, count in zip(("training", "test"), read_dataset(part.name, data_root), counts, strict=True):
        if count is not None and count != len(images):
            return f"has {len(images):,} {split} images and declares {count:,}; mend one of the two"
        if not isinstance(images, ImageFiles) and spec.size not in (None, images.pixels.shape[2]):
            return (
                f"has {split} images of {images.pixels.shape[2]} pixels and declares {spec.size}; mend one of the two"
            )
        classes = spec.classes or images.num_classes
        seen = set(images.labels.unique().tolist())
        if not seen <= set(range(classes)):
            return f"has {split} labels up to {max(seen)} and declares {classes} classes; labels are 0 to {classes - 1}"
        missing = sorted(set(range(classes)) - seen)
        if split == "training" and missing:
            return f"has no training image of class {missing[0]} and declares {classes} classes; number them from 0"
    return None


def repeats(part: Part[Any], data_root: Path) -> str | None:
    """Find images that are others when they are read again."""
    contents = []
    for seed in range(2):
        torch.manual_seed(seed)
        contents.append([_content(split) for split in part.make(data_root)])
    if difference(contents[0], contents[1]) is None:
        return None
    return (
        "gives other images when it is read again, so that two trials train on different data: make them from a "
        "generator with a fixed seed, or read them from files"
    )


def _content(split: Any) -> list[Any]:
    if isinstance(split, ImageFiles):
        return [list(split.paths), split.labels]
    pixels, labels = (split.pixels, split.labels) if isinstance(split, Images) else split
    return [torch.as_tensor(pixels), torch.as_tensor(labels)]


CHECKS: dict[str, Callable[..., str | None]] = {
    "it gives what it declares": gives_what_it_declares,
    "it gives the same images every time": repeats,
}
