"""Check arrays of images that a user's function returned or that an `npz:` file holds. No torch here.

Every fault is one sentence that begins with the data set's name and its file.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from trainer.datasets import DataError, dataset_spec

if TYPE_CHECKING:
    import numpy as np

    from trainer.spec import RGB, DatasetSpec

SPLITS = ("train", "test")
NPZ_NAMES = tuple(f"{split}_{part}" for split in SPLITS for part in ("images", "labels"))


class Arrays(NamedTuple):
    """Images of both splits: `pixels` [N, H, W, 3] uint8, `labels` [N] int64, as NumPy arrays."""

    train_pixels: np.ndarray
    train_labels: np.ndarray
    test_pixels: np.ndarray
    test_labels: np.ndarray
    num_classes: int


def read_arrays(name: str, path: Path) -> dict[str, np.ndarray]:
    """Return the four arrays of an `npz:` file by name, as they are stored.

    Raises DataError when the file is missing or damaged, lacks one of them, or holds Python objects.
    """
    import numpy as np

    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as opened:
            if not isinstance(opened, np.lib.npyio.NpzFile):
                raise DataError(f"{name}: {path} holds one array; write {', '.join(NPZ_NAMES)} with numpy.savez")
            if missing := [one for one in NPZ_NAMES if one not in opened.files]:
                stored = ", ".join(opened.files[:8]) or "nothing"
                raise DataError(
                    f"{name}: {path} has no {' and no '.join(missing)} (it has {stored}); "
                    f"write {', '.join(NPZ_NAMES)} with numpy.savez"
                )
            return {one: opened[one] for one in NPZ_NAMES}
    except FileNotFoundError:
        raise DataError(f"{name}: {path} is missing; put it there, or choose another data root (--data-root)") from None
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        reason = str(error) if "allow_pickle" not in str(error) else "it holds Python objects, not numbers"
        raise DataError(f"{name}: {path} cannot be read ({reason}); write it again with numpy.savez") from None


def read_npz(name: str, path: Path) -> Arrays:
    """Return the images of an `npz:` file. Raises DataError as `read_arrays` and `checked`."""
    arrays = read_arrays(name, path)
    splits = ((arrays[f"{split}_images"], arrays[f"{split}_labels"]) for split in SPLITS)
    return checked(name, str(path), dataset_spec(name), tuple(splits))


def checked(name: str, where: str, spec: DatasetSpec, splits: Any) -> Arrays:
    """Return the images of both splits; `splits` are (pixels, labels) of the training and of the test set.

    Pixels are uint8 [N, H, H, 3], labels whole numbers [N] from 0, both NumPy arrays or tensors on the CPU; grey pixels
    [N, H, H] or [N, H, H, 1] are repeated in three channels. `where` names the file in messages.

    Raises DataError, which names the data set and the file, for anything else: other types and shapes, numbers of
    images that differ from those of the labels, labels out of range, or what the data set's declaration denies.
    """
    try:
        (train_pixels, train_labels), (test_pixels, test_labels) = splits
    except (TypeError, ValueError):
        raise DataError(
            f"{name}: {where} gives {_kind(splits)}, not (train_pixels, train_labels), (test_pixels, test_labels)"
        ) from None
    train = _images(name, where, "training", train_pixels, train_labels)
    test = _images(name, where, "test", test_pixels, test_labels)
    side = train[0].shape[1]
    if test[0].shape[1] != side:
        raise DataError(
            f"{name}: {where} gives training images of {side} pixels and test images of {test[0].shape[1]}; "
            "make them equal"
        )
    if spec.size is not None and side != spec.size:
        raise DataError(
            f"{name}: {where} gives images of {side} pixels, and its `size` is declared as {spec.size}; "
            "mend one of the two"
        )
    classes = spec.classes if spec.classes is not None else int(train[1].max()) + 1
    for split, labels in (("training", train[1]), ("test", test[1])):
        if labels.min() < 0 or labels.max() >= classes:
            wrong = labels.min() if labels.min() < 0 else labels.max()
            source = "declared" if spec.classes is not None else "in the training set"
            raise DataError(
                f"{name}: {where} has the {split} label {wrong}, and labels go from 0 to {classes - 1}: "
                f"there are {classes} classes {source}; mend the labels or the number of classes"
            )
    for split, declared, images in (("training", spec.train_images, train), ("test", spec.test_images, test)):
        if declared is not None and len(images[1]) != declared:
            raise DataError(
                f"{name}: {where} gives {len(images[1]):,} {split} images; declared are {declared:,}; "
                "mend one of the two"
            )
    return Arrays(*train, *test, classes)


def _images(name: str, where: str, split: str, pixels: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np

    pixels, labels = (
        _array(name, where, f"{split} {part}", values) for part, values in (("pixels", pixels), ("labels", labels))
    )
    shape = list(pixels.shape)
    if pixels.dtype != np.uint8:
        hint = "multiply by 255 and round first" if pixels.dtype.kind == "f" else "convert them"
        raise DataError(f"{name}: {where} gives {split} pixels of type {pixels.dtype}, not uint8 (0 to 255); {hint}")
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    if pixels.ndim != 4 or pixels.shape[3] not in (1, 3) or pixels.shape[1] != pixels.shape[2] or not pixels.shape[1]:
        hint = "move the channels last" if pixels.ndim == 4 and pixels.shape[1] in (1, 3) else "cut or scale them"
        raise DataError(
            f"{name}: {where} gives {split} pixels of shape {shape}, not [N, H, H, 3] (or grey: [N, H, H, 1] or "
            f"[N, H, H]), squares with as many rows as columns; {hint}"
        )
    if labels.dtype.kind not in "iu":
        raise DataError(
            f"{name}: {where} gives {split} labels of type {labels.dtype}, not whole numbers (int64); convert them"
        )
    if labels.shape != pixels.shape[:1]:
        raise DataError(
            f"{name}: {where} gives {split} labels of shape {list(labels.shape)} for pixels of shape {shape}; "
            "one label per image"
        )
    if not len(labels):
        raise DataError(f"{name}: {where} gives no {split} images")
    if pixels.shape[3] == 1:
        pixels = np.repeat(pixels, 3, axis=3)
    return np.ascontiguousarray(pixels), np.ascontiguousarray(labels, np.int64)


def _array(name: str, where: str, what: str, values: Any) -> np.ndarray:
    """Return a NumPy array, or a tensor on the CPU as one, which shares its memory."""
    import numpy as np

    if isinstance(values, np.ndarray):
        return values
    device = getattr(getattr(values, "device", None), "type", None)
    if device == "cpu" and hasattr(values, "numpy"):
        array: np.ndarray = values.detach().numpy()
        return array
    given = f"a tensor on {device}; move it to the CPU" if device else f"{_kind(values)}; make it an array"
    raise DataError(f"{name}: {where} gives {what} as {given} (NumPy, or a tensor on the CPU)")


def channel_statistics(pixels: np.ndarray) -> tuple[RGB, RGB]:
    """Return mean and standard deviation of each channel of pixels [N, H, W, 3] uint8, on a scale from 0 to 1.

    They follow from how often each of the 256 levels occurs, in whole numbers, and so are the same on every machine. A
    channel without variation has the standard deviation 1.
    """
    import numpy as np

    means, deviations = [], []
    for channel in range(3):
        counts = np.zeros(256, np.int64)
        for start in range(0, len(pixels), 1000):
            counts += np.bincount(pixels[start : start + 1000, ..., channel].reshape(-1), minlength=256)
        # Python's whole numbers have no limit, and their quotients are rounded once.
        levels = list(enumerate(counts.tolist()))
        count, total = sum(times for _, times in levels), sum(level * times for level, times in levels)
        squares = sum(level * level * times for level, times in levels)
        means.append(total / (255 * count))
        deviations.append(math.sqrt((count * squares - total * total) / (255 * count) ** 2) or 1.0)
    return (means[0], means[1], means[2]), (deviations[0], deviations[1], deviations[2])


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
