"""Read the data sets as published into uint8 tensors, each once per process."""

from __future__ import annotations

import gzip
import io
import pickle
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer.data.decoded import decoded_once
from trainer.data.download import read_verified
from trainer.data.folders import folder_fingerprint, list_folder
from trainer.datasets import DataError, DatasetSpec, dataset_spec

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

    Raises DataError when files are missing, damaged or cannot be used.
    """
    spec, root = dataset_spec(name), Path(root)
    if spec.folder:
        fingerprint: tuple[Any, ...] = folder_fingerprint(name, root)
    else:
        paths = [root / file.path for file in spec.files]
        # A missing file is reported by whoever reads it.
        fingerprint = tuple((path.stat().st_size, path.stat().st_mtime_ns) for path in paths if path.exists())
    return _read(name, root, spec, fingerprint)


@lru_cache(maxsize=2)
def _read(name: str, root: Path, spec: DatasetSpec, fingerprint: tuple[Any, ...]) -> tuple[Split, Split]:
    readers: dict[str, Callable[[str, Path, DatasetSpec], tuple[Split, Split]]] = {
        "cifar10": _read_cifar,
        "cifar100": _read_cifar,
        "svhn": _read_svhn,
        "digits": _read_digits,
        "synthetic": _make_synthetic,
    }
    return readers.get(name, _read_folder)(name, root, spec)


def _read_cifar(name: str, root: Path, spec: DatasetSpec) -> tuple[Images, Images]:
    *train, test = (_read_cifar_file(name, root, spec, index) for index in range(len(spec.files)))
    pixels, labels = (torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*train, strict=True))
    classes, _, _ = spec.counts
    return Images(pixels, labels, classes), Images(*test, classes)


def _read_cifar_file(name: str, root: Path, spec: DatasetSpec, index: int) -> tuple[Tensor, Tensor]:
    # Pickled by Python 2: text and arrays come as bytes.
    values = _ArrayUnpickler(io.BytesIO(read_verified(name, root, spec.files[index])), encoding="bytes").load()
    labels = values[b"fine_labels" if b"fine_labels" in values else b"labels"]
    planes = torch.from_numpy(values[b"data"]).view(-1, 3, spec.size, spec.size)
    return planes.permute(0, 2, 3, 1).contiguous(), torch.tensor(labels)


class _ArrayUnpickler(pickle.Unpickler):
    """Builds plain values and numpy arrays; a pickle that names anything else is refused."""

    ALLOWED = {("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} does not belong in a data set")
        return super().find_class(module, name)


def _read_svhn(name: str, root: Path, spec: DatasetSpec) -> tuple[Images, Images]:
    from scipy.io import loadmat

    splits = []
    classes, _, _ = spec.counts
    for file in spec.files:
        values = loadmat(io.BytesIO(read_verified(name, root, file)))
        pixels = torch.from_numpy(values["X"]).permute(3, 0, 1, 2).contiguous()
        # The digit 0 is published as class 10.
        labels = torch.from_numpy(values["y"]).flatten().long() % 10
        splits.append(Images(pixels, labels, classes))
    return splits[0], splits[1]


def _read_digits(name: str, root: Path, spec: DatasetSpec) -> tuple[Images, Images]:
    """Read the 8x8 digits in 17 grey levels, every pixel as a 4x4 block; a fixed, stratified fifth is the test set."""
    levels, labels = _published_digits()
    grey = torch.from_numpy((levels * 255 / 16).round().astype(np.uint8))
    side = spec.size // grey.shape[1]
    pixels = grey.repeat_interleave(side, 1).repeat_interleave(side, 2)[..., None].expand(-1, -1, -1, 3).contiguous()
    classes, _, test_images = spec.counts
    images = Images(pixels, torch.from_numpy(labels), classes)
    train, test = stratified_split(images.labels, test_images)
    return images.take(train), images.take(test)


def _published_digits() -> tuple[Any, Any]:
    """Return the images [1797, 8, 8], levels 0 to 16 as float64, and the labels [1797] int64 of scikit-learn's digits.

    The file of the installed package is read without `sklearn.datasets`, whose import takes longer than an epoch.
    Raises DataError when the file is missing or damaged.
    """
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise DataError("digits: needs scikit-learn, which is not installed here: pip install scikit-learn")
    path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    try:
        with gzip.open(path, "rt", encoding="ascii") as opened:
            rows = np.array([line.split(",") for line in opened], np.float64)
        return rows[:, :-1].reshape(-1, 8, 8), rows[:, -1].astype(np.int64)
    # A file cut short, changed bytes, or other text.
    except (OSError, EOFError, zlib.error, ValueError, IndexError) as error:
        raise DataError(f"digits: {path} cannot be read ({error}); install scikit-learn again") from None


def _make_synthetic(name: str, root: Path, spec: DatasetSpec) -> tuple[Images, Images]:
    """Make noise over a coarse, mirror-symmetric pattern per class; the same on every machine."""
    # The legacy generator: numpy promises that its stream never changes.
    random = np.random.RandomState(0)
    classes, *counts = spec.counts
    half = random.randint(0, 128, (classes, 4, 2, 3), dtype=np.uint8)
    patterns = np.concatenate([half, half[:, :, ::-1]], axis=2)
    blocks = torch.from_numpy(patterns).repeat_interleave(spec.size // 4, 1).repeat_interleave(spec.size // 4, 2)
    splits = []
    for count in counts:
        noise = np.frombuffer(random.bytes(count * spec.size**2 * 3), np.uint8) >> 1
        labels = torch.arange(count) % classes
        pixels = blocks[labels] + torch.from_numpy(noise).view(count, spec.size, spec.size, 3)
        splits.append(Images(pixels, labels, classes))
    return splits[0], splits[1]


def _read_folder(name: str, root: Path, spec: DatasetSpec) -> tuple[Split, Split]:
    listing = list_folder(name, root)
    splits: list[Split] = []
    for split, listed in (("train", listing.train), ("test", listing.test)):
        paths, labels = [path for path, _ in listed], torch.tensor([label for _, label in listed])
        files = ImageFiles(paths, labels, len(listing.classes), spec.size)
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
