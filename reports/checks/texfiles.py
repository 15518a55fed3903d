"""Find and read the files of a paper as LaTeX does."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from reports.checks.following import decode
from reports.errors import ReportError


def text_of(path: Path) -> str | None:
    """Return a file's text, None for one in no encoding that is read; raises ReportError where it cannot be opened."""
    try:
        return decode(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ReportError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def is_file(path: Path) -> bool:
    """Return whether a file is there; one that may not be looked at is none, as LaTeX sees it."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def texinputs(root: Path) -> Iterator[Path]:
    """Yield the folders of TEXINPUTS in their order, an empty one being the paper's; two slashes mean all below."""
    for name in os.environ.get("TEXINPUTS", "").split(os.pathsep):
        folder = root / Path(os.path.expandvars(name.lstrip("!").rstrip("/") or ".")).expanduser()
        yield folder
        if name.endswith("//"):
            yield from (Path(inner) for inner, _, _ in os.walk(folder) if inner != str(folder))
    yield root


def find(name: str, folders: Iterable[Path], root: Path) -> Path | None:
    """Return the file that LaTeX would read, from the first of the folders that has it.

    One that a style file of the distribution offers, such as \\input{glyphtounicode}, is found as TeX itself finds it.
    """
    for folder in folders:
        for candidate in (folder / f"{name}.tex", folder / name):
            if is_file(candidate):
                return candidate
    program = shutil.which("kpsewhich")
    if program is None or len(name) > 200 or not re.fullmatch(r"[\w.][\w./-]*", name):
        return None
    output = subprocess.run([program, name], cwd=root, capture_output=True, text=True, check=False).stdout.strip()
    return root / output if output else None
