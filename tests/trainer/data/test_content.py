"""Fingerprints of data: what changes them, what does not, and what is read again."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.fake_datasets import fake_cifar100, fake_folder, write_image
from trainer.config import TrainConfig
from trainer.data import content, fingerprint, known_fingerprint
from trainer.data.content import content_digest
from trainer.datasets import DataError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep what is hashed in a folder of the test."""
    monkeypatch.setenv("ORCHESTRATE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Put a folder of images below the data root; returns the root."""
    fake_folder(tmp_path / "data" / "pets")
    for number, name in enumerate(("ant", "bee", "cat")):
        write_image(tmp_path / "data" / "pets" / "test" / name / "more.png", seed=70 + number)
    return tmp_path / "data"


def digest(root: Path, name: str = "folder:pets") -> str:
    sha256 = content_digest(name, root)
    assert sha256 is not None and len(sha256) == 64
    return sha256


def test_a_folder_has_one_fingerprint_wherever_it_lies(pets: Path, tmp_path: Path) -> None:
    shutil.copytree(pets, tmp_path / "elsewhere")
    assert digest(pets) == digest(tmp_path / "elsewhere")


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("change", ["removed", "added", "renamed", "painted", "moved to another class"])
def test_a_changed_folder_has_another_fingerprint(pets: Path, split: str, change: str) -> None:
    before = digest(pets)
    image = sorted((pets / "pets" / split / "ant").iterdir())[0]
    kept = image.read_bytes()
    if change == "removed":
        image.unlink()
    elif change == "added":
        write_image(image.with_name("z.png"), seed=99)
    elif change == "renamed":
        image.rename(image.with_name("z.png"))
    elif change == "moved to another class":
        image.rename(pets / "pets" / split / "bee" / "z.png")
    else:
        write_image(image, seed=98)
    assert digest(pets) != before
    if change == "painted":
        # Back to the old bytes, at another time.
        image.write_bytes(kept)
        assert digest(pets) == before


def test_files_that_no_image_is_read_from_do_not_count(pets: Path) -> None:
    before = digest(pets)
    (pets / "pets" / "LICENSE").write_text("free")
    (pets / "pets" / "train" / "ant" / ".DS_Store").write_text("")
    assert digest(pets) == before


def test_a_file_is_read_once_until_it_changes(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    hashed = content._sha256

    def counting(path: Path) -> str:
        read.append(path.name)
        return hashed(path)

    monkeypatch.setattr(content, "_sha256", counting)
    before = digest(pets)
    assert len(read) == len(list(pets.rglob("*.png")))
    read.clear()
    assert digest(pets) == before and not read
    image = sorted((pets / "pets" / "train" / "ant").iterdir())[0]
    os.utime(image, ns=(1, 1))
    assert digest(pets) == before and read == [image.name]


def test_what_would_take_long_is_left_out_and_a_removed_image_takes_no_time(pets: Path) -> None:
    config = TrainConfig(dataset="folder:pets")
    assert known_fingerprint(config, pets, most_bytes=0) is None
    before = fingerprint(config, pets)
    assert known_fingerprint(config, pets, most_bytes=0) == before
    sorted((pets / "pets" / "train" / "ant").iterdir())[0].unlink()
    after = known_fingerprint(config, pets, most_bytes=0)
    assert after not in (None, before) and after == fingerprint(config, pets)


def test_data_that_is_not_there_is_not_compared(tmp_path: Path) -> None:
    assert known_fingerprint(TrainConfig(dataset="folder:pets"), tmp_path, most_bytes=10**9) is None
    with pytest.raises(DataError, match="train is missing"):
        content_digest("folder:pets", tmp_path)


@pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b'{"files": {"train/ant/0.png": 1}}'])
def test_a_damaged_cache_is_made_anew(pets: Path, cache: Path, damage: bytes) -> None:
    before = digest(pets)
    (kept,) = (cache / "fingerprints").iterdir()
    kept.write_bytes(damage)
    assert digest(pets) == before
    assert kept.read_bytes() != damage


def test_a_cache_that_cannot_be_written_is_no_fault(pets: Path, cache: Path) -> None:
    cache.mkdir(exist_ok=True)
    (cache / "fingerprints").write_text("a file in its place")
    assert digest(pets) == digest(pets)


def test_published_files_count_by_their_checksums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cifar100(tmp_path, monkeypatch)
    before = digest(tmp_path, "cifar100")
    # Not read: whoever reads the files compares them with the checksums.
    shutil.rmtree(tmp_path / "cifar-100-python")
    assert digest(tmp_path, "cifar100") == before


def test_arrays_count_by_their_values(tmp_path: Path) -> None:
    arrays = {
        f"{split}_{part}": values
        for split in ("train", "test")
        for part, values in (("images", np.zeros((4, 8, 8, 3), np.uint8)), ("labels", np.arange(4) % 2))
    }
    np.savez(tmp_path / "a.npz", **arrays)
    np.savez_compressed(tmp_path / "b.npz", **arrays)
    assert digest(tmp_path, "npz:a.npz") == digest(tmp_path, "npz:b.npz")
    np.savez(tmp_path / "b.npz", **{**arrays, "test_labels": np.array([0, 1, 1, 1])})
    assert digest(tmp_path, "npz:a.npz") != digest(tmp_path, "npz:b.npz")


def test_a_function_tells_by_its_arrays_and_only_when_it_is_called(tmp_path: Path) -> None:
    assert content_digest("digits", tmp_path) is None
    config = TrainConfig(dataset="digits")
    assert known_fingerprint(config, tmp_path, most_bytes=10**9) is None
    assert len(fingerprint(config, tmp_path)) == 64
    assert fingerprint(config, tmp_path) != fingerprint(TrainConfig(dataset="synthetic"), tmp_path)


def test_a_second_data_set_counts_as_well(pets: Path) -> None:
    alone, both = TrainConfig(dataset="folder:pets"), TrainConfig(dataset="folder:pets", ood_dataset="digits")
    assert fingerprint(alone, pets) != fingerprint(both, pets)
