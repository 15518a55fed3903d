"""Facts about the data sets: classes, sizes, normalisation and where the files come from. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

# The values of the released code of both papers, used there for CIFAR-100 as well.
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class DatasetSpec:
    """What is known of a data set before its files are opened.

    `classes` and `train_images` are None where only the files can tell. `size` is the side of the square images
    in pixels. `flip` says whether a mirrored image keeps its label.
    """

    classes: int | None
    train_images: int | None
    size: int
    mean: tuple[float, float, float] = CIFAR_MEAN
    std: tuple[float, float, float] = CIFAR_STD
    flip: bool = True


DATASETS: dict[str, DatasetSpec] = {
    "cifar10": DatasetSpec(10, 50_000, 32),
    "cifar100": DatasetSpec(100, 50_000, 32),
    "svhn": DatasetSpec(10, 73_257, 32, flip=False),
    "tinyimagenet": DatasetSpec(200, 100_000, 64, IMAGENET_MEAN, IMAGENET_STD),
    "imagenet": DatasetSpec(1000, 1_281_167, 224, IMAGENET_MEAN, IMAGENET_STD),
    # scikit-learn's handwritten digits: 1,797 images in all, 1,437 of them for training.
    "digits": DatasetSpec(10, 1_437, 32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), flip=False),
    # Random images with a class-dependent mean: made in memory, for speed measurements and tests.
    "synthetic": DatasetSpec(100, 10_000, 32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
}

FOLDER_PREFIX = "folder:"


def dataset_spec(name: str) -> DatasetSpec:
    """The facts about a data set; `folder:NAME` is any folder of images below the data root.

    Raises KeyError for an unknown name.
    """
    if name.startswith(FOLDER_PREFIX) and len(name) > len(FOLDER_PREFIX):
        return DatasetSpec(None, None, 32)
    return DATASETS[name]
