"""Decoded images that a node keeps: decoded once, never wrong, and never in the way."""

from __future__ import annotations

import errno
import logging
import logging.handlers
import os
import resource
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch

from tests.trainer.fake_datasets import fake_folder, write_image
from tests.trainer.training import forking
from trainer.config import TrainConfig
from trainer.data import Images, decoded, load_splits, reading
from trainer.data.splits import DataError

CONFIG = TrainConfig(dataset="folder:insects")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    fake_folder(tmp_path / "data/insects")
    monkeypatch.setenv("ORCHESTRATE_CACHE", str(tmp_path / "node"))
    monkeypatch.setattr(decoded, "FEW_FILES", 1)
    return tmp_path / "data"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were decoded."""
    paths: list[str] = []
    original = reading.open_image
    monkeypatch.setattr(reading, "open_image", lambda path: (paths.append(path), original(path))[1])
    return paths


def read(root: Path) -> Images:
    """The training images, as another process would read them."""
    reading._read.cache_clear()
    return load_splits(CONFIG, root).train


def kept(root: Path) -> list[Path]:
    return sorted((root.parent / "node/decoded").glob("*.npy"))


def test_files_are_decoded_once_on_a_node(root: Path, opened: list[str]) -> None:
    before = sorted(os.walk(root))
    first = read(root)
    assert len(opened) == 9 + 3
    second = read(root)
    assert len(opened) == 9 + 3
    assert torch.equal(first.pixels, second.pixels)
    assert len(kept(root)) == 2
    # A data root may be read-only.
    assert sorted(os.walk(root)) == before


def test_what_is_written_to_the_pixels_stays_in_the_process(root: Path) -> None:
    read(root)
    pixels = read(root).pixels
    expected = pixels.clone()
    pixels.zero_()
    assert torch.equal(read(root).pixels, expected)


def test_few_images_are_not_kept(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoded, "FEW_FILES", 10)
    read(root)
    assert kept(root) == []


@pytest.mark.parametrize("change", ["replaced", "touched", "added", "removed"])
def test_other_files_are_decoded_anew(root: Path, opened: list[str], change: str) -> None:
    read(root)
    path = root / "insects/train/bee/1.png"
    if change == "removed":
        path.unlink()
    elif change == "touched":
        os.utime(path, ns=(1, 1))
    else:
        write_image(path if change == "replaced" else path.with_name("9.png"), seed=77)
    opened.clear()
    data = read(root)
    assert len(opened) == len(data) == {"added": 10, "removed": 8}.get(change, 9)
    expected = [reading.fitted(reading.open_image(path), 32) for path in opened[: len(data)]]
    assert torch.equal(data.pixels, torch.stack(expected))
    # What was decoded of the same folder before is gone.
    assert len(kept(root)) == 2


def test_another_decoder_decodes_anew(root: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    read(root)
    monkeypatch.setattr("PIL.__version__", "99.0")
    opened.clear()
    read(root)
    assert len(opened) == 9 + 3


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "pickle"])
def test_damaged_pixels_are_decoded_anew(root: Path, opened: list[str], damage: str) -> None:
    expected = read(root).pixels.clone()
    for path in kept(root):
        contents = bytearray(path.read_bytes())
        contents[-1] ^= 1
        new = {"flipped": contents, "cut": contents[:-100], "empty": b"", "pickle": b"\x80\x04N."}[damage]
        path.unlink()
        path.write_bytes(new)
    opened.clear()
    assert torch.equal(read(root).pixels, expected)
    assert len(opened) == 9 + 3
    assert torch.equal(read(root).pixels, expected)
    assert len(opened) == 9 + 3


def test_a_damaged_image_is_named_and_nothing_is_kept(root: Path) -> None:
    (root / "insects/train/bee/1.png").write_bytes(b"no image")
    for _ in range(2):
        with pytest.raises(DataError, match=r"train/bee/1\.png: cannot be read as an image"):
            read(root)
    assert kept(root) == []


def test_a_disk_that_fails_while_images_are_read_is_no_fault_of_the_node_folder(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried: list[str] = []

    def failing(path: str) -> None:
        tried.append(path)
        raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    monkeypatch.setattr(reading, "open_image", failing)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    with pytest.raises(OSError, match="Input/output error"):
        read(root)
    assert caplog.records == [] and len(set(tried)) == len(tried)


def test_splits_of_one_folder_are_both_kept(root: Path) -> None:
    paths = [str(root / f"insects/all/{number}.png") for number in range(6)]
    for path in paths:
        write_image(Path(path))
    splits = {"train": paths[:4], "test": paths[4:]}
    for _ in range(2):
        for split, chosen in splits.items():
            pixels = torch.zeros(len(chosen), 32, 32, 3, dtype=torch.uint8)
            decoded.decoded_once("folder:insects", split, chosen, 32, lambda pixels=pixels: pixels)
        assert len(kept(root)) == 2


def test_a_node_folder_that_cannot_be_used_is_said_in_one_line(
    root: Path, opened: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    (root.parent / "node").write_text("a file")
    assert len(read(root)) == 9
    assert len(opened) == 9 + 3
    line = f"folder:insects: its decoded images are not kept for other trials: {root.parent}/node cannot be made"
    assert [record.getMessage().startswith(line) for record in caplog.records] == [True, True]


def test_too_little_room_is_said(root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    usage = decoded.shutil.disk_usage(root)
    monkeypatch.setattr(decoded.shutil, "disk_usage", lambda folder: usage._replace(free=9 * 32 * 32 * 3))
    assert len(read(root)) == 9
    assert caplog.messages[0].endswith(f"{root.parent}/node/decoded: No space left on device")
    assert len(kept(root)) == 1  # the test images, which are fewer


class Reader:
    """A process of its own that reads the images once it is asked."""

    def __init__(self, root: Path, file_bytes: int = -1) -> None:
        context = forking()
        self._ours, far_end = context.Pipe()
        context.Process(target=_read, args=(far_end, root, file_bytes), daemon=True).start()
        far_end.close()

    def go(self) -> None:
        self._ours.send("go")

    def told(self) -> tuple[int, int, list[str]]:
        """Return how many files it has decoded, the sum of the training images, and what it has warned of."""
        return self._ours.recv()


def _read(channel: Connection, root: Path, file_bytes: int) -> None:
    torch.set_num_threads(1)
    # Not the environment of the server that forked this process.
    os.environ["ORCHESTRATE_CACHE"] = str(root.parent / "node")
    decoded.FEW_FILES = 1
    warnings = logging.handlers.BufferingHandler(1000)
    logging.getLogger().addHandler(warnings)
    opened, original = [], reading.open_image
    reading.open_image = lambda path: (opened.append(path), original(path))[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    channel.recv()
    train, _ = reading.read_dataset("folder:insects", root)
    channel.send((len(opened), train.pixels.sum().item(), [record.getMessage() for record in warnings.buffer]))


def test_of_several_processes_one_decodes(root: Path) -> None:
    expected = read(root).pixels.sum().item()
    for path in kept(root):
        path.unlink()
    readers = [Reader(root) for _ in range(3)]
    for reader in readers:
        reader.go()
    reports = [reader.told() for reader in readers]
    assert sum(opened for opened, _, _ in reports) == 9 + 3
    assert [total for _, total, _ in reports] == [expected] * 3


def test_a_write_that_fails_loses_nothing(root: Path) -> None:
    expected = read(root).pixels.sum().item()
    for path in kept(root):
        path.unlink()
    reader = Reader(root, file_bytes=20_000)
    reader.go()
    opened, total, warnings = reader.told()
    # Each file is decoded once, though the pixels of the larger set could not be written.
    assert (opened, total) == (12, expected)
    (warning,) = warnings
    assert warning.startswith("folder:insects: its decoded images are not kept for other trials: ")
    assert "File too large" in warning
    assert [path.suffix for path in (root.parent / "node/decoded").iterdir()].count(".writing") == 0
    assert len(kept(root)) == 1


def test_nothing_is_said_where_all_is_well(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    read(root)
    assert caplog.messages == []
