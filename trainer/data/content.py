"""Fingerprint the content of data sets, so that images that came, went or changed are noticed. No torch here.

Published files count by their MD5 sums, which every reading checks; a folder by its images' names, sizes and contents,
and one that is too large to be read for this (`streamed`) by names and sizes; an `npz:` file by its arrays. What was
hashed once is kept in `fingerprints/` of the node's folder and is hashed again when its size or time of change differs.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unicodedata import normalize

from trainer.data.arrays import read_arrays
from trainer.data.folders import base_folder, folder_fingerprint, list_folder
from trainer.datasets import DataError, dataset_spec
from trainer.kept import keep, kept

if TYPE_CHECKING:
    from trainer.config import TrainConfig


def content_digest(name: str, root: Path, *, most_bytes: int | None = None) -> str | None:
    """Return the sha256 (64 hex digits) of a data set's content below the data root.

    None where a function makes the data set, whose arrays alone tell (`trainer.data.reading.dataset_digest` reads
    them), and where more than `most_bytes` would have to be read. Raises DataError when files are missing or cannot be
    read, and KeyError for an unknown name.
    """
    spec = dataset_spec(name)
    if spec.files:
        return combined((file.path, file.md5) for file in spec.files)
    if spec.folder:
        return (_streamed_digest if spec.streamed else _folder_digest)(name, root, most_bytes)
    if spec.arrays:
        path = root / spec.arrays

        def digest(path: Path) -> str:
            return array_digest(read_arrays(name, path))

        return _digest_of(name, path, {"arrays": path}, digest, most_bytes)
    return None


def known_fingerprint(config: TrainConfig, root: Path, *, most_bytes: int) -> str | None:
    """Return what `trainer.data.fingerprint` does where the files tell it and at most `most_bytes` must be read.

    None elsewhere, and where files are missing or cannot be read.
    """
    try:
        return of_data_sets(config, lambda name: content_digest(name, root, most_bytes=most_bytes))
    except DataError:
        return None


def of_data_sets(config: TrainConfig, digest: Callable[[str], str | None]) -> str | None:
    """Return one digest of the data sets of a configuration, given that of each; None where one has none."""
    names = [name for name in (config.dataset, config.ood_dataset) if name is not None]
    digests = {name: value for name in names if (value := digest(name)) is not None}
    if len(digests) < len(set(names)):
        return None
    return combined(digests.items()) if len(digests) > 1 else digests[config.dataset]


def combined(named: Iterable[tuple[str, str]]) -> str:
    """Return the sha256 of names with the digests of what they name, in any order."""
    return hashlib.sha256(json.dumps(sorted(named)).encode()).hexdigest()


def array_digest(arrays: Mapping[str, Any]) -> str:
    """Return the sha256 of named NumPy arrays: their types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        digest.update(memoryview(array if array.flags.c_contiguous else array.copy(order="C")).cast("B"))
    return digest.hexdigest()


def _folder_digest(name: str, root: Path, most_bytes: int | None) -> str | None:
    base = base_folder(name, root)
    listing = list_folder(name, root)
    files = {_below(base, path): Path(path) for path, _ in (*listing.train, *listing.test)}
    return _digest_of(name, base, files, _sha256, most_bytes)


def _streamed_digest(name: str, root: Path, most_bytes: int | None) -> str | None:
    # Two thousand folders instead of a million files: an image that came or went changes its folder's time.
    base, folders = base_folder(name, root), [0, *folder_fingerprint(name, root)]
    before = kept(base)
    if before.get("folders") == folders:
        return str(before["sha256"])
    if most_bytes is not None:
        return None
    listing = list_folder(name, root)
    digest = combined((_below(base, path), str(os.stat(path).st_size)) for path, _ in (*listing.train, *listing.test))
    keep(base, {"folders": folders, "sha256": digest})
    return digest


def _below(base: Path, path: str) -> str:
    return normalize("NFC", os.path.relpath(path, base))


def _digest_of(
    name: str, base: Path, files: Mapping[str, Path], digest: Callable[[Path], str], most_bytes: int | None
) -> str | None:
    """Return the digest of files by name, reading those alone that changed since they were read last."""
    rows = kept(base).get("files", {}).items()
    before = {below: row for below, row in rows if isinstance(row, list) and len(row) == 3}
    hashed: dict[str, tuple[int, int, str]] = {}
    changed: dict[str, Path] = {}
    try:
        for below, path in files.items():
            facts = path.stat()
            size, changed_at, value = before.get(below, (None, None, ""))
            hashed[below] = (facts.st_size, facts.st_mtime_ns, value)
            if hashed[below][:2] != (size, changed_at):
                changed[below] = path
        if most_bytes is not None and sum(hashed[below][0] for below in changed) > most_bytes:
            return None
        # Hashing releases the interpreter lock.
        with ThreadPoolExecutor() as executor:
            for below, value in zip(changed, executor.map(digest, changed.values()), strict=True):
                hashed[below] = (*hashed[below][:2], value)
    except OSError as error:
        raise DataError(f"{name}: {error.filename or base} cannot be read ({error.strerror or error})") from None
    if changed or before.keys() - hashed.keys():
        keep(base, {"files": hashed})
    return combined((below, value) for below, (_, _, value) in hashed.items())


def _sha256(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
