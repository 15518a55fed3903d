"""Provenance of a result: commit, uncommitted changes, versions, command line, and a digest of the code."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trainer
from orchestrator.records import Origin, PartRow
from trainer.kept import keep, kept
from trainer.parts import DATASETS, METHODS, METRICS, NETWORKS, OPTIMIZERS, SCHEDULES
from trainer.sources import source_digest, source_files

if TYPE_CHECKING:
    from trainer.config import TrainConfig
    from trainer.registry import Part

PACKAGES = ("torch", "torchvision", "numpy", "ray", "sqlalchemy", "pydantic", "orchestrate-ablations")
ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(trainer.__file__).resolve().parent
# Modules and rooms of the trainer that have no say in a result.
NO_SAY = ("__main__.py", "arguments.py", "canary.py", "plugins.py", "checks")
# At most so much of a data set is read to compare it with what a trial was trained on: a second or two.
QUICK_BYTES = 512 * 2**20
# Maximum length of a stored diff in characters; the hash of a longer one still tells two of them apart.
DIFF_LIMIT = 100_000


def code_provenance() -> dict[str, Any]:
    """Return facts about the program at launch: commit, dirty flag, diff, versions, command line, code digest."""
    diff = _git("diff", "HEAD", "--", "trainer", "orchestrator")
    status = _git("status", "--porcelain", "--", "trainer", "orchestrator")
    return {
        # A container image has no .git folder; its build sets the variable.
        "commit": _git("rev-parse", "HEAD") or os.environ.get("ORCHESTRATE_COMMIT") or None,
        "dirty": bool(status) if status is not None else None,
        "diff": diff[:DIFF_LIMIT] if diff else None,
        "diff_sha256": hashlib.sha256(diff.encode()).hexdigest() if diff else None,
        "code_digest": code_digest(),
        "versions": package_versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "command": shlex.join(sys.argv),
    }


@cache
def package_versions() -> dict[str, str]:
    """Return the installed versions of the packages that can change a number."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


@cache
def code_digest() -> str:
    """Return the sha256 of the trainer's own code: its syntax trees, without docstrings, comments and formatting.

    The files of its parts (methods, networks, data sets, recipes) are left out, because a trial is compared by those
    it uses, and so are modules without a say in a result.
    """
    files = _own_files()
    facts = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    before = kept(PACKAGE)
    if before.get("files") == facts:
        return str(before["sha256"])
    # Takes a second, which no command should.
    digest = source_digest(files, PACKAGE.parent)
    keep(PACKAGE, {"files": facts, "sha256": digest})
    return digest


def _own_files() -> list[Path]:
    parts = {
        Path(file).resolve()
        for registry in (METHODS, NETWORKS, DATASETS, OPTIMIZERS, SCHEDULES)
        for part in registry.values()
        for file in part.files
    }
    return sorted(
        path
        for path in PACKAGE.rglob("*.py")
        if path.relative_to(PACKAGE).parts[0] not in NO_SAY and path.resolve() not in parts
    )


def parts_of(config: TrainConfig, metrics: Iterable[str] = ()) -> tuple[PartRow, ...]:
    """Return the parts that a configuration uses, and the named metrics, as they are here.

    The paths of those that ship begin `trainer/`.
    """
    return tuple(map(part_row, (*config.parts(), *(METRICS[name] for name in metrics))))


def part_row(part: Part[Any]) -> PartRow:
    """Return a part as the database keeps it; the path of one that ships begins `trainer/`."""
    ships = part.file.is_relative_to(PACKAGE)
    source = part.source.removeprefix(f"{PACKAGE.parent}{os.sep}") if ships else part.source
    return PartRow(part.kind, part.name, part.version, part.title, part.to_dict(), part.digest, source)


class Present:
    """The code and the data that there are now, for comparison with those that trained a trial."""

    def __init__(self, data_root: str | Path, metrics: Iterable[str] = ()) -> None:
        self._root, self._metrics = data_root, tuple(metrics)
        self._data: dict[tuple[str, str | None], str | None] = {}

    def origin(self, config: TrainConfig) -> Origin:
        """Return what would train a configuration now; `data` is None where it is not here or takes long to read."""
        names = (config.dataset, config.ood_dataset)
        if names not in self._data:
            self._data[names] = _data_fingerprint(config, self._root)
        return Origin(0, code_digest(), self._data[names], parts_of(config, self._metrics))


def _data_fingerprint(config: TrainConfig, root: str | Path) -> str | None:
    from trainer.data import known_fingerprint

    if "://" in str(root):
        return None
    return known_fingerprint(config, Path(root), most_bytes=QUICK_BYTES)


class Files:
    """The code that stands now in the files that trials' parts came from, read without importing it."""

    def __init__(self) -> None:
        self._digests: dict[Path, str] = {}

    def origin(self, recorded: Origin) -> Origin:
        """Return the present code of an attempt's parts; files that are not here have no digest."""
        parts = tuple(replace(part, digest=self._digest(part)) for part in recorded.parts)
        return Origin(recorded.number, code_digest(), None, parts)

    def _digest(self, part: PartRow) -> str:
        file = PACKAGE.parent / part.path if part.ships else Path(part.path)
        if file not in self._digests:
            self._digests[file] = ""
            with suppress(OSError, SyntaxError, ValueError):
                self._digests[file] = source_digest(source_files(file))
        return self._digests[file]


def _git(*arguments: str) -> str | None:
    """Return the output of git in this checkout; None outside of one or without git."""
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
