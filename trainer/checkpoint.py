"""Checkpoints: written whole or not at all, read without running code, refused by name when they do not fit."""

from __future__ import annotations

import logging
import os
import pickle
from pathlib import Path
from typing import Any

import torch

from trainer.config import TrainConfig

log = logging.getLogger(__name__)

# Raise it when the content changes so that older programs could not continue from it.
CHECKPOINT_FORMAT = 1


class CheckpointError(Exception):
    """A checkpoint that cannot be used; the message names the file and the reason."""


class DamagedCheckpoint(CheckpointError):
    """A checkpoint file that was cut off or altered; the one before it may still be good."""


def previous(path: Path) -> Path:
    """Where the checkpoint before the newest one is kept."""
    return path.with_name(path.name + ".previous")


def save_checkpoint(path: Path, config: TrainConfig, state: dict[str, Any]) -> None:
    """Write `state` (tensors and plain values) under a temporary name, flush it to disk, then rename it.

    The checkpoint that stood there is kept as `previous(path)`, so a good one exists at every moment.

    Raises:
        OSError: the file could not be written; the checkpoints that were there are untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.writing")
    try:
        with open(temporary, "wb") as file:
            try:
                torch.save({"format": CHECKPOINT_FORMAT, "config": config.model_dump(mode="json"), **state}, file)
            except RuntimeError as error:
                # torch reports a failed write of its zip container as a RuntimeError.
                raise OSError(f"cannot write {temporary}: {error}") from error
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
    """The content of one checkpoint file, tensors on the CPU; `config` is a TrainConfig.

    Raises:
        CheckpointError: the file is missing, of a newer format, or not a checkpoint of this program.
        DamagedCheckpoint: it was cut off or altered.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no such checkpoint") from None
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()
        raise DamagedCheckpoint(
            f"{path}: damaged or truncated ({reason[0] if reason else type(error).__name__})"
        ) from error
    if not isinstance(state, dict) or not isinstance(state.get("format"), int) or "config" not in state:
        raise CheckpointError(f"{path}: not a checkpoint of this program")
    if state["format"] > CHECKPOINT_FORMAT:
        raise CheckpointError(
            f"{path}: format {state['format']} was written by a newer version (this one reads up to "
            f"{CHECKPOINT_FORMAT}); update the program"
        )
    try:
        state["config"] = TrainConfig(**state["config"])
    except ValueError as error:
        raise CheckpointError(f"{path}: its configuration is not valid here: {error}") from error
    return state


def resume_from(path: Path, config: TrainConfig) -> dict[str, Any] | None:
    """The newest usable checkpoint of `config` at `path`, or None where training starts from the beginning.

    A damaged file is named in the log and the previous one is used.

    Raises:
        CheckpointError: the file belongs to another configuration or a newer program; it is left alone.
    """
    for candidate in (path, previous(path)):
        if not candidate.exists():
            continue
        try:
            state = read_checkpoint(candidate)
        except DamagedCheckpoint as error:
            log.warning("%s; it is not used", error)
            continue
        if state["config"].key() != config.key():
            raise CheckpointError(
                f"{candidate}: belongs to another configuration ({_difference(state['config'], config)}); "
                "give another path or remove it"
            )
        return state
    return None


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint and the one before it."""
    path.unlink(missing_ok=True)
    previous(path).unlink(missing_ok=True)


def _difference(stored: TrainConfig, wanted: TrainConfig) -> str:
    old, new = stored.model_dump(), wanted.model_dump()
    return ", ".join(f"{name}: {old[name]!r} there, {new[name]!r} here" for name in new if old[name] != new[name])
