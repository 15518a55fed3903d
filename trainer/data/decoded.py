"""Decoded images, kept on the node's disk: of all processes and trials there, one decodes a data set's files.

The pixels lie in `decoded/` of the node's folder as arrays that are mapped into memory. A name says which files were
decoded and how, and which checksum the pixels have, so that an array that was damaged or belongs to other files is made
anew. It is written under another name first. Where nothing can be kept, every process decodes for itself.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import zlib
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trainer.data.download import alone
from trainer.paths import PathError, node_folder

# Fewer files are decoded in about a second, unless they are large.
FEW_FILES, FEW_BYTES = 1_000, 16 * 2**20

log = logging.getLogger(__name__)


def decoded_once(name: str, split: str, paths: Sequence[str], size: int, decode: Callable[[], Tensor]) -> Tensor:
    """Return the pixels [N, size, size, 3] uint8 that `decode` makes of the files at `paths`, from the disk if it can.

    Of equal calls on one node at the same time, one decodes and the others wait. Raises what `decode` raises.
    """
    try:
        status = [os.stat(path) for path in paths]
    except OSError:  # Whoever decodes the file says so by its name.
        return decode()
    if len(paths) < FEW_FILES and sum(stat.st_size for stat in status) < FEW_BYTES:
        return decode()
    # The same split's earlier state has the same place, and leaves it.
    place = _digest([name, split, size, os.path.commonpath(paths)])
    files = [(path, stat.st_size, stat.st_mtime_ns) for path, stat in zip(paths, status, strict=True)]
    stem = f"{place}-{_digest([_decoders(), size, files])}"
    pixels = None
    folder = failure = None
    try:
        folder = node_folder() / "decoded"
        folder.mkdir(mode=0o700, exist_ok=True)
        shape = (len(paths), size, size, 3)
        kept = _kept(folder, stem, shape)
        if kept is not None:
            return kept
        with alone(folder / f"{place}.lock", name, log.warning, doing="decoding its images"):
            # Another process may have decoded them while this one waited.
            kept = _kept(folder, stem, shape)
            if kept is not None:
                return kept
            try:
                pixels = decode()
            except Exception as error:
                failure = error
                raise
            _keep(folder, place, stem, pixels)
            kept = _kept(folder, stem, shape)
    except (OSError, PathError) as error:
        if error is failure:
            raise
        reason = error if isinstance(error, PathError) else f"{error.filename or folder}: {error.strerror}"
        log.warning(f"{name}: its decoded images are not kept for other trials: {reason}")
        kept = None
    if kept is None:
        return decode() if pixels is None else pixels
    return kept


def _decoders() -> list[str]:
    """Return everything besides the files that decides the pixels; the number is that of our own code."""
    import PIL
    from PIL import features

    # Importing torchvision for its version would take longer than all the rest.
    return ["1", PIL.__version__, version("torchvision"), *(str(features.version(codec)) for codec in ("jpg", "zlib"))]


def _digest(values: object) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


def _kept(folder: Path, stem: str, shape: tuple[int, ...]) -> Tensor | None:
    """Return the pixels that were kept under this name, None if there are none or they are damaged."""
    for path in folder.glob(f"{stem}-*.npy"):
        try:
            # A private map: whoever writes to the array does not change the file.
            pixels = np.load(path, mmap_mode="c", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            continue
        if pixels.shape == shape and pixels.dtype == np.uint8 and path.stem == f"{stem}-{_checksum(pixels)}":
            return torch.from_numpy(pixels)
    return None


def _keep(folder: Path, place: str, stem: str, pixels: Tensor) -> None:
    """Write the pixels to the disk, in place of whatever was kept of the same split. The caller holds the lock."""
    for path in folder.glob(f"{place}-*"):
        path.unlink()
    # The disk is not ours alone.
    if shutil.disk_usage(folder).free < 2 * pixels.nbytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
    array = pixels.numpy()
    writing = folder / f"{stem}.writing"
    try:
        with writing.open("wb") as opened:
            # As `np.save` does, whose errors do not tell a full disk from another fault.
            np.lib.format.write_array_header_1_0(opened, np.lib.format.header_data_from_array_1_0(array))
            opened.write(array.reshape(-1).data)
            opened.flush()
            os.fsync(opened.fileno())
        os.replace(writing, folder / f"{stem}-{_checksum(array)}.npy")
    finally:
        writing.unlink(missing_ok=True)


def _checksum(pixels: np.ndarray) -> str:
    return f"{zlib.crc32(pixels.reshape(-1).data):08x}"
