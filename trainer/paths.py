"""Paths as people write them: `~` means a home folder wherever the shell has not put it in (`--data-root=~/data`)."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from unicodedata import normalize

from trainer.errors import TrainerError


class PathError(TrainerError, ValueError):
    """A path cannot be used as it is written; the message says why and what to do."""

    # In a trial, the path is that of the node's own folder.
    failure = "infrastructure"


def user_path(text: str | os.PathLike[str]) -> Path:
    """Return the path with a leading `~` or `~user` replaced by that home folder, spelled as it is on the disk.

    `é` is one character or two, and file systems keep whichever they were given: where only the other form is there,
    it is the one that was meant. Raises PathError when there is no such home folder, so that no folder called `~`
    appears.
    """
    written = os.fspath(text)
    expanded = os.path.expanduser(written)
    empty_home = written.split("/")[0] == "~" and os.environ.get("HOME") == ""
    if expanded.startswith("~") or empty_home:
        home = written.partition("/")[0]
        whose = f"of a user {home[1:]!r}" if len(home) > 1 else "because HOME is empty or not set"
        raise PathError(
            f"{written!r}: no home folder is known {whose}; write the whole path, or ./{written} for a folder so called"
        )
    return _as_on_disk(Path(expanded))


def node_folder() -> Path:
    """Return where this node keeps what can be had again: ORCHESTRATE_CACHE, or a folder among the temporary files.

    That folder is this user's own. Raises PathError when it is another user's or cannot be made.
    """
    given = os.environ.get("ORCHESTRATE_CACHE")
    folder = user_path(given) if given else Path(tempfile.gettempdir()) / f"orchestrate-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = folder.stat().st_uid
    except OSError as error:
        raise PathError(f"{folder} cannot be made ({error.strerror}); set ORCHESTRATE_CACHE on this node") from None
    # Whoever owns it could exchange what lies in it.
    if not given and owner != os.getuid():
        raise PathError(f"{folder} belongs to another user; set ORCHESTRATE_CACHE on this node")
    return folder


def folder_refusal(folder: Path) -> OSError | None:
    """Return the error with which a folder refuses a new file, None where it takes one.

    It is tried, because rights alone do not tell: root, access lists, attributes and servers have a say as well.
    """
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error


def _as_on_disk(path: Path) -> Path:
    """Return the path with each part that is not there replaced by its other Unicode form, if that one is."""
    if str(path).isascii():
        return path
    existing = Path(path.anchor)
    for part in path.parts[bool(path.anchor) :]:
        forms = (part, normalize("NFC", part), normalize("NFD", part))
        existing /= next((form for form in forms if os.path.lexists(existing / form)), part)
    return existing
