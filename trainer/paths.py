"""Paths as people write them: `~` means a home folder wherever the shell has not put it in (`--data-root=~/data`)."""

from __future__ import annotations

import os
from pathlib import Path


class PathError(ValueError):
    """A path cannot be used as it is written; the message says why and what to do."""


def user_path(text: str | os.PathLike[str]) -> Path:
    """Return the path with a leading `~` or `~user` replaced by that home folder.

    Raises PathError when there is no such home folder, so that no folder called `~` appears.
    """
    written = os.fspath(text)
    expanded = os.path.expanduser(written)
    if expanded.startswith("~"):
        home = written.partition("/")[0]
        whose = f"of a user {home[1:]!r}" if len(home) > 1 else "because HOME is not set"
        raise PathError(
            f"{written!r}: no home folder is known {whose}; write the whole path, or ./{written} for a folder so called"
        )
    return Path(expanded)
