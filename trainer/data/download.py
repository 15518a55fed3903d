"""Fetch and check the files of the data sets, once, before any training. No torch here."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import http.client
import math
import os
import shutil
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.data.arrays import read_npz
from trainer.data.folders import base_folder, check_folder, expected_layout, list_folder
from trainer.datasets import DataAway, DataError, dataset_spec
from trainer.errors import TrainerError
from trainer.spec import DataFile, DatasetSpec

if TYPE_CHECKING:
    from trainer.config import TrainConfig

__all__ = ["DataAway", "DataError", "alone", "file_problem", "prepare", "read_verified", "what_is_missing"]

CHUNK = 1 << 20
TIMEOUT_SECONDS = 30
# Seconds between polls of a process that waits for another one, and between its messages.
POLL_SECONDS, TELL_SECONDS = 0.5, 60.0

# Answers of a server that another try may change: Request Timeout, Too Early, Too Many Requests (RFC 9110, 8470, 6585).
_LATER = {408, 425, 429}
# A disk that makes room or is mended.
_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE}

# A file system without locks.
_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}

Progress = Callable[[str], None]


def prepare(config: TrainConfig, data_root: Path, *, progress: Progress | None = None) -> None:
    """Make sure that the data sets of a configuration are complete, downloading what is missing where that is possible.

    Published files are compared with their MD5 sums. A download is checked before it takes its place, so one that
    was interrupted never looks whole, and of several processes only one downloads. `progress` is given lines of text.

    Raises DataError when a data set is missing and cannot be had, or is damaged; DataAway where only the network, the
    server or the disk stands in the way.
    """
    for name in dict.fromkeys((config.dataset, config.ood_dataset)):
        if name is not None:
            _prepare(name, Path(data_root), progress or (lambda line: None))


def what_is_missing(name: str, data_root: Path) -> str | None:
    """Return why a data set is not ready for training, None if it is. Downloads nothing.

    Raises KeyError for an unknown name.
    """
    try:
        return _what_is_wrong(name, dataset_spec(name), Path(data_root))
    except DataError as error:
        return str(error).removeprefix(f"{name}: ")


def read_verified(name: str, root: Path, file: DataFile) -> bytes:
    """Return the contents of a published file, after a check.

    Raises DataError when the file is missing or damaged.
    """
    spec, path = dataset_spec(name), root / file.path
    try:
        contents = path.read_bytes()
    except OSError as error:
        raise DataError(f"{name}: {_unreadable(path, error)}; {_where_to_get(spec, root)}") from None
    if hashlib.md5(contents, usedforsecurity=False).hexdigest() != file.md5:
        raise DataError(f"{name}: {path} is damaged (its MD5 is not {file.md5}); {_where_to_get(spec, root)}")
    return contents


def _prepare(name: str, root: Path, progress: Progress) -> None:
    spec = dataset_spec(name)
    wrong = _what_is_wrong(name, spec, root, progress)
    if wrong is None:
        return
    if spec.archive is None and not spec.files:
        raise DataError(f"{name}: {wrong}; {_where_to_get(spec, root)}")
    try:
        with alone(root / ".download" / f"{name}.lock", name, progress):
            # Another process may have fetched it while this one waited.
            wrong = _what_is_wrong(name, spec, root)
            if wrong is not None:
                progress(f"{name}: {wrong}")
                _download(name, spec, root, progress)
    except _DownloadError as error:
        kind = DataAway if error.may_pass else DataError
        raise kind(f"{name}: {wrong}, and {error}; {_where_to_get(spec, root)}") from None
    except OSError as error:
        kind = DataAway if error.errno in _ROOM else DataError
        reason = f"{root} cannot be {'locked' if error.errno in _LOCKS else 'written'} ({error.strerror or error})"
        raise kind(f"{name}: {wrong}, and {reason}; {_where_to_get(spec, root)}") from None


def _where_to_get(spec: DatasetSpec, root: Path) -> str:
    """Return instructions for getting a data set."""
    if spec.archive:
        todo = f"download {spec.archive.url} and unpack it into {root}"
    elif spec.files:
        todo = f"download {' and '.join(str(file.url) for file in spec.files)} into {root}"
    else:
        source = f" (from {spec.about})" if spec.about else ""
        todo = f"put its images{source} into {expected_layout(root / str(spec.folder))}"
    return f"{todo}, or choose another data root (--data-root)"


def _what_is_wrong(name: str, spec: DatasetSpec, root: Path, progress: Progress | None = None) -> str | None:
    """Return why a data set must be downloaded, None if it is there; DataError for what no download can mend.

    `progress` gets lines about files of a folder that are left out.
    """
    for package, needed_by in (("sklearn", "digits"), ("scipy", "svhn")):
        if name == needed_by and find_spec(package) is None:
            raise DataError(f"{name}: needs scikit-learn, which is not installed here: pip install scikit-learn")
    if spec.folder:
        base = base_folder(name, root)
        if not base.is_dir():
            if os.path.lexists(base):
                raise DataError(f"{name}: {base} is not a folder; put the images into {expected_layout(base)}")
            return f"{base} is missing"
        if spec.streamed:
            check_folder(name, root)
            return None
        for note in list_folder(name, root).notes:
            if progress:
                progress(note)
        return None
    if spec.arrays:
        read_npz(name, root / spec.arrays)
        return None
    # Hashing releases the interpreter lock.
    with ThreadPoolExecutor() as executor:
        problems = executor.map(lambda file: file_problem(root / file.path, file.md5), spec.files)
        return next((problem for problem in problems if problem), None)


def file_problem(path: Path, md5: str) -> str | None:
    """Return what is wrong with a published file, None if it is there and whole."""
    try:
        with path.open("rb") as opened:
            digest = hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError as error:
        return _unreadable(path, error)
    return None if digest == md5 else f"{path} is damaged (its MD5 is {digest}, not {md5})"


def _unreadable(path: Path, error: OSError) -> str:
    return f"{path} is missing" if isinstance(error, FileNotFoundError) else f"{path} cannot be read ({error.strerror})"


@contextmanager
def alone(lock: Path, name: str, progress: Progress, *, doing: str = "fetching it") -> Iterator[None]:
    """Hold a lock that the system releases when this process ends, however it ends; `doing` says what another does."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    last_message = -math.inf
    with lock.open("a") as opened:
        while True:
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() - last_message >= TELL_SECONDS:
                    progress(f"{name}: waiting for another process that is {doing}")
                    last_message = time.monotonic()
                time.sleep(POLL_SECONDS)
        yield


class _DownloadError(TrainerError):
    """The server, or what it sent, is at fault; not this machine's disk. `may_pass`: a later try may succeed."""

    def __init__(self, message: str, *, may_pass: bool = False) -> None:
        super().__init__(message)
        self.may_pass = may_pass


def _download(name: str, spec: DatasetSpec, root: Path, progress: Progress) -> None:
    # A folder in the data root, so that finished files can be renamed into place; what an earlier process left goes.
    work = root / ".download" / name
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        if spec.archive:
            archive = work / Path(spec.archive.url).name
            _fetch(name, spec.archive.url, spec.archive.md5, archive, progress)
            progress(f"{name}: unpacking {archive.name}")
            _unpack(archive, work)
        for file in spec.files:
            # SVHN's files are downloaded one by one: one that is there and whole stays.
            if file_problem(root / file.path, file.md5) is None:
                continue
            if file.url:
                _fetch(name, file.url, file.md5, work / file.path, progress)
            problem = file_problem(work / file.path, file.md5)
            if problem:
                raise _DownloadError(f"in the download, {problem}")
            (root / file.path).parent.mkdir(parents=True, exist_ok=True)
            os.replace(work / file.path, root / file.path)
        if spec.folder:
            list_folder(name, work)
            os.rename(work / spec.folder, root / spec.folder)
        progress(f"{name}: ready in {root}")
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _fetch(name: str, url: str, md5: str, target: Path, progress: Progress) -> None:
    digest = hashlib.md5(usedforsecurity=False)
    with target.open("wb") as out:
        for chunk in _chunks(name, url, progress):
            digest.update(chunk)
            out.write(chunk)
        out.flush()
        os.fsync(out.fileno())
    if digest.hexdigest() != md5:
        raise _DownloadError(f"{url} gave other contents than published (MD5 {digest.hexdigest()}, not {md5})")


def _chunks(name: str, url: str, progress: Progress) -> Iterator[bytes]:
    """Yield the contents of a URL in pieces, with a line of progress for every tenth."""
    request = urllib.request.Request(url, headers={"User-Agent": "orchestrate"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            size = int(response.headers.get("Content-Length") or 0)
            progress(f"{name}: downloading {url}" + (f" ({size / 1e6:.0f} MB)" if size else ""))
            received = tenths = 0
            while chunk := response.read(CHUNK):
                received += len(chunk)
                if size and received * 10 // size > tenths:
                    tenths = received * 10 // size
                    progress(f"{name}: {received / 1e6:.0f} of {size / 1e6:.0f} MB")
                yield chunk
    except urllib.error.HTTPError as error:
        error.close()
        message = f"{url} could not be downloaded ({error.code} {error.reason})"
        raise _DownloadError(message, may_pass=error.code >= 500 or error.code in _LATER) from None
    except (OSError, http.client.HTTPException) as error:
        message = f"{url} could not be downloaded ({getattr(error, 'reason', None) or error})"
        raise _DownloadError(message, may_pass=True) from None
    if received < size:
        raise _DownloadError(f"the download of {url} ended after {received:,} of {size:,} bytes", may_pass=True)


def _unpack(archive: Path, work: Path) -> None:
    # The archive was compared with its published sum, so its contents are trusted.
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(work)
    else:
        with tarfile.open(archive) as opened:
            # Before 3.11.4, Python has no filters.
            opened.extraction_filter = getattr(tarfile, "data_filter", None)
            opened.extractall(work)
