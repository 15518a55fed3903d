"""Check a data set: that it gives what it declares, the same every time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from trainer.checks.training import difference
from trainer.data import ImageFiles, read_dataset
from trainer.datasets import DatasetSpec
from trainer.parts import Part


def gives_what_it_declares(part: Part[DatasetSpec], data_root: Path) -> str | None:
    """Find images or labels that are not those declared."""
    spec = part.facts
    for split, images, declared in zip(
        ("training", "test"), read_dataset(part.name, data_root), (spec.train_images, spec.test_images), strict=True
    ):
        labels = images.labels
        if len(labels) == 0:
            return f"has no {split} images"
        if not isinstance(images, ImageFiles):
            shape = tuple(images.pixels.shape)
            if images.pixels.dtype != torch.uint8 or shape != (len(labels), spec.size, spec.size, 3):
                wanted = f"uint8 [{len(labels)}, {spec.size}, {spec.size}, 3]"
                return f"gives {split} pixels {images.pixels.dtype} {list(shape)}; give {wanted}, or declare their size"
        if labels.dtype != torch.int64 or labels.ndim != 1:
            return f"gives {split} labels {labels.dtype} {list(labels.shape)}; give int64 [N]"
        classes = spec.classes or images.num_classes
        if int(labels.min()) < 0 or int(labels.max()) >= classes:
            outside = f"{int(labels.min())} to {int(labels.max())}"
            return f"has {split} labels from {outside} and declares {classes} classes; give 0 to {classes - 1}"
        if split == "training" and len(labels.unique()) < classes:
            missing = sorted(set(range(classes)) - set(labels.unique().tolist()))
            return f"has no training image of class {missing[0]}, and declares {classes} classes"
        if declared is not None and declared != len(labels):
            return f"has {len(labels):,} {split} images and declares {declared:,}"
    return None


def repeats(part: Part[DatasetSpec], data_root: Path) -> str | None:
    """Find images that are others when they are read again."""
    read = []
    for seed in range(2):
        torch.manual_seed(seed)
        read.append([_content(split) for split in read_dataset(part.name, data_root)])
    place = difference(read[0], read[1])
    return place and (
        "gives other images when it is read again: two seeds of a cell would be trained on different data; make them "
        "from a generator with a fixed seed, or read them from files"
    )


def _content(images: Any) -> list[Any]:
    return [images.labels, images.paths if isinstance(images, ImageFiles) else images.pixels]


CHECKS: dict[str, Callable[..., str | None]] = {
    "it gives what it declares": gives_what_it_declares,
    "it gives the same images every time": repeats,
}
