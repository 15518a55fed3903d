"""Keep what was computed of files in the node's folder, so that it is computed once. No torch here."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainer.paths import PathError, node_folder


def kept(base: Path) -> dict[str, Any]:
    """Return what was kept of a folder or file; nothing where it cannot be read."""
    try:
        values = json.loads(_place(base).read_text())
    except (OSError, PathError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def keep(base: Path, values: Mapping[str, Any]) -> None:
    """Keep values of a folder or file in place of earlier ones; where nothing can be written they are not kept."""
    with suppress(OSError, PathError):
        place = _place(base)
        place.parent.mkdir(mode=0o700, exist_ok=True)
        # Another process may write the same.
        writing = place.with_suffix(f".{os.getpid()}.writing")
        try:
            writing.write_text(json.dumps(values))
            os.replace(writing, place)
        finally:
            writing.unlink(missing_ok=True)


def _place(base: Path) -> Path:
    return node_folder() / "fingerprints" / f"{hashlib.sha256(os.fsencode(base.resolve())).hexdigest()[:32]}.json"
