"""Checkpoints: written whole or not at all, read without running code, refused by name when they do not fit."""

from __future__ import annotations

import errno
import logging
import os
import pickle
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from pydantic import ValidationError

from trainer.config import TrainConfig, config_problems
from trainer.errors import TrainerError
from trainer.paths import folder_refusal

log = logging.getLogger(__name__)

# Raise this number when the content changes so that older programs could not continue from it.
CHECKPOINT_FORMAT = 1

ZIP_MAGIC = b"PK\3\4"

# The largest share of the time that writing checkpoints takes, without a fixed interval.
CHECKPOINT_SHARE = 0.02

_CONTENT = {"networks": dict, "optimizer": dict, "methods": dict, "results": list}


class CheckpointError(TrainerError):
    """A checkpoint that cannot be used; the message names the file, the reason and what to do."""


class MissingCheckpoint(CheckpointError):
    """There is no file."""


class DamagedCheckpoint(CheckpointError):
    """A checkpoint file that was cut off or altered."""


def previous(path: Path) -> Path:
    """Return the path of the checkpoint before the newest one."""
    return path.with_name(path.name + ".previous")


def refused(path: Path) -> Path:
    """Return the path under which an unusable checkpoint is kept for inspection."""
    return path.with_name(path.name + ".refused")


def save_checkpoint(path: Path, config: TrainConfig, state: dict[str, Any]) -> None:
    """Write `state` (tensors and plain values) under a temporary name, flush it to disk, then rename it.

    The checkpoint that stood there is kept as `previous(path)`, so a good one exists at every moment.

    Raises:
        OSError: the file could not be written; the checkpoints that were there are untouched.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.writing")
    try:
        with open(temporary, "wb") as file:
            torch.save({"format": CHECKPOINT_FORMAT, "config": config.model_dump(mode="json"), **state}, file)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            os.replace(path, previous(path))
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the content of one checkpoint file, tensors on the CPU; `config` is a TrainConfig.

    Raises:
        MissingCheckpoint: there is no file.
        DamagedCheckpoint: it was cut off or altered.
        CheckpointError: it is of a newer format, or not a checkpoint of this program.
        OSError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            state = _read(path, file)
    except FileNotFoundError:
        raise MissingCheckpoint(f"{path}: there is no such checkpoint") from None
    except IsADirectoryError:
        raise _folder(path) from None
    if not isinstance(state, dict):
        raise _not_ours(path)
    number, config = state.get("format"), state.get("config")
    if not isinstance(number, int) or not isinstance(config, dict):
        raise _not_ours(path)
    if number > CHECKPOINT_FORMAT:
        raise CheckpointError(
            f"{path}: format {number} was written by a newer version (this one reads up to {CHECKPOINT_FORMAT}); "
            "update the program"
        )
    if not all(isinstance(state.get(name), kind) for name, kind in _CONTENT.items()):
        raise _not_ours(path)
    try:
        state["config"] = TrainConfig(**config)
    except ValidationError as error:
        listed = "; ".join(f"{'.'.join(place)}: {message}" for place, message in config_problems(error))
        raise CheckpointError(f"{path}: its configuration is not valid in this version ({listed})") from None
    return state


def _read(path: Path, file: BinaryIO) -> Any:
    magic = file.read(4)
    if magic != ZIP_MAGIC:
        if ZIP_MAGIC.startswith(magic):
            raise DamagedCheckpoint(f"{path}: damaged (only {len(magic)} bytes are left)")
        # Neither a checkpoint nor the beginning of one: it is not unpickled.
        raise _not_ours(path)
    # torch does not compare the contents with their checksums, so a flipped bit would go unnoticed.
    try:
        with zipfile.ZipFile(file) as archive:
            altered = archive.testzip()
    except Exception as error:  # A bad byte in the directory of a zip file raises nearly anything.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise DamagedCheckpoint(f"{path}: damaged or cut off ({error or type(error).__name__})") from None
    if altered:
        raise DamagedCheckpoint(f"{path}: damaged ({altered} does not match its checksum)")
    file.seek(0)
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError):
        raise _not_ours(path) from None


@contextmanager
def fitting(path: Path) -> Iterator[None]:
    """Raise CheckpointError where the content of a checkpoint turns out not to fit what it is loaded into."""
    try:
        yield
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: does not fit this version of the program ({str(error).splitlines()[0]}); "
            "remove it to train from the beginning"
        ) from error


def _folder(path: Path) -> CheckpointError:
    return CheckpointError(f"{path}: is a folder, not a checkpoint; give the path of a file")


def _not_ours(path: Path) -> CheckpointError:
    return CheckpointError(f"{path}: is not a checkpoint of this program; give another path or remove it")


def resume_from(path: Path, config: TrainConfig) -> dict[str, Any] | None:
    """Return the newest usable checkpoint of `config` at `path`, or None where training starts from the beginning.

    Where the newest file cannot be used, the log names it with the reason, it is renamed to `refused(path)`, and the
    one before it is used; without a usable one, training starts again after damage, but another program's file is left
    as it is.

    Raises:
        CheckpointError: the file belongs to another configuration, a newer program, or is not a checkpoint.
        OSError: the folder cannot be written, or the file not be read.
    """
    if path.is_dir():
        raise _folder(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if (refusal := folder_refusal(path.parent)) is not None:
        # The system's error names the temporary file, which means nothing to the user.
        raise type(refusal)(refusal.errno, refusal.strerror, str(path.parent)) from None
    _remove_unfinished(path)
    errors: list[CheckpointError] = []
    for candidate in (path, previous(path)):
        try:
            state = _read_own(candidate, config)
        except MissingCheckpoint:
            continue
        except CheckpointError as error:
            errors.append(error)
            continue
        for problem in errors:
            log.warning("%s. It is kept as %s; training goes on from %s", problem, refused(path).name, candidate.name)
            os.replace(path, refused(path))
        return state
    for problem in errors:
        if not isinstance(problem, DamagedCheckpoint):
            raise problem
    for problem in errors:
        log.warning("%s. Training starts from the beginning", problem)
    return None


def _read_own(path: Path, config: TrainConfig) -> dict[str, Any]:
    state = read_checkpoint(path)
    if state["config"].key() != config.key():
        raise CheckpointError(
            f"{path}: belongs to another configuration ({_difference(state['config'], config)}); "
            "give another path or remove it"
        )
    return state


def _remove_unfinished(path: Path) -> None:
    """Remove the unfinished files of processes that were killed while they wrote."""
    for name in os.listdir(path.parent):
        if name.startswith(f"{path.name}.") and name.endswith(".writing"):
            path.with_name(name).unlink(missing_ok=True)


def keep_newest(path: Path) -> None:
    """Remove the checkpoint before the newest one, which a finished training does not need."""
    previous(path).unlink(missing_ok=True)


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint and the one before it."""
    path.unlink(missing_ok=True)
    previous(path).unlink(missing_ok=True)


def _difference(stored: TrainConfig, wanted: TrainConfig) -> str:
    old, new = stored.model_dump(), wanted.model_dump()
    return ", ".join(f"{name}: {old[name]!r} there, {new[name]!r} here" for name in new if old[name] != new[name])


class Saver:
    """Writes the checkpoint at `path` after an epoch, when it is due.

    It is due `seconds` after the last time; with None, when writing has taken at most 2 % of the time since.
    """

    def __init__(self, path: Path | None, seconds: float | None) -> None:
        self.path, self.seconds = path, seconds
        self.written = time.monotonic()
        self.cost = 0.0

    def save(self, config: TrainConfig, state: Callable[[], dict[str, Any]], *, last: bool) -> None:
        """Write what `state` gives if it is due or the last one."""
        if self.path is None:
            return
        pause = self.cost / CHECKPOINT_SHARE if self.seconds is None else self.seconds
        if not last and time.monotonic() - self.written < pause:
            return
        began = time.monotonic()
        save_checkpoint(self.path, config, state())
        self.written = time.monotonic()
        self.cost = self.written - began
