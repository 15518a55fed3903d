"""The data of a training run: its splits, their training batches and their evaluation batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from trainer.config import TrainConfig
from trainer.data.augmentation import AugmentedLoader, EpochLoader, Loader, Normalizer, normalizer
from trainer.data.reading import ImageFiles, Split, normalization, ranks_within_class, read_dataset, stratified_split
from trainer.data.streaming import StreamingLoader, streamed_pixels
from trainer.datasets import DataError
from trainer.distributed import process_count, shard
from trainer.method import Method
from trainer.spec import RGB

__all__ = [
    *("DataError", "EpochLoader", "EvaluationSet", "EvaluationSets", "Images", "Splits"),
    *("epoch_loader", "evaluation_sets", "load_splits"),
]

# Images per evaluation batch on a CPU and on a GPU.
BATCH_SIZE, GPU_BATCH_SIZE = 500, 2_000


@dataclass(frozen=True)
class Splits:
    """Images for training and evaluation, and the normalisation of all of them (for pixels from 0 to 1).

    `out_of_distribution` holds the test images of a second data set; its labels are not used.
    """

    train: Split
    test: Split
    validation: Split | None
    out_of_distribution: Split | None
    mean: RGB
    std: RGB


def load_splits(config: TrainConfig, data_root: Path) -> Splits:
    """Read the data sets of a configuration; nothing is downloaded here (`trainer.data.download.prepare` does that).

    The validation images leave the training set first, each class in proportion: the same images for every seed and
    subset. Of the rest, `subset` keeps the first of each class. The test set is always whole, so that errors can be
    compared.

    Raises DataError when files are missing or damaged, or when `validation` asks for too many images.
    """
    train, test = read_dataset(config.dataset, data_root)
    mean, std = normalization(config, train)
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
        outside = _resized(read_dataset(config.ood_dataset, data_root)[1], train.size)
    return Splits(train, test, validation, outside, mean, std)


def epoch_loader(
    splits: Splits,
    config: TrainConfig,
    device: torch.device,
    *,
    class_pairs: bool,
    augmenting: Sequence[Method] = (),
) -> Loader:
    """Return the training batches: from the device's memory, or from worker processes if images stay in files.

    The methods in `augmenting` change them, in this order.
    """
    loader: Loader
    if isinstance(splits.train, ImageFiles):
        loader = StreamingLoader(splits.train, config, device, class_pairs=class_pairs)
    else:
        normalized = normalizer(config, splits.train.size, device, (splits.mean, splits.std))
        loader = EpochLoader(splits.train, config, device, class_pairs=class_pairs, normalized=normalized)
    return AugmentedLoader(loader, augmenting, config.seed) if augmenting else loader


class EvaluationSet:
    """The images of a split in order, as they are evaluated: without augmentation, whole or this process's part.

    Images in memory and the labels lie on the device from the start. `count` are the images of all processes.
    """

    def __init__(
        self, images: Split, config: TrainConfig, device: torch.device, normalized: Normalizer | None = None
    ) -> None:
        self.count = len(images)
        if process_count() > 1:
            images = images.take(torch.arange(self.count)[shard(self.count).images])
        self._device, self._files = device, images if isinstance(images, ImageFiles) else None
        self._pixels = None if isinstance(images, ImageFiles) else images.pixels.to(device)
        self.labels = images.labels.to(device)
        self.size = images.size
        self._normalized = normalized or normalizer(config, self.size, device)

    def first(self, count: int) -> EvaluationSet:
        """Return the set of the first `count` images, which shares their memory."""
        few = copy(self)
        few.count = min(count, self.count)
        few.labels = self.labels[:count]
        few._pixels = None if self._pixels is None else self._pixels[:count]
        few._files = self._files and self._files.take(torch.arange(min(count, len(self._files))))
        return few

    def batches(self, size: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield normalised inputs [B, 3, H, W] (channels_last) and labels [B], `size` images at a time."""
        size = size or self.batch_size
        parts: Iterable[Tensor] = ()
        if self._files is not None:
            parts = streamed_pixels(self._files, self._device, size)
        elif self._pixels is not None:
            parts = self._pixels.split(size)
        for pixels, labels in zip(parts, self.labels.split(size), strict=True):
            yield self._normalized(pixels), labels

    @property
    def batch_size(self) -> int:
        """Return the images per batch: many for a GPU, which small images leave idle."""
        on_gpu = self._device.type == "cuda" and self._pixels is not None and self.size <= 32
        return GPU_BATCH_SIZE if on_gpu else BATCH_SIZE


class EvaluationSets(NamedTuple):
    """The splits that a run is evaluated on; `validation` and `out_of_distribution` where there are any."""

    test: EvaluationSet
    validation: EvaluationSet | None
    out_of_distribution: EvaluationSet | None


def evaluation_sets(splits: Splits, config: TrainConfig, device: torch.device) -> EvaluationSets:
    """Put the splits that are evaluated on the device, once for all epochs."""
    normalized = normalizer(config, splits.test.size, device, (splits.mean, splits.std))
    test = EvaluationSet(splits.test, config, device, normalized)
    optional = (
        None if split is None else EvaluationSet(split, config, device, normalized)
        for split in (splits.validation, splits.out_of_distribution)
    )
    return EvaluationSets(test, *optional)


def _resized(images: Split, size: int) -> Split:
    """Resize images of another data set to the input size of this one (bilinear, antialiased)."""
    if isinstance(images, ImageFiles):
        return replace(images, size=size)
    if images.size == size:
        return images
    parts = [
        interpolate(part.permute(0, 3, 1, 2).float(), (size, size), mode="bilinear", antialias=True)
        for part in images.pixels.split(1000)
    ]
    return replace(images, pixels=torch.cat([part.round().byte().permute(0, 2, 3, 1) for part in parts]))
