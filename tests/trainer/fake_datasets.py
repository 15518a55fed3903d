"""Tiny data sets in the published formats, and the facts about them put in place of the real ones."""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainer.datasets import dataset_spec
from trainer.parts import DATASETS
from trainer.spec import DataFile, DatasetSpec


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_cifar_pickle(path: Path, labels: list[int], key: bytes, seed: int) -> np.ndarray:
    """Write one batch in the published format; returns the pixels [N, 32, 32, 3]."""
    planes = np.random.RandomState(seed).randint(0, 256, (len(labels), 3072), dtype=np.uint8)
    contents = pickle.dumps({b"data": planes, key: labels, b"filenames": [b"x.png"] * len(labels)}, protocol=3)
    path.parent.mkdir(parents=True, exist_ok=True)
    # As numpy 1 named it when the data sets were published.
    path.write_bytes(contents.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    return planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def fake_cifar100(
    root: Path, patch: pytest.MonkeyPatch, per_class: int = 3, classes: int = 4
) -> tuple[np.ndarray, np.ndarray]:
    """Put a small CIFAR-100 below the root; returns the training and test pixels."""
    labels = [i % classes for i in range(classes * per_class)]
    train = write_cifar_pickle(root / "cifar-100-python/train", labels, b"fine_labels", 1)
    test = write_cifar_pickle(root / "cifar-100-python/test", list(range(classes)), b"fine_labels", 2)
    patch_facts(patch, "cifar100", root, classes=classes, train_images=len(train), test_images=len(test))
    return train, test


def patch_facts(patch: pytest.MonkeyPatch, name: str, root: Path, **facts: object) -> None:
    """Replace the facts of a data set; the MD5 sums become those of the files below the root."""
    files = tuple(DataFile(file.path, md5(root / file.path), file.url) for file in dataset_spec(name).files)
    put_facts(patch, name, files=files, **facts)


def put_facts(patch: pytest.MonkeyPatch, name: str, **facts: object) -> DatasetSpec:
    """Replace facts of a data set; returns all of them."""
    spec = replace(dataset_spec(name), **facts)
    put_spec(patch, name, spec)
    return spec


def put_spec(patch: pytest.MonkeyPatch, name: str, spec: DatasetSpec) -> None:
    """Put facts about a data set in place of the published ones."""
    patch.setitem(DATASETS._parts, name, replace(DATASETS[name], facts=spec))


def write_image(path: Path, size: tuple[int, int] = (32, 32), seed: int = 0, mode: str = "RGB") -> Image.Image:
    """Write an image of smooth random colours, width by height; returns it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.RandomState(seed).randint(0, 256, (4, 4, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize(size, Image.Resampling.BILINEAR).convert(mode)
    image.save(path)
    return image


def fake_folder(base: Path, *, split: str = "test", size: tuple[int, int] = (32, 32), per_class: int = 3) -> None:
    """Classes `ant`, `bee` and `cat` as PNG files below `train` and another split."""
    for number, name in enumerate(("ant", "bee", "cat")):
        for i in range(per_class):
            write_image(base / "train" / name / f"{i}.png", size, seed=10 * number + i)
        write_image(base / split / name / "0.png", size, seed=100 + number)
