"""Look up data sets by name: registered ones, folders of images and files of arrays. No torch here."""

from __future__ import annotations

from typing import ClassVar

from trainer.errors import FailureClass, TrainerError
from trainer.parts import DATASETS
from trainer.spec import CIFAR_MEAN, CIFAR_STD, IMAGENET_MEAN, IMAGENET_STD, RGB, DatasetSpec


class DataError(TrainerError):
    """A data set is missing, damaged or cannot be used; the message says what is wrong and what to do."""

    failure: ClassVar[FailureClass] = "data"


class DataAway(DataError):
    """A data set cannot be fetched now: the network, its server or the disk; the same command may succeed later."""

    # Exit code EX_TEMPFAIL of sysexits.h.
    exit_code = 75
    failure = "infrastructure"


# What `dataset: PREFIX:NAME` reads below the data root: a folder of images, and an `.npz` file of arrays.
FOLDER_PREFIX, ARRAYS_PREFIX = "folder:", "npz:"


def dataset_spec(name: str) -> DatasetSpec:
    """Return the facts about a data set: a registered one, `folder:NAME` or `npz:FILE`.

    Raises KeyError for an unknown name.
    """
    prefix, place = name[: name.find(":") + 1], name[name.find(":") + 1 :]
    if prefix == FOLDER_PREFIX and place:
        # The normalisation of the first releases, which folders keep.
        return DatasetSpec(size=32, mean=CIFAR_MEAN, std=CIFAR_STD, folder=place)
    if prefix == ARRAYS_PREFIX and place:
        return DatasetSpec(arrays=place)
    return DATASETS[name].facts


def normalization_of(dataset: str, kind: str) -> tuple[RGB, RGB] | None:
    """Return mean and standard deviation per channel, for pixels from 0 to 1: the data set's own, or ImageNet's.

    None where the training images are to tell.
    """
    if kind == "imagenet":
        return IMAGENET_MEAN, IMAGENET_STD
    spec = dataset_spec(dataset)
    return None if spec.mean is None or spec.std is None else (spec.mean, spec.std)
