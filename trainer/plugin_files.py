"""Find the files of a plug-in by the name that a grid gives it, without running them. No torch here."""

from __future__ import annotations

import ast
import hashlib
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import invalidate_caches, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from trainer.problems import nearest
from trainer.registry import PartError
from trainer.sources import import_root, installed, source_files

ENTRY_POINTS = "orchestrate.plugins"
HEAVY = ("torch", "torchvision", "timm")

# Folders that modules are imported from for the active plug-ins.
import_folders: list[str] = []


@dataclass(frozen=True)
class Plugin:
    """A file or a module of parts, as it was loaded.

    `name` is how it was asked for. `root` is the folder that it is imported from, and `files` are its own file and
    those that it imports, relative to `root`. `digest` is that of their bytes: workers run exactly these. `module` is
    the name of an installed module, which no file travels for. `notes` are sentences for the person who wrote it.
    """

    name: str
    root: str
    files: tuple[str, ...]
    digest: str
    module: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def paths(self) -> list[Path]:
        """Return the files, its own first."""
        return [Path(self.root) / file for file in self.files]

    def shipped(self, folder: Path) -> Plugin:
        """Return the plug-in as it is in a folder where `staged` put its files."""
        return self if self.module else replace(self, root=str(folder / self.digest[:16]))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, of which `Plugin(**values)` makes the plug-in again."""
        return asdict(self)


def find(name: str, beside: Path) -> Plugin:
    """Return the plug-in of a name (see `load_plugins`), not yet run; raises PartError where there is none."""
    if name.endswith(".py") or "/" in name:
        path = beside / Path(name).expanduser()
        if not path.is_file():
            beside_it = (other.name for other in path.parent.glob("*.py"))
            what = (
                "is a folder, not a file"
                if path.is_dir()
                else f"no such file{nearest(path.name, beside_it, path.parent)}"
            )
            raise PartError(f"{path}: {what}; plug-ins are files, relative to the grid file, or modules")
        return _of_file(name, path.resolve())
    offered = {point.name: point.value for point in metadata.entry_points(group=ENTRY_POINTS)}
    module = offered.get(name, name).partition(":")[0]
    return of_module(name, module, beside, offered)


def of_module(name: str, module: str, beside: Path, offered: Iterable[str] = ()) -> Plugin:
    """Return the plug-in of a module; raises PartError where it cannot be imported. `offered` are names for hints."""
    if not all(part.isidentifier() for part in module.split(".")):
        raise PartError(f"{name!r} is neither a file (NAME.py) nor the name of a module")
    importable(beside)
    top = module.partition(".")[0]
    spec = None
    try:
        # That of a module below a package would run the package.
        outer = find_spec(top)
        places = list(outer.submodule_search_locations or []) if outer else []
        spec = (
            _below(Path(places[0]).parent, module) if places else Path(outer.origin) if outer and outer.origin else None
        )
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.suffix != ".py":
        raise PartError(
            f"no module named {module!r} can be imported, from here or from beside the grid file"
            f"{nearest(module, offered)}; install it, or name a file, such as my_parts.py"
        )
    plugin = _of_file(name, spec.resolve())
    return replace(plugin, module=module) if installed(Path(plugin.root)) else plugin


def _below(root: Path, module: str) -> Path | None:
    place = root.joinpath(*module.split("."))
    return next((path for path in (place / "__init__.py", place.with_suffix(".py")) if path.is_file()), None)


def _of_file(name: str, path: Path) -> Plugin:
    try:
        files = source_files(path)
    except SyntaxError as error:
        raise PartError(f"{error.filename}:{error.lineno}: is not Python: {error.msg}") from None
    except (OSError, ValueError) as error:
        raise PartError(f"{path}: cannot be read: {error}") from None
    root = import_root(path)
    notes = [
        f"{file}:{line} imports {module} at its top, so that every command waits for it; import it inside of the "
        "functions that need it"
        for file in files
        for line, module in _heavy(file)
    ]
    return Plugin(
        name,
        str(root),
        tuple(file.relative_to(root).as_posix() for file in files),
        digest_of(files),
        notes=tuple(notes),
    )


def _heavy(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the first statement at the top of a file that imports torch, with its line."""
    for node in ast.parse(file.read_bytes()).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        for name in names:
            if name.partition(".")[0] in HEAVY:
                yield node.lineno, name
                return


def digest_of(paths: Sequence[Path]) -> str:
    """Return the sha256 of the content of files, in their order; raises OSError."""
    digest = hashlib.sha256()
    for path in paths:
        content = path.read_bytes()
        digest.update(len(content).to_bytes(8) + content)
    return digest.hexdigest()


def importable(folder: Path) -> None:
    """Let modules be imported from a folder, after all others, while the plug-ins are active."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
        import_folders.append(str(folder))
    invalidate_caches()


def raised(error: BaseException, files: Iterable[Path]) -> tuple[str, str]:
    """Return the last line of one's own files that led to an error (`FILE:LINE`, or nothing), and what was raised."""
    own = {str(file) for file in files}
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in own]
    message = " ".join(str(error).split())[:300]
    where = f"{lines[-1].filename}:{lines[-1].lineno}" if lines else ""
    return where, f"{type(error).__name__}{f': {message}' if message else ''}"
