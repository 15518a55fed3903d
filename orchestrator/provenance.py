"""Provenance of a result: commit, uncommitted changes, versions, command line, and a digest of the code."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import trainer

PACKAGES = ("torch", "torchvision", "numpy", "ray", "sqlalchemy", "pydantic", "orchestrate-ablations")
ROOT = Path(__file__).resolve().parent.parent
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
        "code_sha256": code_digest(),
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


def code_digest() -> str:
    """Return the sha256 over every Python file of the imported trainer, the code that decides a result."""
    package = Path(trainer.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


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
