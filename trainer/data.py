"""The data of a training run: its splits, their training batches and their evaluation batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from trainer.augmentation import EpochLoader, normalizer
from trainer.config import TrainConfig
from trainer.datasets import RGB, DataError, dataset_spec, normalization_of
from trainer.reading import ImageFiles, Images, Split, ranks_within_class, read_dataset, stratified_split
from trainer.streaming import StreamingLoader, streamed_batches

__all__ = ["DataError", "EpochLoader", "Images", "Splits", "epoch_loader", "evaluation_batches", "load_splits"]


@dataclass(frozen=True)
class Splits:
    """What a run trains on and is evaluated on, and the normalisation of all of it (for pixels from 0 to 1).

    `out_of_distribution` holds the test images of a second data set; its labels mean nothing here.
    """

    train: Split
    test: Split
    validation: Split | None
    out_of_distribution: Split | None
    mean: RGB
    std: RGB


def load_splits(config: TrainConfig, data_root: Path) -> Splits:
    """Read the data sets of a configuration; nothing is downloaded here (`trainer.download.prepare` does that).

    The validation images leave the training set first, each class in proportion: the same images for every seed and
    subset. Of the rest, `subset` keeps the first of each class. The test set is always whole, so that errors can be
    compared.

    Raises DataError when files are missing or damaged, or when `validation` asks for too many images.
    """
    train, test = read_dataset(config.dataset, data_root)
    validation = None
    if config.validation:
        try:
            kept, held_out = stratified_split(train.labels, config.validation)
        except ValueError as error:
            raise DataError(f"{config.dataset}: validation: {error}; hold out fewer") from None
        train, validation = train.take(kept), train.take(held_out)
    if config.subset is not None:
        train = train.take((ranks_within_class(train.labels) < config.subset).nonzero().flatten())
    outside = None
    if config.ood_dataset is not None:
        outside = _resized(read_dataset(config.ood_dataset, data_root)[1], dataset_spec(config.dataset).size)
    return Splits(train, test, validation, outside, *normalization_of(config.dataset, config.normalization))


def epoch_loader(
    splits: Splits, config: TrainConfig, device: torch.device, *, class_pairs: bool
) -> EpochLoader | StreamingLoader:
    """The training batches: from the device's memory, or from worker processes where the images stay in files."""
    kind = StreamingLoader if isinstance(splits.train, ImageFiles) else EpochLoader
    return kind(splits.train, config, device, class_pairs=class_pairs)


def evaluation_batches(
    images: Split, config: TrainConfig, device: torch.device, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Normalised inputs [B, 3, H, W] (channels_last) and labels [B] of all images in order, without augmentation."""
    if isinstance(images, ImageFiles):
        yield from streamed_batches(images, config, device, batch_size)
        return
    normalized = normalizer(config, images.pixels.shape[2], device)
    for pixels, labels in zip(images.pixels.split(batch_size), images.labels.split(batch_size), strict=True):
        yield normalized(pixels.to(device)), labels.to(device)


def _resized(images: Split, size: int) -> Split:
    """Images of another data set at the input size of this one (bilinear, antialiased)."""
    if isinstance(images, ImageFiles):
        return replace(images, size=size)
    if images.pixels.shape[1] == size:
        return images
    parts = [
        interpolate(part.permute(0, 3, 1, 2).float(), (size, size), mode="bilinear", antialias=True)
        for part in images.pixels.split(1000)
    ]
    return replace(images, pixels=torch.cat([part.round().byte().permute(0, 2, 3, 1) for part in parts]))
