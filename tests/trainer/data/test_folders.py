"""Folders of images: what is read, what is ignored, and what is refused by name."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.trainer.fake_datasets import fake_folder, put_spec, write_image
from trainer.__main__ import main
from trainer.config import TrainConfig
from trainer.data import Splits, list_folder, load_splits, prepare
from trainer.data.folders import check_folder
from trainer.data.splits import DataError
from trainer.datasets import dataset_spec

PICTURES = (
    *(
        "webp",
        "gif",
        "bmp",
        "tif",
        "tiff",
        "avif",
        "jp2",
        "j2k",
        "tga",
        "ico",
        "pbm",
        "ppm",
        "pnm",
        "pcx",
        "psd",
        "qoi",
    ),
    *("dds", "heic", "heif", "jxl", "svg", "dcm"),
)


def read(root: Path, dataset: str = "folder:insects") -> Splits:
    return load_splits(TrainConfig(dataset=dataset), root)


@pytest.fixture
def insects(tmp_path: Path) -> Path:
    fake_folder(tmp_path / "insects")
    return tmp_path / "insects"


def test_labels_number_the_classes_in_the_order_of_their_names(insects: Path) -> None:
    data = read(insects.parent)
    assert data.train.num_classes == data.test.num_classes == 3
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert data.test.labels.tolist() == [0, 1, 2]
    for i, path in enumerate(("ant/0", "ant/1", "ant/2", "bee/0")):
        with Image.open(insects / "train" / f"{path}.png") as image:
            assert np.array_equal(data.train.pixels[i], np.asarray(image))


def test_val_is_the_test_set_where_there_is_no_test(tmp_path: Path) -> None:
    fake_folder(tmp_path / "insects", split="val")
    assert read(tmp_path).test.labels.tolist() == [0, 1, 2]
    write_image(tmp_path / "insects/test/bee/0.png")
    assert read(tmp_path).test.labels.tolist() == [1]


def test_a_test_set_may_lack_classes(insects: Path) -> None:
    (insects / "test/bee/0.png").unlink()
    (insects / "test/bee").rmdir()
    data = read(insects.parent)
    assert data.test.labels.tolist() == [0, 2]
    assert data.test.num_classes == 3


def test_grey_is_repeated_in_three_channels(insects: Path) -> None:
    grey = write_image(insects / "test/ant/0.png", seed=3, mode="L")
    assert np.array_equal(read(insects.parent).test.pixels[0], np.stack([np.asarray(grey)] * 3, axis=-1))


@pytest.mark.parametrize("mode", ["P", "RGBA", "LA", "1"])
def test_other_colour_modes_become_rgb(insects: Path, mode: str) -> None:
    image = write_image(insects / "test/ant/0.png", seed=3, mode=mode)
    assert np.array_equal(read(insects.parent).test.pixels[0], np.asarray(image.convert("RGB")))


def test_sixteen_bits_of_grey_keep_the_high_ones(insects: Path) -> None:
    """As Pillow reads 16-bit colours; its own conversion of grey turns 99 % of this ramp into white."""
    ramp = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16)
    Image.fromarray(ramp).save(insects / "test/ant/0.png")
    data = read(insects.parent).test.pixels[0]
    assert np.array_equal(data, np.stack([ramp >> 8] * 3, axis=-1))
    assert len(data.unique()) == 256


@pytest.mark.parametrize(("dtype", "kind"), [(np.float32, "fractions"), (np.int32, "32-bit numbers")])
def test_values_of_unknown_range_are_refused(insects: Path, dtype: type, kind: str) -> None:
    path = insects / "test/ant/0.png"
    Image.fromarray(np.arange(1024, dtype=dtype).reshape(32, 32)).save(path, "TIFF")
    with pytest.raises(DataError, match=f"{path}: holds {kind}, whose range is not known; convert it to 8 or 16 bits"):
        read(insects.parent)


@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_sixteen_bits_in_either_order(insects: Path, dtype: str) -> None:
    values = (np.arange(1024).reshape(32, 32) * 64).astype(dtype)
    image = Image.frombytes("I;16" if dtype == "<u2" else "I;16B", (32, 32), values.tobytes())
    image.save(insects / "test/ant/0.png", "TIFF")
    assert np.array_equal(read(insects.parent).test.pixels[0, :, :, 1], values >> 8)


@pytest.mark.parametrize("size", [(64, 32), (32, 64), (100, 50), (16, 16), (33, 31), (300, 7)])
def test_other_sizes_are_scaled_by_the_shorter_side_and_cut_in_the_centre(insects: Path, size: tuple[int, int]) -> None:
    image = write_image(insects / "test/ant/0.png", size, seed=3)
    factor = 32 / min(size)
    width, height = (max(32, int(side * factor)) for side in size)
    scaled = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), float)
    top, left = round((height - 32) / 2), round((width - 32) / 2)
    pixels = read(insects.parent).test.pixels[0].numpy()
    assert np.abs(pixels - scaled[top : top + 32, left : left + 32]).max() <= 1


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


def said(root: Path, dataset: str = "folder:insects") -> list[str]:
    """The lines that `prepare` prints."""
    lines: list[str] = []
    prepare(TrainConfig(dataset=dataset), root, progress=lines.append)
    return lines


def test_what_systems_leave_in_folders_is_no_news(insects: Path) -> None:
    expected = read(insects.parent).train.pixels
    for path in ("train/.DS_Store", "train/bee/._0.png", "train/bee/Thumbs.db", "readme.md", "test/ant/desktop.ini"):
        (insects / path).write_text("not an image")
    for path in ("train/.cache", "train/@eaDir", "train/bee/@eaDir", "__MACOSX", "train/__MACOSX/bee"):
        (insects / path).mkdir(parents=True)
    write_image(insects / "train/bee/@eaDir/0.png")
    assert torch.equal(read(insects.parent).train.pixels, expected)
    assert said(insects.parent) == []


def test_files_that_are_left_out_are_counted_and_said(insects: Path) -> None:
    expected = read(insects.parent).train.pixels
    for path in ("train/bee/a.npy", "train/bee/b.NPY", "test/ant/0.jpg_large", "train/cat/0.png~", "train/cat/x"):
        (insects / path).write_text("not an image")
    (insects / "train/classes.csv").write_text("bee")
    assert torch.equal(read(insects.parent).train.pixels, expected)
    assert said(insects.parent) == [
        "folder:insects: left out 6 files that no image is read from: 2 .npy, 1 .csv, 1 without an ending, 1 .png~, "
        f"1 .jpg_large (such as {insects}/test/ant/0.jpg_large)"
    ]
    for number in range(3):
        (insects / f"train/bee/x.kind{number}").write_text("")
    assert "left out 9 files" in said(insects.parent)[0]
    assert " and 3 other kinds (such as " in said(insects.parent)[0]


def test_folders_and_pictures_beside_the_two_sets_are_said(insects: Path) -> None:
    write_image(insects / "val/ant/0.png")
    write_image(insects / "overview.png")
    (insects / "readme.md").write_text("about the data")
    assert said(insects.parent) == [
        f"folder:insects: left out 1 file that no image is read from: 1 .png (such as {insects}/overview.png)",
        f"folder:insects: left out 1 folder ({insects}/val) beside the training and the test set",
    ]


def test_classes_without_a_test_image_are_said(insects: Path) -> None:
    for name in ("ant", "bee"):
        (insects / f"test/{name}/0.png").unlink()
        (insects / f"test/{name}").rmdir()
    assert said(insects.parent) == ["folder:insects: the test set has no image of 2 classes (ant, bee)"]


def test_the_trainer_says_once_what_is_left_out(insects: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (insects / "train/bee" / os.fsdecode(b"caf\xe9.npy")).write_text("not an image")
    arguments = "--dataset folder:insects --width 1 --epochs 2 --batch-size 4 --data-root"
    assert main([*arguments.split(), str(insects.parent)]) == 0
    assert capfd.readouterr().err == (
        "folder:insects: left out 1 file that no image is read from: 1 .npy "
        f"(such as {insects}/train/bee/caf\\xe9.npy)\n"
    )


@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "jpe", "jfif", "JFIF", "jif", "pjpeg", "pjp"])
def test_every_ending_of_jpeg_is_read(insects: Path, suffix: str) -> None:
    image = write_image(insects / "test/ant/0.png", seed=3)
    image.save(insects / f"train/bee/9.{suffix}", "JPEG")
    with Image.open(insects / f"train/bee/9.{suffix}") as stored:
        expected = np.asarray(stored)
    data = read(insects.parent).train
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2]
    assert np.array_equal(data.pixels[6], expected)


@pytest.mark.parametrize("suffix", PICTURES)
def test_other_pictures_are_refused_by_name(insects: Path, suffix: str) -> None:
    path = insects / f"train/bee/0.{suffix.upper()}"
    path.write_text("some picture")
    with pytest.raises(DataError, match=f"{path} is neither PNG nor JPEG; convert it to one of them or delete it"):
        read(insects.parent)


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
        (
            lambda base: (base / "test").rename(base / "held-out"),
            r"test is missing; put the images into .*/train/CLASS/ and .*/test/CLASS/ \(or .*/val/CLASS/\)",
        ),
        (lambda base: (base / "train").rename(base / "training"), "train is missing; put the images into"),
        (
            lambda base: write_image(base / "train/0.webp"),
            "train/0.webp lies outside the class folders of .*/train; move",
        ),
        (
            lambda base: write_image(base / "train/bee/more/0.png"),
            "train/bee/more is a folder within a class, whose im",
        ),
        (lambda base: (base / "train/bee/back").symlink_to(".."), "train/bee/back is a folder within a class"),
        (lambda base: (base / "train/back").symlink_to("."), "train/back/.* is a folder within a class"),
        (
            lambda base: (base / "train/bee/x.png").symlink_to("x.png"),
            "train/bee/x.png is a link that leads to no file",
        ),
        (lambda base: (base / "train/bee/x.png").symlink_to("gone"), "train/bee/x.png is a link that leads to no file"),
        (lambda base: os.mkfifo(base / "train/bee/x.png"), "train/bee/x.png is no file; replace or delete it"),
        (lambda base: (base / "train/bee/images").mkdir(), "train/bee/images holds no PNG or JPEG image"),
        (
            lambda base: write_image(base / "train/bee/images/9.png"),
            "train/bee/.*.png lies beside .*/train/bee/images;",
        ),
    ],
)
def test_a_layout_that_is_wrong_is_refused(insects: Path, break_it: object, sentence: str) -> None:
    break_it(insects)
    with pytest.raises(DataError, match=f"^folder:insects: {insects}/{sentence}"):
        read(insects.parent)


COMPOSED, DECOMPOSED = "Caf\u00e9", "Cafe\u0301"


def test_a_class_may_be_written_in_two_unicode_forms(insects: Path) -> None:
    (insects / "train/bee").rename(insects / "train" / DECOMPOSED)
    (insects / "test/bee").rename(insects / "test" / COMPOSED)
    data = read(insects.parent)
    # In the order of the composed names, whatever system wrote them.
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert data.test.labels.tolist() == [0, 1, 2]
    assert list_folder("folder:insects", insects.parent).classes == [COMPOSED, "ant", "cat"]


def test_two_classes_that_look_the_same_are_refused(insects: Path) -> None:
    write_image(insects / "train" / COMPOSED / "0.png")
    write_image(insects / "train" / DECOMPOSED / "0.png")
    with pytest.raises(DataError, match=r"train has two folders 'Café' whose names look the same .*'Cafe\\u0301'"):
        read(insects.parent)


@pytest.mark.parametrize(("written", "asked"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_a_data_set_is_found_in_either_unicode_form(insects: Path, written: str, asked: str) -> None:
    insects.rename(insects.parent / written)
    assert len(read(insects.parent, f"folder:{asked}").train) == 9
    assert said(insects.parent, f"folder:{asked}") == []


def test_a_file_in_place_of_a_data_set_is_not_missing(tmp_path: Path) -> None:
    (tmp_path / "arrays.npz").write_bytes(b"")
    layout = f"{tmp_path}/arrays.npz/train/CLASS/ and {tmp_path}/arrays.npz/test/CLASS/"
    with pytest.raises(DataError, match=rf"arrays.npz is not a folder; put the images into {layout} \(or .*/val/CLASS"):
        said(tmp_path, "folder:arrays.npz")


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    (tmp_path / "insects/train").mkdir(parents=True)
    with pytest.raises(DataError, match="insects/train has no class folders; put the images"):
        read(tmp_path)


def test_the_published_numbers_of_classes_and_images_are_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_folder(tmp_path / "imagenet", split="val")
    spec = replace(dataset_spec("imagenet"), classes=3, train_images=9, test_images=3)
    put_spec(monkeypatch, "imagenet", spec)
    assert len(list_folder("imagenet", tmp_path).train) == 9
    (tmp_path / "imagenet/train/bee/1.png").unlink()
    check_folder("imagenet", tmp_path)
    with pytest.raises(DataError, match="holds 8 training images, the published data set 9"):
        list_folder("imagenet", tmp_path)
    put_spec(monkeypatch, "imagenet", replace(spec, classes=4))
    with pytest.raises(DataError, match="has 3 class folders, the published data set 4"):
        check_folder("imagenet", tmp_path)


def test_an_annotation_without_its_image_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tmp_path / "tiny-imagenet-200"
    write_image(base / "train/n01/images/0.JPEG")
    (base / "val").mkdir()
    spec = replace(dataset_spec("tinyimagenet"), classes=1, train_images=1, test_images=1)
    put_spec(monkeypatch, "tinyimagenet", spec)
    for line in ("val_0.JPEG\tn01\t0\t0", "val_0.JPEG", ""):
        (base / "val/val_annotations.txt").write_text(f"{line}\n")
        with pytest.raises(DataError, match=r"val_annotations\.txt, line 1: '.*' does not name an image and its class"):
            list_folder("tinyimagenet", tmp_path)
