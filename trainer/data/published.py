"""Register the data sets that ship: published ones, digits, and images made in memory.

No torch and no NumPy at import, because every command that checks a grid imports this.
"""

from __future__ import annotations

import gzip
import io
import pickle
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.datasets import DataError, dataset_spec
from trainer.parts import dataset
from trainer.spec import CIFAR_MEAN, CIFAR_STD, IMAGENET_MEAN, IMAGENET_STD, Archive, DataFile

if TYPE_CHECKING:
    import numpy as np

# The pixels and labels of the training set, then those of the test set.
Split = tuple["np.ndarray", "np.ndarray"]


@dataset(
    "cifar10",
    mean=CIFAR_MEAN,
    std=CIFAR_STD,
    title="CIFAR-10",
    classes=10,
    train_images=50_000,
    size=32,
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
)
def cifar10(root: Path) -> tuple[Split, Split]:
    """Read CIFAR-10."""
    return _cifar("cifar10", root)


@dataset(
    "cifar100",
    mean=CIFAR_MEAN,
    std=CIFAR_STD,
    title="CIFAR-100",
    classes=100,
    train_images=50_000,
    size=32,
    test_images=10_000,
    largest_class=500,
    files=(
        DataFile("cifar-100-python/train", "16019d7e3df5f24257cddd939b257f8d"),
        DataFile("cifar-100-python/test", "f0ef6b0ae62326f3e7ffdfab6717acfc"),
    ),
    archive=Archive("https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85"),
)
def cifar100(root: Path) -> tuple[Split, Split]:
    """Read CIFAR-100."""
    return _cifar("cifar100", root)


@dataset(
    "svhn",
    mean=CIFAR_MEAN,
    std=CIFAR_STD,
    title="SVHN",
    classes=10,
    train_images=73_257,
    size=32,
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
)
def svhn(root: Path) -> tuple[Split, Split]:
    """Read SVHN, cropped digits; the digit 0 is published as class 10."""
    import numpy as np
    from scipy.io import loadmat

    splits = []
    for file in dataset_spec("svhn").files:
        values = loadmat(io.BytesIO(_verified("svhn", root, file)))
        pixels = np.ascontiguousarray(values["X"].transpose(3, 0, 1, 2))
        splits.append((pixels, values["y"].reshape(-1).astype(np.int64) % 10))
    return splits[0], splits[1]


@dataset(
    "tinyimagenet",
    title="Tiny-ImageNet-200",
    classes=200,
    train_images=100_000,
    size=64,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    test_images=10_000,
    largest_class=500,
    folder="tiny-imagenet-200",
    archive=Archive("http://cs231n.stanford.edu/tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de"),
)
def tinyimagenet(root: Path) -> None:
    """Leave the reading to that of folders of images."""


@dataset(
    "imagenet",
    title="ImageNet",
    classes=1000,
    train_images=1_281_167,
    size=224,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    test_images=50_000,
    largest_class=1_300,
    folder="imagenet",
    about="https://image-net.org (ILSVRC 2012, for registered users)",
    streamed=True,
)
def imagenet(root: Path) -> None:
    """Leave the reading to that of folders of images."""


@dataset(
    "digits",
    title="Digits",
    classes=10,
    train_images=1_437,
    size=32,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    flip=False,
    test_images=360,
    largest_class=146,
)
def digits(root: Path) -> tuple[Split, Split]:
    """Read scikit-learn's 8x8 digits in 17 grey levels, every pixel as a 4x4 block.

    A fixed, stratified fifth is the test set.
    """
    import numpy as np
    import torch

    from trainer.data.reading import stratified_split

    _, _, test_images, size = _declared("digits")
    levels, labels = _published_digits()
    grey = (levels * 255 / 16).round().astype(np.uint8)
    grey = grey.repeat(size // 8, axis=1).repeat(size // 8, axis=2)
    pixels = np.ascontiguousarray(np.broadcast_to(grey[..., None], (*grey.shape, 3)))
    train, test = (part.numpy() for part in stratified_split(torch.from_numpy(labels), test_images))
    return (pixels[train], labels[train]), (pixels[test], labels[test])


@dataset(
    "synthetic",
    title="Synthetic images",
    classes=100,
    train_images=10_000,
    size=32,
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    test_images=2_000,
    largest_class=100,
)
def synthetic(root: Path) -> tuple[Split, Split]:
    """Make noise over a coarse, mirror-symmetric pattern per class, for speed measurements and tests.

    It is the same on every machine.
    """
    import numpy as np

    # The legacy generator: numpy promises that its stream never changes.
    random = np.random.RandomState(0)
    classes, *counts, size = _declared("synthetic")
    half = random.randint(0, 128, (classes, 4, 2, 3), dtype=np.uint8)
    blocks = np.concatenate([half, half[:, :, ::-1]], axis=2).repeat(size // 4, axis=1).repeat(size // 4, axis=2)
    splits = []
    for count in counts:
        noise = np.frombuffer(random.bytes(count * size**2 * 3), np.uint8) >> 1
        labels = np.arange(count) % classes
        splits.append((blocks[labels] + noise.reshape(count, size, size, 3), labels))
    return splits[0], splits[1]


def _declared(name: str) -> tuple[int, int, int, int]:
    """Return the declared classes, training images, test images, and pixels of a side."""
    spec = dataset_spec(name)
    assert spec.classes is not None and spec.train_images is not None
    assert spec.test_images is not None and spec.size is not None
    return spec.classes, spec.train_images, spec.test_images, spec.size


def _verified(name: str, root: Path, file: DataFile) -> bytes:
    # Importing the module of downloads takes as long as all the rest here.
    from trainer.data.download import read_verified

    return read_verified(name, root, file)


def _cifar(name: str, root: Path) -> tuple[Split, Split]:
    import numpy as np

    *train, test = (_cifar_file(name, root, file) for file in dataset_spec(name).files)
    pixels, labels = (np.concatenate(parts) if len(parts) > 1 else parts[0] for parts in zip(*train, strict=True))
    return (pixels, labels), test


def _cifar_file(name: str, root: Path, file: DataFile) -> Split:
    import numpy as np

    # Pickled by Python 2: text and arrays come as bytes.
    values = _ArrayUnpickler(io.BytesIO(_verified(name, root, file)), encoding="bytes").load()
    labels = values[b"fine_labels" if b"fine_labels" in values else b"labels"]
    size = _declared(name)[3]
    planes = values[b"data"].reshape(-1, 3, size, size)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), np.array(labels, np.int64)


class _ArrayUnpickler(pickle.Unpickler):
    """Builds plain values and numpy arrays; a pickle that names anything else is refused."""

    ALLOWED = {("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} does not belong in a data set")
        return super().find_class(module, name)


def _published_digits() -> tuple[Any, Any]:
    """Return the images [1797, 8, 8], levels 0 to 16 as float64, and the labels [1797] int64 of scikit-learn's digits.

    The file of the installed package is read without `sklearn.datasets`, whose import takes longer than an epoch.
    Raises DataError when the file is missing or damaged.
    """
    import numpy as np

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
