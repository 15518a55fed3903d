"""Folders of images: which files are the images of a data set, and their labels. No torch here.

The layout is `FOLDER/train/CLASS/*` and `FOLDER/test/CLASS/*`; where there is no `test`, `val` is the test set (as
for ImageNet). Labels number the training classes in the order of their names. `CLASS/images/*` and
`val/val_annotations.txt` are understood as well (Tiny ImageNet). PNG and JPEG files are images; hidden files and
files of other kinds are ignored, except pictures in other formats, which are refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from trainer.datasets import DataError, dataset_spec

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
OTHER_PICTURES = (".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


class Listing(NamedTuple):
    """The class names and, for each split, every image with its label."""

    classes: list[str]
    train: list[tuple[str, int]]
    test: list[tuple[str, int]]


class _Layout(NamedTuple):
    """The folder of each class; `annotations` instead of test folders where one file names the test labels."""

    train: dict[str, Path]
    test: dict[str, Path]
    annotations: Path | None


def list_folder(name: str, root: Path) -> Listing:
    """List the images of a data set, sorted by class and file name.

    Raises DataError when a folder is missing or empty, when a test class was never trained, or when the number of
    images is not the published one.
    """
    layout = _layout(name, root)
    classes = list(layout.train)
    labels = {class_name: label for label, class_name in enumerate(classes)}
    train = [(path, labels[of]) for of, folder in layout.train.items() for path in sorted(_images(name, folder))]
    if layout.annotations:
        test = _annotated(name, layout.annotations, labels)
    else:
        test = [(path, labels[of]) for of, folder in layout.test.items() for path in sorted(_images(name, folder))]
    spec = dataset_spec(name)
    for split, images, published in (("training", train, spec.train_images), ("test", test, spec.test_images)):
        if published is not None and len(images) != published:
            raise DataError(
                f"{name}: {root / str(spec.folder)} holds {len(images):,} {split} images, the published data set "
                f"{published:,}; delete the folder and get it again"
            )
    return Listing(classes, train, test)


def check_folder(name: str, root: Path) -> None:
    """Look for one image in every class, without listing them all: quick also for ImageNet.

    Raises DataError as `list_folder` does, except for what only a count can show.
    """
    layout = _layout(name, root)
    for folder in (*layout.train.values(), *layout.test.values()):
        next(_images(name, folder))


def folder_fingerprint(name: str, root: Path) -> tuple[int, ...]:
    """Changes when an image is added to or removed from any class: the folders' modification times."""
    layout = _layout(name, root)
    beside = [layout.annotations] if layout.annotations else []
    return tuple(path.stat().st_mtime_ns for path in (*layout.train.values(), *layout.test.values(), *beside))


def _layout(name: str, root: Path) -> _Layout:
    spec = dataset_spec(name)
    base = root / str(spec.folder)
    train = _class_folders(name, base, "train")
    if spec.classes is not None and len(train) != spec.classes:
        raise DataError(
            f"{name}: {base / 'train'} has {len(train)} class folders, the published data set {spec.classes}; "
            "delete the folder and get it again, or name another data set of yours folder:NAME"
        )
    annotations = base / "val" / "val_annotations.txt"
    if annotations.is_file():
        return _Layout(train, {}, annotations)
    split = "test" if _has_class_folders(base / "test") else "val"
    test = _class_folders(name, base, split)
    for class_name, folder in test.items():
        if class_name not in train:
            raise DataError(f"{name}: {folder} is a class that {base / 'train'} does not have; remove or rename it")
    return _Layout(train, test, None)


def _has_class_folders(folder: Path) -> bool:
    return folder.is_dir() and any(entry.is_dir() for entry in _visible(folder))


def _class_folders(name: str, base: Path, split: str) -> dict[str, Path]:
    """The folder of images of each class of a split, in the order of their names."""
    folder = base / split
    if not _has_class_folders(folder):
        state = "has no class folders" if folder.is_dir() else "is missing"
        raise DataError(
            f"{name}: {folder} {state}; put the images into {base / 'train'}/CLASS/ and {base / 'test'}/CLASS/"
        )
    found = {}
    for entry in sorted(_visible(folder), key=lambda entry: entry.name):
        if entry.is_dir():
            inner = Path(entry.path) / "images"
            found[entry.name] = inner if inner.is_dir() else Path(entry.path)
        elif entry.name.lower().endswith(IMAGE_SUFFIXES):
            raise DataError(f"{name}: {entry.path} lies outside the class folders of {folder}; move or delete it")
    return found


def _images(name: str, folder: Path) -> Iterator[str]:
    empty = True
    for entry in _visible(folder):
        lowered = entry.name.lower()
        if lowered.endswith(IMAGE_SUFFIXES):
            empty = False
            yield entry.path
        elif lowered.endswith(OTHER_PICTURES):
            raise DataError(f"{name}: {entry.path} is neither PNG nor JPEG; convert it to one of them or delete it")
    if empty:
        raise DataError(f"{name}: {folder} holds no PNG or JPEG image; fill it, or delete this class folder")


def _visible(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from (entry for entry in entries if not entry.name.startswith("."))


def _annotated(name: str, annotations: Path, labels: dict[str, int]) -> list[tuple[str, int]]:
    """The test images and labels of Tiny ImageNet: lines of file name, class, and a box that is not needed."""
    test = []
    for number, line in enumerate(annotations.read_text().splitlines(), start=1):
        file_name, class_name, *_ = (*line.split("\t"), "", "")
        path = annotations.parent / "images" / file_name
        if class_name not in labels or not path.is_file():
            raise DataError(f"{name}: {annotations}, line {number}: {line!r} does not name an image and its class")
        test.append((str(path), labels[class_name]))
    return sorted(test)
