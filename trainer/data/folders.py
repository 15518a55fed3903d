"""Folders of images: find the images of a data set, and their labels. No torch here.

The layout is `FOLDER/train/CLASS/*` and `FOLDER/test/CLASS/*`; without `test`, `val` is the test set (as for ImageNet).
Labels number the training classes in the order of their names. `CLASS/images/*` and `val/val_annotations.txt` are
understood as well (Tiny ImageNet). PNG and JPEG files are images.

Nothing else is skipped without a message. Pictures in other formats, folders within a class and special files are
refused by name; other files and folders are counted, and `Listing.notes` has their number. One rule exempts files that
systems leave everywhere: names that begin with a dot, and those of `CLUTTER`. Names are compared in Unicode's composed
form (NFC), because those of a Mac's archives are decomposed and look the same.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

from trainer.datasets import DataError, dataset_spec

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".pjpeg", ".pjp")
# Pictures that Pillow has no reader for, beside all those that it has one for.
OTHER_PICTURES = (".heic", ".heif", ".jxl", ".svg", ".dcm", ".dng", ".cr2", ".nef", ".arw", ".exr", ".hdr")
# Compared in lower case.
CLUTTER = ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "@eadir", "__macosx", "$recycle.bin", "lost+found")


class Listing(NamedTuple):
    """The class names; for each split, every image with its label; and lines about what is left out."""

    classes: list[str]
    train: list[tuple[str, int]]
    test: list[tuple[str, int]]
    notes: list[str]


class _Layout(NamedTuple):
    """The folders of each class, the images' own first; `annotations` instead of test folders where one file names
    the test labels. `left_out` are the files and folders seen on the way."""

    train: dict[str, list[Path]]
    test: dict[str, list[Path]]
    annotations: Path | None
    left_out: list[str]


def list_folder(name: str, root: Path) -> Listing:
    """List the images of a data set, sorted by class and file name.

    Raises DataError when a folder is missing, empty or cannot be read, when it holds what might be an image but is
    not read, when a test class was never trained, or when the number of images is not the published one.
    """
    layout = _layout(name, root)
    classes = list(layout.train)
    labels = {class_name: label for label, class_name in enumerate(classes)}
    train = _labelled(name, layout.train, labels, layout.left_out)
    if layout.annotations:
        test = _annotated(name, layout.annotations, labels)
    else:
        test = _labelled(name, layout.test, labels, layout.left_out)
    spec = dataset_spec(name)
    for split, images, published in (("training", train, spec.train_images), ("test", test, spec.test_images)):
        if published is not None and len(images) != published:
            raise DataError(
                f"{name}: {root / str(spec.folder)} holds {len(images):,} {split} images, the published data set "
                f"{published:,}; delete the folder and get it again"
            )
    # The published data sets' own extra files are no news.
    notes = [] if spec.train_images is not None else _notes(name, layout)
    return Listing(classes, train, test, notes)


def check_folder(name: str, root: Path) -> None:
    """Look for one image in every class, without listing them all: quick also for ImageNet.

    Raises DataError as `list_folder` does, except for what only a whole list can show.
    """
    layout = _layout(name, root)
    for folders in (*layout.train.values(), *layout.test.values()):
        next(_images(name, folders[0], []))


def folder_fingerprint(name: str, root: Path) -> tuple[int, ...]:
    """Return a value that changes when an image is added or removed: the folders' modification times."""
    layout = _layout(name, root)
    beside = [layout.annotations] if layout.annotations else []
    folders = [folders[0] for folders in (*layout.train.values(), *layout.test.values())]
    return tuple(path.stat().st_mtime_ns for path in (*folders, *beside))


def base_folder(name: str, root: Path) -> Path:
    """Return the folder of a data set below the data root, in whichever Unicode form its name is written there."""
    path = root
    for part in Path(str(dataset_spec(name).folder)).parts:
        if not os.path.lexists(path / part) and path.is_dir():
            part = next((other for other in os.listdir(path) if _composed(other) == _composed(part)), part)
        path = path / part
    return path


def expected_layout(base: Path) -> str:
    """Return where the images of a data set belong, for messages."""
    return f"{base / 'train'}/CLASS/ and {base / 'test'}/CLASS/ (or {base / 'val'}/CLASS/)"


def printable(path: str) -> str:
    """Return a path that any output takes: what is not valid UTF-8 in it is written as \\xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _layout(name: str, root: Path) -> _Layout:
    spec = dataset_spec(name)
    base = base_folder(name, root)
    left_out: list[str] = []
    train = _class_folders(name, base, "train", left_out)
    if spec.classes is not None and len(train) != spec.classes:
        raise DataError(
            f"{name}: {base / 'train'} has {len(train)} class folders, the published data set {spec.classes}; "
            "delete the folder and get it again, or name another data set of yours folder:NAME"
        )
    annotations = base / "val" / "val_annotations.txt"
    if annotations.is_file():
        return _Layout(train, {}, annotations, left_out)
    split = "test" if _has_class_folders(base / "test") else "val"
    test = _class_folders(name, base, split, left_out)
    for class_name, folders in test.items():
        if class_name not in train:
            raise DataError(
                f"{name}: {folders[-1]} is a class that {base / 'train'} does not have; remove or rename it"
            )
    for entry in _visible(base):
        # Texts about the data set lie here rightly.
        if entry.name not in ("train", split) and (_is_folder(entry) or _is_picture(entry.name)):
            left_out.append(entry.path)
    return _Layout(train, test, None, left_out)


def _has_class_folders(folder: Path) -> bool:
    return folder.is_dir() and any(_is_folder(entry) for entry in _visible(folder))


def _class_folders(name: str, base: Path, split: str, left_out: list[str]) -> dict[str, list[Path]]:
    """Return the folders of each class of a split, in the order of the classes' names.

    The first folder holds the images; a second is the one around it, which must have none.
    """
    folder = base / split
    if not _has_class_folders(folder):
        # Where neither is there, it is `test` that people know.
        folder = folder if folder.is_dir() or split == "train" else base / "test"
        state = "has no class folders" if folder.is_dir() else "is missing"
        raise DataError(f"{name}: {folder} {state}; put the images into {expected_layout(base)}")
    named: dict[str, list[Path]] = {}
    for entry in sorted(_visible(folder), key=lambda entry: _composed(entry.name)):
        if _is_folder(entry):
            path, inner = Path(entry.path), Path(entry.path) / "images"
            class_name = _composed(entry.name)
            if class_name in named:
                raise DataError(
                    f"{name}: {folder} has two folders {class_name!r} whose names look the same and differ in their "
                    f"Unicode form ({named[class_name][-1].name!a} and {entry.name!a}); put them together"
                )
            named[class_name] = [inner, path] if inner.is_dir() else [path]
        elif _is_picture(entry.name):
            raise DataError(f"{name}: {entry.path} lies outside the class folders of {folder}; move or delete it")
        else:
            left_out.append(entry.path)
    return named


def _labelled(
    name: str, classes: dict[str, list[Path]], labels: dict[str, int], left_out: list[str]
) -> list[tuple[str, int]]:
    listed = []
    for class_name, (folder, *around) in classes.items():
        images = sorted(_images(name, folder, left_out), key=_composed)
        listed += [(path, labels[class_name]) for path in images]
        for entry in (entry for outer in around for entry in _visible(outer)):
            if entry.path == str(folder):
                continue
            if _is_folder(entry) or _is_picture(entry.name):
                raise DataError(f"{name}: {entry.path} lies beside {folder}; move it there or delete it")
            left_out.append(entry.path)
    return listed


def _images(name: str, folder: Path, left_out: list[str]) -> Iterator[str]:
    empty = True
    for entry in _visible(folder):
        if _is_folder(entry):
            raise DataError(
                f"{name}: {entry.path} is a folder within a class, whose images would not be read; move them to "
                f"{folder}, or move or delete the folder"
            )
        if entry.name.lower().endswith(IMAGE_SUFFIXES):
            # Reading a pipe would never end.
            if not os.path.isfile(entry.path) if entry.is_symlink() else not entry.is_file():
                state = "is a link that leads to no file" if entry.is_symlink() else "is no file"
                raise DataError(f"{name}: {entry.path} {state}; replace or delete it")
            empty = False
            yield entry.path
        elif _is_picture(entry.name):
            raise DataError(f"{name}: {entry.path} is neither PNG nor JPEG; convert it to one of them or delete it")
        else:
            left_out.append(entry.path)
    if empty:
        raise DataError(f"{name}: {folder} holds no PNG or JPEG image; fill it, or delete this class folder")


def _visible(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and entry.name.lower() not in CLUTTER:
                    yield entry
    except OSError as error:
        raise DataError(
            f"{error.filename or folder}: cannot be read ({error.strerror}); see to it, or delete it"
        ) from None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # A link that leads back to itself.
        return False


def _is_picture(file_name: str) -> bool:
    suffix = os.path.splitext(file_name)[1].lower()
    return suffix in IMAGE_SUFFIXES or suffix in OTHER_PICTURES or suffix in _pillow_suffixes()


@cache
def _pillow_suffixes() -> frozenset[str]:
    from PIL import Image

    return frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN)


def _composed(file_name: str) -> str:
    return normalize("NFC", file_name)


def _notes(name: str, layout: _Layout) -> list[str]:
    """Return lines about the files and folders that are left out, and about classes without a test image."""
    notes = []
    folders = [path for path in layout.left_out if os.path.isdir(path)]
    files = [path for path in layout.left_out if not os.path.isdir(path)]
    if files:
        kinds = Counter(os.path.splitext(path)[1].lower() or "without an ending" for path in files).most_common()
        listed = ", ".join(f"{count:,} {printable(kind)}" for kind, count in kinds[:5])
        more = f" and {len(kinds) - 5} other kinds" if len(kinds) > 5 else ""
        left = f"left out {len(files):,} file{'s' if len(files) > 1 else ''} that no image is read from"
        notes.append(f"{name}: {left}: {listed}{more} (such as {printable(min(files))})")
    if folders:
        notes.append(f"{name}: left out {_several('folder', folders)} beside the training and the test set")
    if untested := [class_name for class_name in layout.train if class_name not in layout.test]:
        notes.append(f"{name}: the test set has no image of {_several('class', untested)}")
    return notes


def _several(noun: str, names: Sequence[str]) -> str:
    shown = ", ".join(printable(one) for one in sorted(names)[:5])
    more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
    plural = "es" if noun.endswith("s") else "s"
    return f"{len(names):,} {noun}{plural if len(names) > 1 else ''} ({shown}{more})"


def _annotated(name: str, annotations: Path, labels: dict[str, int]) -> list[tuple[str, int]]:
    """Return the test images and labels of Tiny ImageNet, from lines of file name, class, and a box that is ignored."""
    test = []
    for number, line in enumerate(annotations.read_text().splitlines(), start=1):
        file_name, class_name, *_ = (*line.split("\t"), "", "")
        path = annotations.parent / "images" / file_name
        if class_name not in labels or not path.is_file():
            raise DataError(f"{name}: {annotations}, line {number}: {line!r} does not name an image and its class")
        test.append((str(path), labels[class_name]))
    return sorted(test)
