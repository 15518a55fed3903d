"""What a node keeps of storage: the trainer knows files only, so checkpoints and data sets get local copies."""

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

from orchestrator.storage.store import StorageError, Store, in_time, is_url, joined
from trainer import paths
from trainer.data import alone, file_problem, list_folder, prepare
from trainer.datasets import DataError, dataset_spec

if TYPE_CHECKING:
    from trainer.config import TrainConfig

Say = Callable[[str], None]

# What `trainer.checkpoint` may need to go on, beside the checkpoint itself.
BESIDE = ("", ".previous", ".teacher", ".teacher.previous")


def local_data(config: TrainConfig, data_root: str, say: Say) -> Path:
    """The folder on this node that holds the data sets of a configuration; what is missing there is fetched first.

    From a URL, or for a path from the publisher where that is possible. Of all processes on the node one fetches.

    Raises DataError when a data set cannot be had or is damaged, and StorageError when the storage fails.
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
    """Return the trainer's folder for what this node fetched. Raises StorageError when it cannot be used."""
    try:
        return paths.node_folder()
    except paths.PathError as error:
        raise StorageError(str(error)) from None


@contextmanager
def local_checkpoint(location: str | None) -> Iterator[tuple[Path | None, Callable[[], None]]]:
    """The file that stands for a checkpoint on this node, and what brings its changes to where they belong.

    Of a path it is the file itself. Of a URL it is a copy, with the files that the trainer keeps beside it, which goes
    at the end. Raises StorageError.
    """
    if location is None or not is_url(location):
        yield Path(location) if location else None, lambda: None
        return
    url, _, name = location.rpartition("/")
    with _own_folder(node_folder() / "checkpoints") as folder:
        copy = _Copy(Store(url), folder, name)
        copy.fetch()
        yield folder / name, copy.put


class _Copy:
    """The files of one checkpoint in a local folder, and what is known of those at the other end."""

    def __init__(self, store: Store, folder: Path, name: str) -> None:
        self.store, self.folder, self.name = store, folder, name
        # By file name, what its content can be told from.
        self.there: dict[str, tuple[int, ...]] = {}

    def fetch(self) -> None:
        for suffix in BESIDE:
            file = self.folder / (self.name + suffix)
            if self.store.get(file.name, file):
                self.there[file.name] = _identity(file)

    def put(self) -> None:
        """Have the other end hold what stands here."""
        here = {path.name: _identity(path) for path in self.folder.iterdir() if not path.name.endswith(".writing")}
        known = {identity: name for name, identity in self.there.items()}
        # The trainer renames the newest checkpoint before it writes another: that is no reason to send it again. All
        # copies come before anything is replaced, so a good checkpoint is there at every moment.
        for name, identity in sorted(here.items(), reverse=True):
            if identity in known and self.there.get(name) != identity:
                self.store.copy(known[identity], name)
                self.there[name] = identity
        for name, identity in sorted(here.items()):
            if self.there.get(name) != identity:
                self.store.put(self.folder / name, name)
                self.there[name] = identity
        for name in sorted(self.there.keys() - here.keys()):
            self.store.remove(name)
            del self.there[name]


def _identity(path: Path) -> tuple[int, ...]:
    """Stays when a file is renamed, and changes when it is written."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _datasets(config: TrainConfig) -> list[str]:
    return [name for name in dict.fromkeys((config.dataset, config.ood_dataset)) if name is not None]


def _is_there(name: str, root: Path) -> bool:
    """Whether a data set was put into a folder; whoever reads it compares it with what was published."""
    spec = dataset_spec(name)
    if spec.folder:
        return (root / spec.folder).is_dir()
    return all((root / file.path).is_file() for file in spec.files)


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
            for file in spec.files:
                say(f"{name}: fetching {joined(url, file.path)}")
                (work / file.path).parent.mkdir(parents=True, exist_ok=True)
                if not store.get(file.path, work / file.path):
                    raise DataError(f"{name}: {joined(url, file.path)} is missing; put it there")
                if file_problem(work / file.path, file.md5):
                    raise DataError(
                        f"{name}: {joined(url, file.path)} is damaged (its MD5 is not {file.md5}); replace it"
                    )
            for file in spec.files:
                (root / file.path).parent.mkdir(parents=True, exist_ok=True)
                os.replace(work / file.path, root / file.path)
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


@contextmanager
def _own_folder(parent: Path) -> Iterator[Path]:
    """A new folder for this process; those of processes that were killed are removed."""
    parent.mkdir(parents=True, exist_ok=True)
    for lock in parent.glob("*.lock"):
        with suppress(FileNotFoundError), open(lock) as opened:
            if _locked(opened):
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                lock.unlink()
    folder = Path(tempfile.mkdtemp(dir=parent))
    lock = folder.with_name(folder.name + ".lock")
    # Locked before it bears a name that others look for.
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
    """Why the data set cannot be fetched from the folder at a URL, None if it is there. Contents are not looked at.

    Raises StorageError when the storage does not answer, and KeyError for an unknown name.
    """
    spec, store = dataset_spec(name), Store(url, pauses=())
    wanted = [file.path for file in spec.files] + ([spec.folder] if spec.folder else [])
    missing = in_time(url, lambda: [path for path in wanted if not store.exists(path)])
    return f"{joined(url, missing[0])} is missing" if missing else None
