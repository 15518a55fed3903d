"""Define the facts about a data set: classes, sizes, normalisation and where the files come from. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

# The values of the released code of both papers, used there for CIFAR-100 as well.
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

RGB = tuple[float, float, float]


@dataclass(frozen=True)
class DataFile:
    """A file below the data root with the MD5 of its published contents; `url` where it can be had on its own."""

    path: str
    md5: str
    url: str | None = None


@dataclass(frozen=True)
class Archive:
    """A published `.tar.gz` or `.zip` that holds the files or the folder of a data set."""

    url: str
    md5: str


@dataclass(frozen=True)
class DatasetSpec:
    """Describe a data set before its files are opened.

    `classes`, `train_images`, `test_images` and `largest_class` (the training images of the class that has most), and
    `size`, the side of the square images in pixels, are None where only the files can tell. `mean` and `std` per
    channel, for pixels from 0 to 1, are None where the training images are to tell. `flip` says whether a mirrored
    image keeps its label. The data set is either `files`, a `folder` of image files or the `arrays` of an `.npz` file,
    all below the data root, or is made in memory. `archive` is where they come from; without one, `about` tells people
    where to look. `streamed` images are read from disk in every epoch; others are kept in memory.
    """

    classes: int | None = None
    train_images: int | None = None
    size: int | None = None
    mean: RGB | None = None
    std: RGB | None = None
    flip: bool = True
    test_images: int | None = None
    largest_class: int | None = None
    files: tuple[DataFile, ...] = ()
    folder: str | None = None
    arrays: str | None = None
    archive: Archive | None = None
    about: str = ""
    streamed: bool = False
