"""Read the data sets as published into uint8 tensors, each once per process."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer.config import TrainConfig
from trainer.data.arrays import Arrays, channel_statistics, checked, read_npz
from trainer.data.content import array_digest, content_digest, of_data_sets
from trainer.data.decoded import decoded_once
from trainer.data.folders import folder_fingerprint, list_folder
from trainer.datasets import DataError, dataset_spec, normalization_of
from trainer.errors import TrainerError
from trainer.parts import DATASETS
from trainer.spec import RGB, DatasetSpec

# The kinds of Pillow's pixels with 8 bits or fewer in each channel, which it converts to RGB rightly.
PLAIN_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")


@dataclass(frozen=True)
class Images:
    """Images in memory: `pixels` [N, H, W, 3] uint8, `labels` [N] int64. They are shared: never change them."""

    pixels: Tensor
    labels: Tensor
    num_classes: int

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def size(self) -> int:
        """Return the side of the images in pixels."""
        return int(self.pixels.shape[2])

    @cached_property
    def statistics(self) -> tuple[RGB, RGB]:
        """Return mean and standard deviation of each channel, for pixels from 0 to 1."""
        return channel_statistics(self.pixels.numpy())

    def take(self, indices: Tensor) -> Images:
        """Return the images at these indices, in this order."""
        return replace(self, pixels=self.pixels[indices], labels=self.labels[indices])


@dataclass(frozen=True)
class ImageFiles:
    """Images that are read from disk when they are needed, with `labels` [N] int64, as squares of `size` pixels."""

    paths: Sequence[str]
    labels: Tensor
    num_classes: int
    size: int

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Tensor) -> ImageFiles:
        """Return the images at these indices, in this order."""
        return replace(self, paths=[self.paths[i] for i in indices.tolist()], labels=self.labels[indices])


Split = Images | ImageFiles


def read_dataset(name: str, root: Path) -> tuple[Split, Split]:
    """Return the whole training and test set; this process caches the last two data sets read.

    Raises DataError when files are missing, damaged or cannot be used, and when a function of a plug-in returns other
    arrays than `trainer.data.arrays.checked` takes.
    """
    spec, root = dataset_spec(name), Path(root)
    if spec.folder:
        fingerprint: tuple[Any, ...] = folder_fingerprint(name, root)
    else:
        paths = [root / path for path in (*(file.path for file in spec.files), *filter(None, [spec.arrays]))]
        # A missing file is reported by whoever reads it.
        fingerprint = tuple((path.stat().st_size, path.stat().st_mtime_ns) for path in paths if path.exists())
        if not spec.arrays:
            # Another grid's plug-ins may give the name to another function.
            fingerprint += (DATASETS[name].make,)
    return _read(name, root, spec, fingerprint)


@lru_cache(maxsize=2)
def _read(name: str, root: Path, spec: DatasetSpec, fingerprint: tuple[Any, ...]) -> tuple[Split, Split]:
    if spec.folder:
        return _read_folder(name, root, spec)
    arrays = read_npz(name, root / spec.arrays) if spec.arrays else _made(name, root, spec)
    train, test = (
        Images(torch.from_numpy(pixels), torch.from_numpy(labels), arrays.num_classes)
        for pixels, labels in (arrays[:2], arrays[2:4])
    )
    return train, test


def _made(name: str, root: Path, spec: DatasetSpec) -> Arrays:
    """Return what the function of a data set returns, checked."""
    part = DATASETS[name]
    try:
        splits = part.make(root)
    except TrainerError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise DataError(f"{name}: {part.source} raised {reason}; mend this function") from error
    return checked(name, part.source, spec, splits)


def normalization(config: TrainConfig, train: Split) -> tuple[RGB, RGB]:
    """Return mean and standard deviation per channel: declared, or those of the whole training set.

    Raises DataError for a data set whose images stay in files and that declares none.
    """
    declared = normalization_of(config.dataset, config.normalization)
    if declared is not None:
        return declared
    if isinstance(train, ImageFiles):
        raise DataError(f"{config.dataset}: images that stay in files need `mean` and `std` in their declaration")
    return train.statistics


def fingerprint(config: TrainConfig, root: Path) -> str:
    """Return the fingerprint (64 hex digits) of the content of a configuration's data sets. Raises DataError."""
    digest = of_data_sets(config, lambda name: dataset_digest(name, root))
    assert digest is not None
    return digest


def dataset_digest(name: str, root: Path) -> str:
    """Return the sha256 of a data set's content, as `content_digest`, and of its arrays where a function makes them.

    Raises as `read_dataset`.
    """
    digest = content_digest(name, root)
    if digest is not None:
        return digest
    train, test = read_dataset(name, root)
    assert isinstance(train, Images) and isinstance(test, Images)
    return array_digest(
        {
            f"{split}_{part}": values.numpy()
            for split, images in (("train", train), ("test", test))
            for part, values in (("images", images.pixels), ("labels", images.labels))
        }
    )


def _read_folder(name: str, root: Path, spec: DatasetSpec) -> tuple[Split, Split]:
    listing = list_folder(name, root)
    splits: list[Split] = []
    for split, listed in (("train", listing.train), ("test", listing.test)):
        paths, labels = [path for path, _ in listed], torch.tensor([label for _, label in listed])
        files = ImageFiles(paths, labels, len(listing.classes), spec.size or 32)
        splits.append(files if spec.streamed else _load(name, split, files))
    return splits[0], splits[1]


def _load(name: str, split: str, files: ImageFiles) -> Images:
    def decode() -> Tensor:
        pixels = torch.empty(len(files), files.size, files.size, 3, dtype=torch.uint8)

        def load(start: int) -> None:
            for index in range(start, min(start + 256, len(files))):
                pixels[index] = fitted(open_image(files.paths[index]), files.size)

        # Decoding releases the interpreter lock.
        executor = ThreadPoolExecutor(torch.get_num_threads())
        try:
            for _ in executor.map(load, range(0, len(files), 256)):
                pass
        finally:
            executor.shutdown(cancel_futures=True)
        return pixels

    return Images(decoded_once(name, split, files.paths, files.size, decode), files.labels, files.num_classes)


def open_image(path: str) -> Any:
    """Return a PNG or JPEG file as a PIL image in RGB; grey is repeated in all three channels.

    Of 16 bits the high ones are kept, which is how Pillow reads 16-bit colours. Transparency is dropped, so that the
    colours below it show; the orientation of EXIF is not applied; of several frames it is the first.

    Raises DataError with the path when the file is not an image, is damaged, or holds values without a known range.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode in PLAIN_MODES:
                return image.convert("RGB")
            # Pillow's own conversion would turn all but the darkest 256 of the 65,536 levels into white.
            if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
                return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
            mode = image.mode
    except Exception as error:  # The decoders raise whatever their format's parser stumbles over.
        raise DataError(f"{path}: cannot be read as an image ({error}); replace or delete it") from None
    values = {"F": "fractions", "I": "32-bit numbers"}.get(mode, f"colours of mode {mode!r}")
    raise DataError(f"{path}: holds {values}, whose range is not known; convert it to 8 or 16 bits, or delete it")


def fitted(image: Any, size: int, margin: float = 1.0) -> Tensor:
    """Return a PIL image as uint8 [size, size, 3], unchanged if it has that size.

    Otherwise the shorter side is scaled to `margin * size` pixels (bilinear, antialiased) and the centre is cut out.
    """
    from torchvision.transforms import functional

    if image.size != (size, size):
        image = functional.center_crop(functional.resize(image, round(margin * size)), [size, size])
    pixels: Tensor = functional.pil_to_tensor(image)
    return pixels.permute(1, 2, 0)


def stratified_split(labels: Tensor, held_out: int) -> tuple[Tensor, Tensor]:
    """Split indices so that the second part has `held_out`, each class in proportion; both in rising order.

    The choice depends on the labels alone: it is the same for every seed. Every class keeps an image in the first
    part. Raises ValueError when `held_out` leaves too few for that.
    """
    counts = labels.bincount().numpy()
    spare = np.maximum(counts - 1, 0)
    if held_out > spare.sum():
        raise ValueError(f"{held_out:,} of {len(labels):,} images leave some class without any")
    quotas = counts * (held_out / len(labels))
    taken = np.minimum(np.floor(quotas).astype(int), spare)
    while taken.sum() < held_out:
        # The largest remainders first; of equal ones the lowest class.
        order = np.argsort(np.where(taken < spare, taken - quotas, np.inf), kind="stable")
        chosen = order[: min(held_out - taken.sum(), (taken < spare).sum())]
        taken[chosen] += 1
    # numpy promises that the legacy generator's stream never changes.
    shuffled = np.random.RandomState(0).permutation(len(labels))
    of_shuffled = torch.from_numpy(shuffled)
    second = of_shuffled[ranks_within_class(labels[of_shuffled]) < torch.from_numpy(taken)[labels[of_shuffled]]]
    in_second = torch.zeros(len(labels), dtype=torch.bool)
    in_second[second] = True
    return (~in_second).nonzero().flatten(), in_second.nonzero().flatten()


def ranks_within_class(labels: Tensor) -> Tensor:
    """Return for each label [N] the number of equal ones before it."""
    order = labels.argsort(stable=True)
    counts = labels.bincount()
    starts = counts.cumsum(0) - counts
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(labels)) - starts[labels[order]]
    return ranks
