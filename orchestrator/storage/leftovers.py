"""Find and remove the checkpoints of trials that are no longer in a database."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.storage.staging import BESIDE, remover
from orchestrator.storage.store import StorageError, Store, is_url


@dataclass
class Leftovers:
    """Checkpoint files of some trials in a folder, a path or a URL; `size` in bytes, None where it was not asked."""

    folder: str
    names: list[str] = field(default_factory=list)
    size: int | None = None

    def remove(self, keys: Collection[str]) -> list[str]:
        """Remove the files of these trials; returns a line for each that could not be removed."""
        remove, left = remover(self.folder), []
        for name in self.names:
            if name.partition(".")[0] in keys:
                try:
                    remove(name)
                except StorageError as error:
                    left.append(f"{self.folder.rstrip('/')}/{name} stays: {error}")
        return left


def find_leftovers(folder: str, keys: Sequence[str]) -> Leftovers:
    """Return the checkpoints that these trials have in a folder; raises StorageError where a URL does not answer."""
    names = [f"{key}.pt{end}" for key in keys for end in BESIDE]
    if is_url(folder):
        store = Store(folder)
        return Leftovers(folder, [name for name in names if store.exists(name)])
    sizes = {}
    for name in names:
        with suppress(OSError):
            sizes[name] = Path(folder, name).stat().st_size
    return Leftovers(folder, list(sizes), sum(sizes.values()))
