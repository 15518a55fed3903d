"""Data sets too large for memory: worker processes decode and augment image files (the published ImageNet recipe).

Training cuts a random part of 8 % to 100 % of the area with a ratio between 3/4 and 4/3 out of each image and scales
it (RandomResizedCrop; the whole centre when `config.padding` is 0) and mirrors half of them. Evaluation scales the
shorter side to 256/224 of the input size and takes the centre.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from random import Random
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from trainer.config import TrainConfig
from trainer.data.augmentation import draw_epoch, flips, normalizer
from trainer.data.reading import ImageFiles, fitted, open_image
from trainer.datasets import DataError
from trainer.device import upload
from trainer.distributed import process_count, shard
from trainer.method import Batch

EVALUATION_MARGIN = 256 / 224
MAX_WORKERS = 16

# Input of a worker for one batch: the indices of its images and, for training, a seed for each.
Key = tuple[list[int], list[str] | None]


class StreamingLoader:
    """The same batches as `EpochLoader` gives, from files: `workers` processes read ahead.

    Random numbers belong to an image's place in its epoch, so that the number of workers changes nothing, nor that of
    processes that train together: each reads its part of every batch.
    """

    def __init__(
        self,
        files: ImageFiles,
        config: TrainConfig,
        device: torch.device,
        *,
        class_pairs: bool,
        workers: int | None = None,
    ) -> None:
        self._config, self._device, self._class_pairs = config, device, class_pairs
        self._host_labels, self._labels = files.labels, files.labels.to(device)
        self._normalized = normalizer(config, files.size, device)
        self._keys: list[Key] = []
        decoder = _Decoder(files, random_crop=config.padding > 0, flip=flips(config))
        self._loader = _loader(decoder, self._keys, device, workers, persistent=True)

    def __len__(self) -> int:
        """Return the steps of an epoch."""
        return -(-len(self._labels) // self._config.batch_size)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch (0-based), every image once. An epoch ends before the next one begins."""
        views = draw_epoch(self._host_labels, self._config, epoch, class_pairs=self._class_pairs)
        order = upload(views[0].indices, self._device)
        size = self._config.batch_size
        self._keys.clear()
        for start in range(0, len(order), size):
            places = self._own(start)
            # Views of a batch are decoded together: first the images, then their partners.
            indices = torch.cat([view.indices[places.start : places.stop] for view in views])
            seeds = [f"{self._config.seed}/{epoch}/{view}/{place}" for view in range(len(views)) for place in places]
            self._keys.append((indices.tolist(), seeds))
        return self._batches(order)

    def _own(self, start: int) -> range:
        """Return the positions in the order of an epoch of this rank's shard of the batch at `start`."""
        part = shard(min(self._config.batch_size, len(self._labels) - start)).images
        return range(start + part.start, start + part.stop)

    def _batches(self, order: Tensor) -> Iterator[Batch]:
        starts = range(0, len(order), self._config.batch_size)
        for start, pixels in zip(starts, _decoded(self._loader), strict=True):
            own = self._own(start)
            indices = order[own.start : own.stop]
            inputs = self._normalized(pixels.to(self._device, non_blocking=True))
            whole = min(self._config.batch_size, len(order) - start)
            yield Batch(
                inputs[: len(indices)],
                self._labels[indices],
                indices,
                inputs[len(indices) :] if self._class_pairs else None,
                whole if process_count() > 1 else None,
            )


def streamed_pixels(files: ImageFiles, device: torch.device, batch_size: int) -> Iterator[Tensor]:
    """Yield the pixels [B, size, size, 3] uint8 of all images in order, on the device, without augmentation."""
    keys: list[Key] = [(part.tolist(), None) for part in torch.arange(len(files)).split(batch_size)]
    for pixels in _decoded(_loader(_Decoder(files), keys, device, None, persistent=False)):
        yield pixels.to(device, non_blocking=True)


class _Decoder(Dataset[Tensor | DataError]):
    """Decodes a batch at a time, in a worker process. Damaged files are returned as errors, not raised there."""

    def __init__(self, files: ImageFiles, *, random_crop: bool = False, flip: bool = False) -> None:
        self._paths, self._size, self._random_crop, self._flip = files.paths, files.size, random_crop, flip

    def __getitem__(self, key: Key) -> Tensor | DataError:
        indices, seeds = key
        batch = torch.empty(len(indices), self._size, self._size, 3, dtype=torch.uint8)
        try:
            for place, index in enumerate(indices):
                image = open_image(self._paths[index])
                batch[place] = self._augmented(image, Random(seeds[place])) if seeds else self._plain(image)
        except DataError as error:
            return error
        return batch

    def _plain(self, image: Any) -> Tensor:
        return fitted(image, self._size, EVALUATION_MARGIN)

    def _augmented(self, image: Any, random: Random) -> Tensor:
        from torchvision.transforms import functional

        if self._random_crop:
            box = random_box(image.height, image.width, random)
            image = functional.resized_crop(image, *box, [self._size, self._size])
            pixels: Tensor = functional.pil_to_tensor(image).permute(1, 2, 0)
        else:
            pixels = self._plain(image)
        return pixels.flip(1) if self._flip and random.random() < 0.5 else pixels


def random_box(height: int, width: int, random: Random) -> tuple[int, int, int, int]:
    """Return top, left, height and width of a random part of an image (Szegedy et al., Going deeper with convolutions).

    The part has 8 % to 100 % of the area and a ratio of width to height between 3/4 and 4/3, evenly in the logarithm.
    When ten tries fail, it is the largest centred one of an allowed ratio.
    """
    for _ in range(10):
        area = height * width * random.uniform(0.08, 1)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        box_width, box_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < box_width <= width and 0 < box_height <= height:
            top, left = random.randint(0, height - box_height), random.randint(0, width - box_width)
            return top, left, box_height, box_width
    box_height, box_width = min(height, round(width * 4 / 3)), min(width, round(height * 4 / 3))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def decoding_workers() -> int:
    """Return how many processes decode for this one: its share of the processors, `MAX_WORKERS` at most."""
    # The threads that torch may use are this run's share.
    share = torch.get_num_threads()
    if "TORCHELASTIC_RUN_ID" in os.environ:
        # `torchrun` allows a single thread where nobody says how many, however many processors there are.
        share = max(share, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    return min(MAX_WORKERS, share)


def _loader(
    decoder: _Decoder, keys: list[Key], device: torch.device, workers: int | None, *, persistent: bool
) -> DataLoader[Tensor | DataError]:
    # Loaded here, before the workers are forked, so that none of them has to.
    import torchvision.transforms.functional  # noqa: F401

    workers = decoding_workers() if workers is None else workers
    return DataLoader(
        decoder,
        batch_size=None,
        sampler=keys,
        num_workers=workers,
        persistent_workers=persistent and workers > 0,
        pin_memory=device.type == "cuda",
        # Without one the loader draws from torch's global generator.
        generator=torch.Generator(),
    )


def _decoded(loader: DataLoader[Tensor | DataError]) -> Iterator[Tensor]:
    for pixels in loader:
        if isinstance(pixels, DataError):
            # A new one: raised from a variable of its own frame, it would keep the workers until the next collection.
            raise DataError(str(pixels))
        yield pixels
