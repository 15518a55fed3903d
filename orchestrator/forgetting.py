"""Say in numbers what removing a grid removes, and find the checkpoints that go with its trials."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.text import counted, size

if TYPE_CHECKING:
    from orchestrator.database import Database, Extent
    from orchestrator.storage import Leftovers


def outline(grid: str, extent: Extent, checkpoints: Sequence[Leftovers], *, trials: bool) -> list[str]:
    """Return lines that say what goes and what stays when a grid is removed, with or without its own trials."""
    own = len(extent.keys)
    kept = extent.trials - own
    recorded = (
        f"{counted(own, 'trial')} that no other grid has, with {counted(extent.attempts, 'attempt')}, "
        f"{counted(extent.epochs, 'epoch')} and {counted(extent.evaluations, 'evaluation')}"
    )
    lines = [f"removes: grid {grid}, a list of {counted(extent.trials, 'trial')}"]
    lines.append(f"removes: {recorded}" if trials else f"stays: {recorded} (--trials removes them)")
    for leftovers in checkpoints:
        amount = "" if leftovers.size is None else f" ({size(leftovers.size)})"
        lines.append(f"removes: {counted(len(leftovers.names), 'file')} of checkpoints in {leftovers.folder}{amount}")
    if kept:
        lines.append(f"stays: {counted(kept, 'trial')} that another grid or a running driver has")
    return lines


def checkpoints_of(database: Database, extent: Extent) -> tuple[list[Leftovers], list[str]]:
    """Return the checkpoints of a grid's own trials that are here, and lines about places that are not."""
    from orchestrator.scheduler import checkpoints_beside
    from orchestrator.storage import StorageError, absolute, find_leftovers, is_url

    beside = absolute(checkpoints_beside(database.path or database.where))
    checkpoints, notes = [], []
    here = socket.gethostname()
    hosts: dict[str, set[str | None]] = {}
    for place, host in extent.places:
        hosts.setdefault(place or beside, set()).add(host)
    for folder, trained in hosts.items():
        try:
            files = find_leftovers(folder, extent.keys)
        except StorageError as error:
            notes.append(f"stays: checkpoints in {folder}, which cannot be looked at from here: {error}")
            continue
        if files.names:
            checkpoints.append(files)
        if away := sorted(host for host in trained - {here} if host) if not is_url(folder) and not files.names else []:
            notes.append(f"stays: checkpoints that may be in {folder} on {', '.join(away)}")
    return checkpoints, notes


def backup_name(database: Database, grid: str) -> Path:
    """Return the path of the copy made before a grid is removed: beside the file, or in this folder for a server's."""
    time = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    path = database.path or Path("results.db")
    return path.with_name(f"{path.name}.before-forgetting-{grid}-{time}")
