"""Local copies of checkpoints and data sets in object storage: the trainer uses files only."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from orchestrator.storage.store import StorageError, Store, is_url, joined, with_timeout
from trainer import paths
from trainer.data import alone, file_problem, list_folder, prepare
from trainer.data.arrays import read_arrays
from trainer.datasets import DataError, dataset_spec

if TYPE_CHECKING:
    from trainer.config import TrainConfig
    from trainer.spec import DatasetSpec

Say = Callable[[str], None]

# Suffixes of the files that `trainer.checkpoint` may need for a resume.
BESIDE = ("", ".previous", ".teacher", ".teacher.previous")


def local_data(config: TrainConfig, data_root: str, say: Say) -> Path:
    """Return the folder on this node that holds the data sets of a configuration, after fetching missing ones.

    They come from a URL, or for a path from the publisher where that is possible. Only one process of the node fetches.

    Raises DataError when a data set is unavailable or damaged, and StorageError when the storage fails.
    """
    if not is_url(data_root):
        root = Path(data_root)
        if not all(_is_there(name, root) for name in _datasets(config)):
            prepare(config, root, progress=say)
        return root
    root = node_folder() / "data" / hashlib.sha256(data_root.encode()).hexdigest()[:16]
    for name in _datasets(config):
        if not _is_there(name, root):
            _fetch(name, data_root, root, say)
    return root


def node_folder() -> Path:
    """Return the trainer's folder for downloads on this node. Raises StorageError when it cannot be used."""
    try:
        return paths.node_folder()
    except paths.PathError as error:
        raise StorageError(str(error)) from None


@contextmanager
def local_checkpoint(location: str | None) -> Iterator[tuple[Path | None, Callable[[], None]]]:
    """Yield the local file of a checkpoint, and a function that uploads its changes.

    For a path it is the file itself. For a URL it is a copy, with the files that the trainer keeps beside it; the copy
    is removed at the end. Raises StorageError.
    """
    if location is None or not is_url(location):
        yield Path(location) if location else None, lambda: None
        return
    url, _, name = location.rpartition("/")
    with _own_folder(node_folder() / "checkpoints") as folder:
        copy = _Copy(Store(url), folder, name)
        copy.fetch()
        yield folder / name, copy.put


def remove_checkpoint(location: str) -> None:
    """Remove the checkpoint of a trial, and what the trainer keeps beside it. Raises StorageError."""
    folder, name = os.path.split(location)
    remove = remover(folder)
    for suffix in BESIDE:
        try:
            remove(name + suffix)
        except StorageError as error:
            raise StorageError(f"{location + suffix} cannot be removed ({error})") from None


def remover(folder: str) -> Callable[[str], None]:
    """Return a function that removes a file by its name from a folder, a path or a URL; a missing one is no error.

    Both raise StorageError with the reason alone.
    """

    def remove(name: str) -> None:
        try:
            Path(folder, name).unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(error.strerror or str(error)) from None

    return Store(folder).remove if is_url(folder) else remove


class _Copy:
    """The files of one checkpoint in a local folder, and the identities of the uploaded ones."""

    def __init__(self, store: Store, folder: Path, name: str) -> None:
        self.store, self.folder, self.name = store, folder, name
        # File name -> (inode, size, mtime) last uploaded.
        self.uploaded: dict[str, tuple[int, ...]] = {}

    def fetch(self) -> None:
        for suffix in BESIDE:
            file = self.folder / (self.name + suffix)
            if self.store.get(file.name, file):
                self.uploaded[file.name] = _identity(file)

    def put(self) -> None:
        """Upload changed files."""
        here = {path.name: _identity(path) for path in self.folder.iterdir() if not path.name.endswith(".writing")}
        names = {identity: name for name, identity in self.uploaded.items()}
        # The trainer renames the newest checkpoint before it writes another: a rename needs no upload. All copies come
        # before any replacement, so a good checkpoint exists at every moment.
        for name, identity in sorted(here.items(), reverse=True):
            if identity in names and self.uploaded.get(name) != identity:
                self.store.copy(names[identity], name)
                self.uploaded[name] = identity
        for name, identity in sorted(here.items()):
            if self.uploaded.get(name) != identity:
                self.store.put(self.folder / name, name)
                self.uploaded[name] = identity
        for name in sorted(self.uploaded.keys() - here.keys()):
            self.store.remove(name)
            del self.uploaded[name]


def _identity(path: Path) -> tuple[int, ...]:
    """Return a value that stays when a file is renamed, and changes when it is written."""
    facts = path.stat()
    return facts.st_ino, facts.st_size, facts.st_mtime_ns


def _datasets(config: TrainConfig) -> list[str]:
    return [name for name in dict.fromkeys((config.dataset, config.ood_dataset)) if name is not None]


def _is_there(name: str, root: Path) -> bool:
    """Return whether a data set was put into a folder; its reader compares it with the published one."""
    spec = dataset_spec(name)
    if spec.folder:
        return (root / spec.folder).is_dir()
    return all((root / path).is_file() for path in _files(spec))


def _files(spec: DatasetSpec) -> dict[str, str | None]:
    """Return the paths of a data set's files below its root, and the MD5 of those that have a published one."""
    return {file.path: file.md5 for file in spec.files} | ({spec.arrays: None} if spec.arrays else {})


def _fetch(name: str, url: str, root: Path, say: Say) -> None:
    spec, store = dataset_spec(name), Store(url)
    with alone(root / ".download" / f"{name}.lock", name, say):
        # Another process may have fetched it while this one waited.
        if _is_there(name, root):
            return
        work = root / ".download" / name
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        try:
            for path, md5 in _files(spec).items():
                say(f"{name}: fetching {joined(url, path)}")
                (work / path).parent.mkdir(parents=True, exist_ok=True)
                if not store.get(path, work / path):
                    raise DataError(f"{name}: {joined(url, path)} is missing; put it there")
                if md5 and file_problem(work / path, md5):
                    raise DataError(f"{name}: {joined(url, path)} is damaged (its MD5 is not {md5}); replace it")
            if spec.arrays:
                _refuse_damaged_arrays(name, work / spec.arrays, joined(url, spec.arrays))
            for path in _files(spec):
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                os.replace(work / path, root / path)
            if spec.folder:
                say(f"{name}: fetching {joined(url, spec.folder)}")
                if not store.get_all(spec.folder, work / spec.folder, lambda progress: say(f"{name}: {progress}")):
                    raise DataError(f"{name}: {joined(url, spec.folder)} is missing or empty; put it there")
                list_folder(name, work)
                (root / spec.folder).parent.mkdir(parents=True, exist_ok=True)
                os.rename(work / spec.folder, root / spec.folder)
                for note in list_folder(name, root).notes:
                    say(note)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        say(f"{name}: ready in {root}")


def _refuse_damaged_arrays(name: str, copy: Path, url: str) -> None:
    """Raise DataError, which names the file at the URL, where its copy is not what the trainer reads."""
    try:
        read_arrays(name, copy)
    except DataError as error:
        raise DataError(str(error).replace(str(copy), url)) from None


@contextmanager
def _own_folder(parent: Path) -> Iterator[Path]:
    """Yield a new folder for this process; removes those of processes that were killed."""
    parent.mkdir(parents=True, exist_ok=True)
    for lock in parent.glob("*.lock"):
        with suppress(FileNotFoundError), open(lock) as opened:
            if _locked(opened):
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                lock.unlink()
    folder = Path(tempfile.mkdtemp(dir=parent))
    lock = folder.with_name(folder.name + ".lock")
    # Locked before it gets a name that other processes search for.
    unnamed = folder / "lock"
    with open(unnamed, "w") as opened:
        _locked(opened)
        os.replace(unnamed, lock)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock.unlink(missing_ok=True)


def _locked(opened: IO[Any]) -> bool:
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def missing_data(name: str, url: str) -> str | None:
    """Return why a data set cannot be fetched from the folder at a URL, None if it is there. Does not read contents.

    Raises StorageError when the storage does not answer, and KeyError for an unknown name.
    """
    spec, store = dataset_spec(name), Store(url, pauses=())
    wanted = [*_files(spec), *([spec.folder] if spec.folder else [])]
    missing = with_timeout(url, lambda: [path for path in wanted if not store.exists(path)])
    return f"{joined(url, missing[0])} is missing" if missing else None
