"""Training batches on the device: order, random crops and flips as batched tensor work, and what methods change.

The order and the augmentation of an epoch depend on the seed and the epoch alone, not on the batch size, the device
or the methods; what methods draw comes on top. torch's global generators are left alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from trainer.config import TrainConfig
from trainer.data.reading import Images, ranks_within_class
from trainer.datasets import dataset_spec, normalization_of
from trainer.device import upload
from trainer.distributed import process_count, shard
from trainer.method import Batch, Method, of_whole_batch
from trainer.spec import RGB

Normalizer = Callable[[Tensor], Tensor]


class Loader(Protocol):
    """The source of training batches."""

    def __len__(self) -> int: ...

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch (0-based)."""


class View(NamedTuple):
    """One view of each image of an epoch, in order, [N] each: its index, the crop's corner, whether it is mirrored."""

    indices: Tensor
    top: Tensor
    left: Tensor
    mirrored: Tensor


class EpochLoader:
    """Batches of random crops and flips of images that live on the device as uint8, padded once.

    `config.padding` pixels are added on each side (0: no crop): zeros before normalisation, or the image reflected.
    `class_pairs` adds to each image another of its class, with a crop and flip of its own; an image that is alone in
    its class is paired with itself. The last batch may be smaller. Of several processes that train together, each
    gets its part of every batch.
    """

    def __init__(
        self,
        images: Images,
        config: TrainConfig,
        device: torch.device,
        *,
        class_pairs: bool,
        normalized: Normalizer | None = None,
    ) -> None:
        self._config, self._device, self._class_pairs = config, device, class_pairs
        self._host_labels, self._labels = images.labels, images.labels.to(device)
        self._flip, self._normalized = flips(config), normalized or normalizer(config, images.size, device)
        padded = _padded(images.pixels.to(device), config.padding, config.padding_mode)
        count, height, width, channels = padded.shape
        margin = 2 * config.padding
        # All crops of all images as one view [N, top, left, H, W, 3]: taking a batch of them is a single gather.
        self._crops = padded.as_strided(
            (count, margin + 1, margin + 1, height - margin, width - margin, channels),
            (*padded.stride()[:3], *padded.stride()[1:]),
        )

    def __len__(self) -> int:
        """Return the steps of an epoch."""
        return -(-len(self._labels) // self._config.batch_size)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch (0-based), every image once; draws all random numbers before it returns."""
        drawn = draw_epoch(self._host_labels, self._config, epoch, class_pairs=self._class_pairs)
        # In one transfer, so that the device is waited for once.
        stacked = upload(torch.stack([values.long() for view in drawn for values in view]), self._device)
        views = [
            View(indices, top, left, mirrored.bool())
            for indices, top, left, mirrored in stacked.split(len(View._fields))
        ]
        return (self._batch(views, start) for start in range(0, len(self._labels), self._config.batch_size))

    def _batch(self, views: list[View], start: int) -> Batch:
        count = min(self._config.batch_size, len(self._labels) - start)
        own = shard(count).images
        part = slice(start + own.start, start + own.stop)
        looks = [self._look(View(*(values[part] for values in view))) for view in views]
        indices = views[0].indices[part]
        pair_inputs = looks[1] if self._class_pairs else None
        return Batch(looks[0], self._labels[indices], indices, pair_inputs, count if process_count() > 1 else None)

    def _look(self, view: View) -> Tensor:
        pixels = self._crops[view.indices, view.top, view.left]
        if self._flip:
            pixels = torch.where(view.mirrored[:, None, None, None], pixels.flip(2), pixels)
        return self._normalized(pixels)


class AugmentedLoader:
    """The batches of a loader as the methods of an objective change them.

    Each method has its own stream of random numbers in each epoch, which depends on the seed alone: a method sees the
    same numbers in any company. Of several processes that train together, all change the whole batch and each goes on
    with its part, so that they train on the inputs of a single one.
    """

    def __init__(self, loader: Loader, methods: Sequence[Method], seed: int) -> None:
        self._loader, self._methods, self._seed = loader, methods, seed

    def __len__(self) -> int:
        """Return the steps of an epoch."""
        return len(self._loader)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the changed batches of an epoch (0-based)."""
        streams = [_stream(self._seed, f"augment/{method.name}/{epoch}") for method in self._methods]
        return (self._changed(batch, streams) for batch in self._loader.epoch(epoch))

    def _changed(self, batch: Batch, streams: list[torch.Generator]) -> Batch:
        changed = batch.map(lambda values: of_whole_batch(values, batch))._replace(whole=None)
        for method, stream in zip(self._methods, streams, strict=True):
            changed = method.augment(changed, stream)
        if batch.whole is not None:
            own = shard(batch.whole).images
            changed = changed.map(lambda values: values[own])._replace(whole=batch.whole)
        # As the networks' weights are, and as batches are that nothing changed.
        return changed.map(lambda v: v.contiguous(memory_format=torch.channels_last) if v.ndim == 4 else v)


def draw_epoch(labels: Tensor, config: TrainConfig, epoch: int, *, class_pairs: bool) -> list[View]:
    """Draw the views of an epoch; with `class_pairs` a second view holds the partners of the first's images."""
    generator = _stream(config.seed, f"data/{epoch}")
    count, places = len(labels), 2 * config.padding + 1

    def look(indices: Tensor) -> View:
        corners = torch.randint(places, (2, count), generator=generator)
        return View(indices, corners[0], corners[1], torch.randint(2, (count,), generator=generator).bool())

    order = torch.randperm(count, generator=generator)
    views = [look(order)]
    if class_pairs:
        # Drawn last, so that methods without pairs see the same first views.
        views.append(look(_partners(labels, generator)[order]))
    return views


def _stream(seed: int, purpose: str) -> torch.Generator:
    """Return the random numbers of one seed for one purpose, on the CPU."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8]))


def _partners(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Return for each image [N] the index of a random other one of its class, or itself if there is none."""
    by_class, counts = labels.argsort(stable=True), labels.bincount()
    starts, size = (counts.cumsum(0) - counts)[labels], counts[labels]
    ahead = 1 + (torch.rand(len(labels), generator=generator, dtype=torch.float64) * (size - 1)).long()
    return by_class[starts + (ranks_within_class(labels) + ahead) % size]


def flips(config: TrainConfig) -> bool:
    """Return whether images are mirrored at random: as configured, or where the data set's images keep their label."""
    return dataset_spec(config.dataset).flip if config.flip is None else config.flip


def normalizer(
    config: TrainConfig, size: int, device: torch.device, values: tuple[RGB, RGB] | None = None
) -> Normalizer:
    """Return a function from uint8 [B, size, size, 3] to normalised inputs [B, 3, size, size] in channels_last order.

    `values` are mean and standard deviation per channel, by default the data set's declared ones. Inputs are float32,
    which autocast casts as it does the first weights, or float64 in that precision.
    """
    dtype = torch.float64 if config.precision == "float64" else torch.float32
    mean, std = torch.tensor(values or normalization_of(config.dataset, config.normalization), dtype=torch.float64)
    # For a whole line of pixels at once: many times faster on a CPU than three values at a time.
    scale = (1 / (255 * std)).to(device, dtype).repeat(size)
    shift = (-mean / std).to(device, dtype).repeat(size)

    def normalized(pixels: Tensor) -> Tensor:
        lines = torch.addcmul(shift, pixels.reshape(len(pixels), size, -1).to(dtype), scale)
        return lines.view(len(pixels), size, size, 3).permute(0, 3, 1, 2)

    return normalized


def _padded(pixels: Tensor, padding: int, mode: str) -> Tensor:
    """Pad images [N, H, W, C] with `padding` pixels on each side, as torchvision's RandomCrop does."""
    if padding == 0:
        return pixels.contiguous()
    if mode == "reflect":
        for dimension in (1, 2):
            pixels = pixels.index_select(dimension, _reflected(pixels.shape[dimension], padding).to(pixels.device))
        return pixels
    count, height, width, channels = pixels.shape
    padded = pixels.new_zeros(count, height + 2 * padding, width + 2 * padding, channels)
    padded[:, padding : padding + height, padding : padding + width] = pixels
    return padded


def _reflected(size: int, padding: int) -> Tensor:
    """Return the source of each pixel of a padded line; the mirror is the outermost pixel, which is not repeated."""
    if size == 1:
        return torch.zeros(1 + 2 * padding, dtype=torch.int64)
    period = 2 * (size - 1)
    position = (torch.arange(-padding, size + padding)) % period
    return torch.minimum(position, period - position)
