"""Checkpoint files: whole or refused by name, and never harmful."""

from __future__ import annotations

import errno
import logging
import os
import pickle
import random
import resource
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.training import assert_same, small, trained
from trainer.checkpoint import (
    CHECKPOINT_FORMAT,
    CheckpointError,
    DamagedCheckpoint,
    MissingCheckpoint,
    fitting,
    keep_newest,
    previous,
    read_checkpoint,
    remove_checkpoint,
    resume_from,
    save_checkpoint,
)
from trainer.train import train

CONFIG = small()


def some_state(number: int = 0) -> dict[str, Any]:
    return {
        "networks": {"weight": torch.full((2, 3), number + 0.1), "count": torch.tensor(number)},
        "optimizer": {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        "methods": {"pskd": {"tables": [torch.zeros(2, 2, dtype=torch.float64)]}},
        "results": [{"epoch": number}],
    }


def save(path: Path, number: int = 0, **changes: Any) -> None:
    save_checkpoint(path, CONFIG, some_state(number) | changes)


def epoch_of(state: dict[str, Any] | None) -> int | None:
    return None if state is None else state["results"][0]["epoch"]


def test_what_was_saved_is_read(tmp_path: Path) -> None:
    tensors = {
        "channels_last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "bfloat16": torch.randn(5).bfloat16(),
        "float64": torch.randn(5, dtype=torch.float64),
        "empty": torch.empty(0, 3),
    }
    save(tmp_path / "run.pt", networks=tensors)
    state = read_checkpoint(tmp_path / "run.pt")
    assert_same(state["networks"], tensors)
    assert state["config"] == CONFIG
    del state["networks"], state["config"], state["format"]
    assert_same(state, {name: values for name, values in some_state().items() if name != "networks"})


def test_the_newest_and_the_one_before_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "of" / "runs" / "run.pt"
    assert resume_from(path, CONFIG) is None
    for number in range(3):
        save(path, number)
    assert epoch_of(read_checkpoint(path)) == 2
    assert epoch_of(read_checkpoint(previous(path))) == 1
    assert len(list(path.parent.iterdir())) == 2

    keep_newest(path)
    assert [file.name for file in path.parent.iterdir()] == ["run.pt"]
    save(path, 3)
    remove_checkpoint(path)
    assert not list(path.parent.iterdir())
    remove_checkpoint(path)


def small_file(path: Path) -> bytes:
    save(path)
    return path.read_bytes()


def test_a_file_cut_off_anywhere_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    whole = small_file(path)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedCheckpoint, match=r"run\.pt: damaged"):
            read_checkpoint(path)
    path.write_bytes(whole)
    assert epoch_of(read_checkpoint(path)) == 0


def test_a_flipped_bit_is_noticed_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    whole = small_file(path)
    expected = read_checkpoint(path)
    places = random.Random(0)
    outcomes = {"refused": 0, "harmless": 0}
    for _ in range(1000):
        flipped = bytearray(whole)
        flipped[places.randrange(len(whole))] ^= 1 << places.randrange(8)
        path.write_bytes(flipped)
        try:
            state = read_checkpoint(path)
        except CheckpointError as error:
            assert str(error).startswith(f"{path}: ")
            outcomes["refused"] += 1
        else:
            assert_same(state, expected)
            outcomes["harmless"] += 1
    assert min(outcomes.values()) > 50


def test_every_number_is_covered_by_a_checksum(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    whole = small_file(path)
    start = whole.index(some_state()["networks"]["weight"].numpy().tobytes())
    for position in range(start, start + 24):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(DamagedCheckpoint, match="does not match its checksum"):
            read_checkpoint(path)


class Harmful:
    """Unpickling it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.marker),)


def write_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "not a checkpoint")


def write_pickled_code(path: Path) -> None:
    path.write_bytes(pickle.dumps({"format": 1, "code": Harmful(path.with_name("harm"))}))


def write_code(path: Path) -> None:
    torch.save({"format": 1, "config": {}, "code": Harmful(path.with_name("harm"))}, path)


def write_legacy_code(path: Path) -> None:
    state = {"format": 1, "code": Harmful(path.with_name("harm"))}
    torch.save(state, path, _use_new_zipfile_serialization=False)


FOREIGN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "text": (lambda path: path.write_text("notes of a week\n"), "is not a checkpoint of this program"),
    "random bytes": (lambda path: path.write_bytes(random.Random(1).randbytes(5000)), "is not a checkpoint"),
    "another zip": (write_zip, "is not a checkpoint"),
    "a folder": (lambda path: path.mkdir(), "is a folder"),
    "a tensor": (lambda path: torch.save(torch.ones(3), path), "is not a checkpoint"),
    "weights alone": (lambda path: torch.save({"weight": torch.ones(3)}, path), "is not a checkpoint"),
    "half a checkpoint": (
        lambda path: torch.save({"format": 1, "config": CONFIG.model_dump(mode="json")}, path),
        "is not a checkpoint",
    ),
    "code": (write_code, "is not a checkpoint"),
    "pickled code": (write_pickled_code, "is not a checkpoint"),
    "code as torch once saved": (write_legacy_code, "is not a checkpoint"),
    "a newer format": (
        lambda path: save(path, 7, format=CHECKPOINT_FORMAT + 1),
        f"format {CHECKPOINT_FORMAT + 1} was written by a newer version .*update the program",
    ),
    "another configuration": (
        lambda path: save_checkpoint(path, small(seed=1, learning_rate=0.2), some_state(7)),
        r"another configuration \(learning_rate: 0.2 there, 0.1 here, seed: 1 there, 0 here\)",
    ),
    "a configuration of another version": (
        lambda path: save(path, 7, config=CONFIG.model_dump(mode="json") | {"label_noise": 5}),
        "its configuration is not valid in this version .*'label_noise'",
    ),
}
DAMAGED: dict[str, Callable[[Path], Any]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-700]),
    "altered": lambda path: path.write_bytes(path.read_bytes().replace(b"momentum", b"moment\0m")),
}


def tree(folder: Path) -> dict[str, bytes | None]:
    return {path.name: path.read_bytes() if path.is_file() else None for path in folder.iterdir()}


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_no_checkpoint_of_this_run_is_refused_by_name_and_left_alone(kind: str, tmp_path: Path) -> None:
    write, message = FOREIGN[kind]
    path = tmp_path / "run.pt"
    write(path)
    before = tree(tmp_path)
    with pytest.raises(CheckpointError, match=rf"run\.pt: .*{message}") as caught:
        resume_from(path, CONFIG)
    assert not isinstance(caught.value, DamagedCheckpoint | MissingCheckpoint)
    assert "\n" not in str(caught.value)
    assert tree(tmp_path) == before, "neither changed nor was its code run"


@pytest.mark.parametrize("kind", [kind for kind in (*FOREIGN, *DAMAGED) if kind != "a folder"])
def test_the_previous_checkpoint_is_used_in_its_place(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "run.pt"
    save(path, 1)
    save(path, 2)
    if kind in FOREIGN:
        path.unlink()
        os.replace(previous(path), tmp_path / "kept")
        FOREIGN[kind][0](path)
        os.replace(tmp_path / "kept", previous(path))
    else:
        DAMAGED[kind](path)
    unusable = tree(tmp_path)["run.pt"]
    with caplog.at_level(logging.WARNING):
        assert epoch_of(resume_from(path, CONFIG)) == 1
    (warning,) = caplog.messages
    assert warning.startswith(f"{path}: ")
    assert "kept as run.pt.refused; training goes on from run.pt.previous" in warning
    assert tree(tmp_path) == {"run.pt.refused": unusable, "run.pt.previous": previous(path).read_bytes()}

    # From here on a good checkpoint exists at every moment.
    save(path, 2)
    assert epoch_of(resume_from(path, CONFIG)) == 2
    assert epoch_of(read_checkpoint(previous(path))) == 1


@pytest.mark.parametrize("kind", DAMAGED)
def test_training_starts_again_when_nothing_is_left(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "run.pt"
    save(path, 1)
    save(path, 2)
    DAMAGED[kind](path)
    DAMAGED[kind](previous(path))
    with caplog.at_level(logging.WARNING):
        assert resume_from(path, CONFIG) is None
    first, second = caplog.messages
    assert first.startswith(f"{path}: damaged")
    assert second.startswith(f"{previous(path)}: damaged")
    save(path, 1)
    assert epoch_of(resume_from(path, CONFIG)) == 1


def test_a_good_checkpoint_hides_what_is_wrong_with_the_previous(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    save(path, 2)
    previous(path).write_text("notes")
    assert epoch_of(resume_from(path, CONFIG)) == 2
    assert previous(path).read_text() == "notes"


def test_a_kill_between_two_names_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    save(path, 1)
    os.replace(path, previous(path))
    assert epoch_of(resume_from(path, CONFIG)) == 1


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    save(path, 1)
    kept = ["run.pt", "run.pt.writing.txt", "other.pt.1.writing", "run.pt2.1.writing", "run.pt.teacher"]
    for name in [*kept[1:], "run.pt.4711.writing", "run.pt.12.writing"]:
        (tmp_path / name).write_bytes(b"half")
    assert epoch_of(resume_from(path, CONFIG)) == 1
    assert sorted(tree(tmp_path)) == sorted(kept)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingCheckpoint, match=r"run\.pt: there is no such checkpoint"):
        read_checkpoint(tmp_path / "run.pt")


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_old_checkpoints_intact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.pt"
    save(path, 1)
    save(path, 2)
    before = tree(tmp_path)
    size = path.stat().st_size
    # A disk can be full at any byte; the name of the device that always is stands for the first.
    for room in [0, 1, 100, size // 2, size - 30, size - 1]:
        with file_size_limit(room), pytest.raises(OSError, match="File too large"):
            save(path, 3)
        assert tree(tmp_path) == before, f"at byte {room}"
    (tmp_path / f"run.pt.{os.getpid()}.writing").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device"):
        save(path, 3)
    assert tree(tmp_path) == before

    def failing(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
        patched.setattr("os.fsync", failing)
        save(path, 3)
    assert tree(tmp_path) == before
    assert epoch_of(resume_from(path, CONFIG)) == 2


def test_a_folder_that_cannot_be_made_is_refused_before_any_work(tmp_path: Path, data_root: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        train(CONFIG, pytest.fail, checkpoint=tmp_path / "file" / "run.pt", data_root=data_root)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EIO, errno.ENOSPC])
def test_a_folder_that_cannot_be_written_keeps_the_systems_own_error(
    number: int, tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = os.open

    def refuse(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if flags & os.O_WRONLY or flags & os.O_RDWR:
            raise OSError(number, os.strerror(number), path)
        return system(path, flags, *rest, **named)

    monkeypatch.setattr("os.open", refuse)
    with pytest.raises(OSError, match=f"{os.strerror(number)}: '{tmp_path}'") as caught:
        train(CONFIG, pytest.fail, checkpoint=tmp_path / "run.pt", data_root=data_root)
    assert caught.value.errno == number


@pytest.mark.parametrize("change", ["missing", "shape", "method"])
def test_content_of_another_version_is_refused(change: str, tmp_path: Path, data_root: Path) -> None:
    path, config = tmp_path / "run.pt", small(methods={"pskd": {}})
    trained(config, path, data_root, stop_after=1)
    state = read_checkpoint(path)
    del state["format"], state["config"]
    name = "0.classifier.weight"
    if change == "missing":
        del state["networks"][name]
    elif change == "shape":
        state["networks"][name] = state["networks"][name][:, :-1].clone()
    else:
        del state["methods"]["pskd"]
    save_checkpoint(path, config, state)
    with pytest.raises(CheckpointError, match=r"run\.pt: does not fit this version of the program .*remove it"):
        train(config, pytest.fail, checkpoint=path, data_root=data_root)


def test_a_mistake_elsewhere_is_not_taken_for_a_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), fitting(tmp_path):
        raise ZeroDivisionError
