"""Data sets of one's own: a function's arrays and `.npz` files, what is taken and how the rest is refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trainer import dataset
from trainer.config import TrainConfig
from trainer.data import load_splits, what_is_missing
from trainer.data.arrays import channel_statistics
from trainer.data.reading import read_dataset
from trainer.datasets import DataError
from trainer.parts import DATASETS
from trainer.train import train

RANDOM = np.random.RandomState(0)


def images(count: int = 12, side: int = 8, *channels: int) -> np.ndarray:
    return RANDOM.randint(0, 256, (count, side, side, *(channels or (3,))), dtype=np.uint8)


TRAIN, TEST = (images(12), np.arange(12) % 3), (images(6), np.arange(6) % 3)


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """Forget the test's data sets at its end."""
    with DATASETS.apart():
        yield


def blobs(given: Any, **facts: Any) -> Any:
    """Register a data set whose function returns `given`, and read it."""

    @dataset("blobs", **{"title": "Blobs", "classes": 3, "size": 8, **facts})
    def blobs(root: Path) -> Any:
        return given

    return read_dataset("blobs", Path("nowhere"))


@pytest.mark.parametrize("of", [np.asarray, torch.as_tensor], ids=["arrays", "tensors"])
def test_a_function_gives_arrays_or_tensors(of: Any) -> None:
    train, test = blobs(tuple((of(pixels), of(labels)) for pixels, labels in (TRAIN, TEST)))
    assert torch.equal(train.pixels, torch.from_numpy(TRAIN[0])) and torch.equal(test.labels, torch.from_numpy(TEST[1]))
    assert (train.num_classes, train.labels.dtype, train.pixels.dtype) == (3, torch.int64, torch.uint8)


@pytest.mark.parametrize("channels", [(), (1,)])
def test_grey_is_repeated_in_three_channels(channels: tuple[int, ...]) -> None:
    grey = RANDOM.randint(0, 256, (12, 8, 8, *channels), dtype=np.uint8)
    train, _ = blobs(((grey, TRAIN[1].astype(np.uint8)), TEST))
    assert train.pixels.shape == (12, 8, 8, 3)
    assert all(np.array_equal(train.pixels[..., c].numpy(), grey.reshape(12, 8, 8)) for c in range(3))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (None, "gives nothing, not (train_pixels, train_labels), (test_pixels, test_labels)"),
        ((TRAIN,), "gives a tuple, not"),
        (((images().astype(np.float32), TRAIN[1]), TEST), "training pixels of type float32, not uint8 (0 to 255)"),
        (((images().transpose(0, 3, 1, 2), TRAIN[1]), TEST), "shape [12, 3, 8, 8], not [N, H, H, 3]"),
        (((images()[:, :4], TRAIN[1]), TEST), "shape [12, 4, 8, 3], not [N, H, H, 3]"),
        (((TRAIN[0], TRAIN[1][:5]), TEST), "training labels of shape [5] for pixels of shape [12, 8, 8, 3]"),
        (((TRAIN[0], TRAIN[1] + 0.5), TEST), "training labels of type float64, not whole numbers (int64)"),
        (((TRAIN[0], TRAIN[1] + 1), TEST), "has the training label 3, and labels go from 0 to 2"),
        ((TRAIN, (TEST[0], TEST[1] - 1)), "has the test label -1, and labels go from 0 to 2"),
        ((TRAIN, (images(6, 9), TEST[1])), "training images of 8 pixels and test images of 9"),
        (((images(12, 9), TRAIN[1]), (images(6, 9), TEST[1])), "images of 9 pixels, and its `size` is declared as 8"),
        ((TRAIN, (images(0), TEST[1][:0])), "gives no test images"),
        ((([1, 2], TRAIN[1]), TEST), "gives training pixels as a list; make it an array"),
    ],
)
def test_a_fault_is_one_sentence_that_names_the_part_and_its_file(given: Any, words: str) -> None:
    with pytest.raises(DataError) as raised:
        blobs(given)
    message = str(raised.value)
    assert message.startswith(f"blobs: {__file__}:") and words in message and "\n" not in message


def test_an_error_of_the_function_is_said_with_its_place() -> None:
    @dataset("broken", title="Broken", classes=3, size=8)
    def broken(root: Path) -> Any:
        raise FileNotFoundError("blobs.bin")

    with pytest.raises(DataError, match=r"^broken: .*test_arrays\.py:\d+ raised FileNotFoundError: blobs\.bin; mend"):
        read_dataset("broken", Path())


def test_declared_numbers_of_images_are_held() -> None:
    with pytest.raises(DataError, match="gives 12 training images; declared are 13"):
        blobs((TRAIN, TEST), train_images=13)


def test_statistics_are_those_of_the_whole_training_set() -> None:
    mean, std = channel_statistics(TRAIN[0])
    scaled = TRAIN[0].astype(np.float64) / 255
    assert mean == pytest.approx(scaled.mean((0, 1, 2)), rel=1e-12)
    assert std == pytest.approx(scaled.std((0, 1, 2)), rel=1e-12)
    blobs((TRAIN, TEST))
    for config in (TrainConfig(dataset="blobs"), TrainConfig(dataset="blobs", subset=2, validation=3)):
        splits = load_splits(config, Path("nowhere"))
        assert (splits.mean, splits.std) == (mean, std)
    declared = TrainConfig(dataset="blobs", normalization="imagenet")
    assert load_splits(declared, Path("nowhere")).mean == (0.485, 0.456, 0.406)


def test_declared_statistics_are_taken() -> None:
    blobs((TRAIN, TEST), mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.3))
    splits = load_splits(TrainConfig(dataset="blobs"), Path("nowhere"))
    assert (splits.mean, splits.std) == ((0.5, 0.4, 0.3), (0.1, 0.2, 0.3))


def test_a_data_set_of_ones_own_is_trained_on(tmp_path: Path) -> None:
    blobs((TRAIN, TEST))
    config = TrainConfig(
        dataset="blobs", ood_dataset="digits", validation=3, subset=2, width=4, stages=2, epochs=1, padding=1
    )
    result = train(config, lambda result: None)
    assert result.images == 6 and {each.split for each in result.evaluations} == {"test", "validation"}


def save(path: Path, **changes: Any) -> None:
    arrays = {"train_images": TRAIN[0], "train_labels": TRAIN[1], "test_images": TEST[0], "test_labels": TEST[1]}
    np.savez(path, **{name: values for name, values in {**arrays, **changes}.items() if values is not None})


def test_an_npz_file_below_the_data_root_is_a_data_set(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    save(tmp_path / "mine" / "blobs.npz")
    train, test = read_dataset("npz:mine/blobs.npz", tmp_path)
    assert torch.equal(train.pixels, torch.from_numpy(TRAIN[0])) and test.num_classes == 3
    assert what_is_missing("npz:mine/blobs.npz", tmp_path) is None


def test_faults_of_an_npz_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with pytest.raises(DataError, match=r"^npz:x\.npz: .*/x\.npz is missing; put it there"):
        read_dataset("npz:x.npz", tmp_path)
    assert "is missing" in str(what_is_missing("npz:x.npz", tmp_path))
    save(path, test_labels=None)
    with pytest.raises(DataError, match="has no test_labels"):
        read_dataset("npz:x.npz", tmp_path)
    save(path, test_labels=np.array([object()] * 6))
    with pytest.raises(DataError, match="it holds Python objects, not numbers"):
        read_dataset("npz:x.npz", tmp_path)
    save(path, train_images=TRAIN[0] / 255)
    with pytest.raises(DataError, match="training pixels of type float64, not uint8"):
        read_dataset("npz:x.npz", tmp_path)
    assert "float64" in str(what_is_missing("npz:x.npz", tmp_path))
    save(path)
    whole = path.read_bytes()
    for damaged in (b"", b"no zip", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"x\.npz cannot be read .*; write it again with numpy\.savez"):
            read_dataset("npz:x.npz", tmp_path)


@pytest.mark.parametrize("name", ["npz:../x.npz", "npz:/x.npz", "folder:../x"])
def test_nothing_outside_the_data_root_is_read(name: str) -> None:
    with pytest.raises(ValueError, match="leaves the data root"):
        TrainConfig(dataset=name)
