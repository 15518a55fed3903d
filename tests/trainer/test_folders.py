"""Folders of images: what is read, what is ignored, and what is refused by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.trainer.fake_datasets import fake_folder, write_image
from trainer.config import TrainConfig
from trainer.data import DataError, Splits, load_splits
from trainer.datasets import DATASETS
from trainer.folders import check_folder, list_folder


def read(root: Path, dataset: str = "folder:insects") -> Splits:
    return load_splits(TrainConfig(dataset=dataset), root)


@pytest.fixture
def insects(tmp_path: Path) -> Path:
    fake_folder(tmp_path / "insects")
    return tmp_path / "insects"


def test_labels_number_the_classes_in_the_order_of_their_names(insects: Path) -> None:
    found = read(insects.parent)
    assert found.train.num_classes == found.test.num_classes == 3
    assert found.train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert found.test.labels.tolist() == [0, 1, 2]
    for i, path in enumerate(("ant/0", "ant/1", "ant/2", "bee/0")):
        with Image.open(insects / "train" / f"{path}.png") as image:
            assert np.array_equal(found.train.pixels[i], np.asarray(image))


def test_val_is_the_test_set_where_there_is_no_test(tmp_path: Path) -> None:
    fake_folder(tmp_path / "insects", split="val")
    assert read(tmp_path).test.labels.tolist() == [0, 1, 2]
    write_image(tmp_path / "insects/test/bee/0.png")
    assert read(tmp_path).test.labels.tolist() == [1]


def test_a_test_set_may_lack_classes(insects: Path) -> None:
    (insects / "test/bee/0.png").unlink()
    (insects / "test/bee").rmdir()
    found = read(insects.parent)
    assert found.test.labels.tolist() == [0, 2]
    assert found.test.num_classes == 3


def test_grey_is_repeated_in_three_channels(insects: Path) -> None:
    grey = write_image(insects / "test/ant/0.png", seed=3, mode="L")
    assert np.array_equal(read(insects.parent).test.pixels[0], np.stack([np.asarray(grey)] * 3, axis=-1))


@pytest.mark.parametrize("mode", ["P", "RGBA", "LA", "1"])
def test_other_colour_modes_become_rgb(insects: Path, mode: str) -> None:
    image = write_image(insects / "test/ant/0.png", seed=3, mode=mode)
    assert np.array_equal(read(insects.parent).test.pixels[0], np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("size", [(64, 32), (32, 64), (100, 50), (16, 16), (33, 31), (300, 7)])
def test_other_sizes_are_scaled_by_the_shorter_side_and_cut_in_the_centre(insects: Path, size: tuple[int, int]) -> None:
    image = write_image(insects / "test/ant/0.png", size, seed=3)
    factor = 32 / min(size)
    width, height = (max(32, int(side * factor)) for side in size)
    scaled = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), float)
    top, left = round((height - 32) / 2), round((width - 32) / 2)
    found = read(insects.parent).test.pixels[0].numpy()
    assert np.abs(found - scaled[top : top + 32, left : left + 32]).max() <= 1


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("left", [0.0, 0.02, 0.5, 0.9])
def test_a_truncated_image_is_named(insects: Path, suffix: str, left: float) -> None:
    path = insects / f"train/bee/broken.{suffix}"
    write_image(path)
    contents = path.read_bytes()
    path.write_bytes(contents[: int(left * len(contents))])
    with pytest.raises(DataError, match=rf"{path}: cannot be read as an image \(.+\); replace or delete it"):
        read(insects.parent)


def test_text_in_the_clothes_of_an_image_is_named(insects: Path) -> None:
    (insects / "train/bee/notes.jpg").write_text("no picture")
    with pytest.raises(DataError, match=r"train/bee/notes\.jpg: cannot be read as an image"):
        read(insects.parent)


def test_hidden_and_other_files_are_ignored(insects: Path) -> None:
    expected = read(insects.parent).train.pixels
    for path in ("train/.DS_Store", "train/bee/._0.png", "train/bee/notes.txt", "readme.md", "train/classes.csv"):
        (insects / path).write_text("not an image")
    (insects / "train/.cache").mkdir()
    assert torch.equal(read(insects.parent).train.pixels, expected)


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (lambda base: (base / "train/dog").mkdir(), "train/dog holds no PNG or JPEG image; fill it, or delete this"),
        (lambda base: (base / "test/dog").mkdir(), "test/dog is a class that .*/train does not have; remove or rename"),
        (
            lambda base: write_image(base / "train/0.png"),
            "train/0.png lies outside the class folders of .*/train; move",
        ),
        (lambda base: write_image(base / "train/bee/0.bmp"), "train/bee/0.bmp is neither PNG nor JPEG; convert it"),
        (lambda base: (base / "test").rename(base / "held-out"), "val is missing; put the images into .*/train/CLASS/"),
        (lambda base: (base / "train").rename(base / "training"), "train is missing; put the images into"),
    ],
)
def test_a_layout_that_is_wrong_is_refused(insects: Path, break_it: object, sentence: str) -> None:
    break_it(insects)
    with pytest.raises(DataError, match=f"^folder:insects: {insects}/{sentence}"):
        read(insects.parent)


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    (tmp_path / "insects/train").mkdir(parents=True)
    with pytest.raises(DataError, match="insects/train has no class folders; put the images"):
        read(tmp_path)


def test_the_published_numbers_of_classes_and_images_are_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_folder(tmp_path / "imagenet", split="val")
    spec = replace(DATASETS["imagenet"], classes=3, train_images=9, test_images=3)
    monkeypatch.setitem(DATASETS, "imagenet", spec)
    assert len(list_folder("imagenet", tmp_path).train) == 9
    (tmp_path / "imagenet/train/bee/1.png").unlink()
    check_folder("imagenet", tmp_path)
    with pytest.raises(DataError, match="holds 8 training images, the published data set 9"):
        list_folder("imagenet", tmp_path)
    monkeypatch.setitem(DATASETS, "imagenet", replace(spec, classes=4))
    with pytest.raises(DataError, match="has 3 class folders, the published data set 4"):
        check_folder("imagenet", tmp_path)


def test_an_annotation_without_its_image_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tmp_path / "tiny-imagenet-200"
    write_image(base / "train/n01/images/0.JPEG")
    (base / "val").mkdir()
    spec = replace(DATASETS["tinyimagenet"], classes=1, train_images=1, test_images=1)
    monkeypatch.setitem(DATASETS, "tinyimagenet", spec)
    for line in ("val_0.JPEG\tn01\t0\t0", "val_0.JPEG", ""):
        (base / "val/val_annotations.txt").write_text(f"{line}\n")
        with pytest.raises(DataError, match=r"val_annotations\.txt, line 1: '.*' does not name an image and its class"):
            list_folder("tinyimagenet", tmp_path)
