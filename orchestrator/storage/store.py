"""Storage by URL: read and write the files of a folder in an object store, or on this machine.

A location is a path or a URL. Downloads and uploads are atomic.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from orchestrator.errors import OrchestrateError
from orchestrator.exit_codes import TRY_AGAIN

T = TypeVar("T")

# Object stores by the scheme of their URLs, with the extra that installs their client. Their uploads are atomic.
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "abfs": "azure", "abfss": "azure", "az": "azure"}
FOLDERS = ("file", "local")

# Seconds between retries; the clients retry by themselves, too.
PAUSES = (1.0, 5.0, 25.0)
# Timeout in seconds of a launch's check that storage answers.
CHECK_SECONDS = 30.0
# Files fetched between two lines of progress.
BATCH = 500


class StorageError(OrchestrateError):
    """Storage cannot be used; the message names the URL, the reason and the remedy."""

    failure = "infrastructure"


class StorageAway(StorageError):
    """Storage fails or does not answer now, but may do so later."""

    exit_code = TRY_AGAIN


def is_url(location: str | Path) -> bool:
    """Return whether a location is a URL, not a path."""
    return "://" in str(location)


def absolute(location: str | Path) -> str:
    """Return a location that means the same in every folder."""
    if is_url(location):
        return str(location).rstrip("/")
    path = Path(location).absolute()
    # Links are resolved only where there is a "..": another node may have other names for their targets.
    return str(path.resolve() if ".." in path.parts else path)


def joined(location: str | Path, name: str) -> str:
    """Return the location of a file in a folder."""
    return f"{str(location).rstrip('/')}/{name}"


def check_writable(url: str) -> None:
    """Write a small file, read it and remove it.

    Raises StorageError when that fails, or takes longer than `CHECK_SECONDS`.
    """
    store = Store(url, pauses=())
    name = f".orchestrate-{secrets.token_hex(8)}"

    def probe() -> None:
        with tempfile.TemporaryDirectory(prefix="orchestrate-") as folder:
            sent, received = Path(folder) / "sent", Path(folder) / "received"
            sent.write_text(name)
            # Without the right to list, a missing file looks like a forbidden one.
            if store.get(name, received):
                raise StorageError(f"{url}: holds a file that was never written")
            store.put(sent, name)
            if not store.get(name, received) or received.read_text() != name:
                raise StorageError(f"{url}: does not give back what was written to it")
            store.remove(name)

    with_timeout(url, probe)


class Store:
    """The files below a URL; every failure is a StorageError."""

    def __init__(self, url: str, pauses: tuple[float, ...] | None = None) -> None:
        import fsspec

        self.url, self.pauses = url, PAUSES if pauses is None else pauses
        scheme = url.partition("://")[0]
        if scheme not in (*EXTRAS, *FOLDERS):
            raise StorageError(f"{url}: {scheme}:// is not supported; give a path, or s3://, gs://, abfs:// or file://")
        self.is_folder = scheme in FOLDERS
        try:
            # A cached listing would hide files that other nodes have written.
            self.files, self.root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except ImportError:
            needed = f"pip install 'orchestrate-ablations[{EXTRAS[scheme]}]'"
            raise StorageError(f"{url}: a package is missing here; run: {needed} (on every node)") from None
        except Exception as error:
            raise _described(url, error) from error

    def get(self, name: str, target: Path) -> bool:
        """Fetch a file; returns False where there is none."""
        unfinished = target.with_name(f"{target.name}.fetching")
        try:
            self._tried(lambda: self.files.get_file(self._place(name), str(unfinished)))
            os.replace(unfinished, target)
        except FileNotFoundError:
            return False
        finally:
            unfinished.unlink(missing_ok=True)
        return True

    def get_all(self, name: str, target: Path, say: Callable[[str], None]) -> int:
        """Fetch a folder, with a line of progress now and then; returns the number of its files."""
        base = self._place(name)
        listed = self._tried(lambda: self.files.find(base))
        # Object stores allow any name; a file must stay in the folder.
        files = [file for file in listed if not file.endswith("/") and ".." not in file[len(base) :].split("/")]
        for start in range(0, len(files), BATCH):
            part = files[start : start + BATCH]
            local = [str(target / file[len(base) :].lstrip("/")) for file in part]
            for folder in {os.path.dirname(path) for path in local}:
                os.makedirs(folder, exist_ok=True)
            self._tried(partial(self.files.get, part, local), missing_is_error=True)
            say(f"{start + len(part):,} of {len(files):,} files")
        return len(files)

    def put(self, source: Path, name: str) -> None:
        """Upload a file atomically."""
        if self.is_folder:
            self._placed(source, name)
        else:
            self._tried(lambda: self.files.put_file(str(source), self._place(name)), missing_is_error=True)

    def copy(self, name: str, new: str) -> None:
        """Copy a file to another name, without an upload."""
        if self.is_folder:
            self._placed(Path(self._place(name)), new)
        else:
            self._tried(lambda: self.files.cp_file(self._place(name), self._place(new)), missing_is_error=True)

    def remove(self, name: str) -> None:
        """Remove a file, if it exists."""
        with suppress(FileNotFoundError):
            self._tried(lambda: self.files.rm_file(self._place(name)))

    def exists(self, name: str) -> bool:
        """Return whether a file or folder exists."""
        return bool(self._tried(lambda: self.files.exists(self._place(name))))

    def _placed(self, source: Path, name: str) -> None:
        self._tried(lambda: _place_file(source, Path(self._place(name))), missing_is_error=True)

    def _place(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}"

    def _tried(self, work: Callable[[], T], *, missing_is_error: bool = False) -> T:
        for pause in (*self.pauses, None):
            try:
                return work()
            except FileNotFoundError as error:
                if missing_is_error:
                    raise _described(self.url, error) from error
                raise
            except Exception as error:
                if pause is None or isinstance(error, PermissionError):
                    raise _described(self.url, error) from error
            time.sleep(pause)
        raise AssertionError("the last try returns or raises")


def _place_file(source: Path, target: Path) -> None:
    """Copy a file under a temporary name, flush it to disk, then rename it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{target.name}.{secrets.token_hex(4)}.writing")
    try:
        with open(source, "rb") as read, open(temporary, "wb") as written:
            shutil.copyfileobj(read, written, 1 << 20)
            written.flush()
            os.fsync(written.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _described(url: str, error: Exception) -> StorageError:
    if isinstance(error, StorageError):
        return error
    message = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, FileNotFoundError):
        return StorageError(f"{url}: there is no such bucket or folder ({message}); create it")
    if isinstance(error, PermissionError):
        needed = "listing, reading, writing and deleting must be allowed"
        return StorageError(f"{url}: access is denied ({message}); {needed} to these credentials")
    if "Credential" in type(error).__name__:
        return StorageError(f"{url}: no credentials were found ({message}); set them in the environment of every node")
    return StorageAway(f"{url}: the storage failed ({type(error).__name__}: {message})")


def with_timeout(url: str, work: Callable[[], T]) -> T:
    """Run work in a thread; raises StorageError after CHECK_SECONDS."""
    outcome: list[T] = []
    failure: list[Exception] = []

    def run() -> None:
        try:
            outcome.append(work())
        except Exception as error:
            failure.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(CHECK_SECONDS)
    if failure:
        raise _described(url, failure[0]) from failure[0]
    if not outcome:
        late = f"the storage did not answer within {CHECK_SECONDS:g} s"
        raise StorageAway(f"{url}: {late}; check the URL and the network")
    return outcome[0]
