"""Facts about the data sets: classes, sizes, normalisation and where the files come from. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from trainer.errors import FailureClass, TrainerError

# The values of the released code of both papers, used there for CIFAR-100 as well.
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

RGB = tuple[float, float, float]


class DataError(TrainerError):
    """A data set is missing, damaged or cannot be used; the message says what is wrong and what to do."""

    failure: ClassVar[FailureClass] = "data"


class DataAway(DataError):
    """A data set cannot be fetched now: the network, its server or the disk; the same command may succeed later."""

    # Exit code EX_TEMPFAIL of sysexits.h.
    exit_code = 75
    failure = "infrastructure"


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
    """What is known of a data set before its files are opened.

    `classes`, `train_images`, `test_images` and `largest_class` (the training images of the class that has most) are
    None where only the files can tell. `size` is the side of the square images in pixels. `flip` says whether a
    mirrored image keeps its label. The data set is either `files`, or a `folder` of image files, both below the data
    root, or is made in memory. `archive` is where they come from; without one, `source` tells people where to look.
    `streamed` images are read from disk in every epoch; others are kept in memory.
    """

    classes: int | None
    train_images: int | None
    size: int
    mean: RGB = CIFAR_MEAN
    std: RGB = CIFAR_STD
    flip: bool = True
    test_images: int | None = None
    largest_class: int | None = None
    files: tuple[DataFile, ...] = ()
    folder: str | None = None
    archive: Archive | None = None
    source: str = ""
    streamed: bool = False

    @property
    def counts(self) -> tuple[int, int, int]:
        """Return the published numbers of classes, training images and test images."""
        assert self.classes is not None and self.train_images is not None and self.test_images is not None
        return self.classes, self.train_images, self.test_images


DATASETS: dict[str, DatasetSpec] = {
    "cifar10": DatasetSpec(
        10,
        50_000,
        32,
        test_images=10_000,
        largest_class=5_000,
        files=(
            DataFile("cifar-10-batches-py/data_batch_1", "c99cafc152244af753f735de768cd75f"),
            DataFile("cifar-10-batches-py/data_batch_2", "d4bba439e000b95fd0a9bffe97cbabec"),
            DataFile("cifar-10-batches-py/data_batch_3", "54ebc095f3ab1f0389bbae665268c751"),
            DataFile("cifar-10-batches-py/data_batch_4", "634d18415352ddfa80567beed471001a"),
            DataFile("cifar-10-batches-py/data_batch_5", "482c414d41f54cd18b22e5b47cb7c3cb"),
            DataFile("cifar-10-batches-py/test_batch", "40351d587109b95175f43aff81a1287e"),
        ),
        archive=Archive("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"),
    ),
    "cifar100": DatasetSpec(
        100,
        50_000,
        32,
        test_images=10_000,
        largest_class=500,
        files=(
            DataFile("cifar-100-python/train", "16019d7e3df5f24257cddd939b257f8d"),
            DataFile("cifar-100-python/test", "f0ef6b0ae62326f3e7ffdfab6717acfc"),
        ),
        archive=Archive("https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85"),
    ),
    "svhn": DatasetSpec(
        10,
        73_257,
        32,
        flip=False,
        test_images=26_032,
        largest_class=13_861,
        files=(
            DataFile(
                "train_32x32.mat",
                "e26dedcc434d2e4c54c9b2d4a06d8373",
                "http://ufldl.stanford.edu/housenumbers/train_32x32.mat",
            ),
            DataFile(
                "test_32x32.mat",
                "eb5a983be6a315427106f1b164d9cef3",
                "http://ufldl.stanford.edu/housenumbers/test_32x32.mat",
            ),
        ),
    ),
    "tinyimagenet": DatasetSpec(
        200,
        100_000,
        64,
        IMAGENET_MEAN,
        IMAGENET_STD,
        test_images=10_000,
        largest_class=500,
        folder="tiny-imagenet-200",
        archive=Archive("http://cs231n.stanford.edu/tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de"),
    ),
    "imagenet": DatasetSpec(
        1000,
        1_281_167,
        224,
        IMAGENET_MEAN,
        IMAGENET_STD,
        test_images=50_000,
        largest_class=1_300,
        folder="imagenet",
        source="https://image-net.org (ILSVRC 2012, for registered users)",
        streamed=True,
    ),
    # scikit-learn's handwritten digits: 1,797 images in all.
    "digits": DatasetSpec(
        10, 1_437, 32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), flip=False, test_images=360, largest_class=146
    ),
    # Random images with a pattern per class: made in memory, for speed measurements and tests.
    "synthetic": DatasetSpec(
        100, 10_000, 32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), test_images=2_000, largest_class=100
    ),
}

FOLDER_PREFIX = "folder:"


def dataset_spec(name: str) -> DatasetSpec:
    """Return the facts about a data set; `folder:NAME` is any folder of images below the data root.

    Raises KeyError for an unknown name.
    """
    if name.startswith(FOLDER_PREFIX) and len(name) > len(FOLDER_PREFIX):
        return DatasetSpec(None, None, 32, folder=name.removeprefix(FOLDER_PREFIX))
    return DATASETS[name]


def normalization_of(dataset: str, kind: str) -> tuple[RGB, RGB]:
    """Return mean and standard deviation per channel, for pixels from 0 to 1: the data set's own, or ImageNet's."""
    if kind == "imagenet":
        return IMAGENET_MEAN, IMAGENET_STD
    spec = dataset_spec(dataset)
    return spec.mean, spec.std
