"""Follow the files that a piece of code consists of, and compute a digest of them that comments do not change."""

from __future__ import annotations

import ast
import hashlib
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

# The program's own packages: their code has a digest of its own.
OWN = ("trainer", "orchestrator", "reports")


def source_files(file: Path) -> tuple[Path, ...]:
    """Return a Python file and those that it imports, one after the other, from its package or its folder.

    Imports inside of functions count. Installed packages follow their own modules alone.
    """
    file = file.resolve()
    root = import_root(file)
    own_package = file.relative_to(root).parts[0].removesuffix(".py")
    alone = installed(root)
    seen: list[Path] = []
    waiting = [file]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.append(path)
        for module in _imported(path, root):
            top = module.partition(".")[0]
            ours = top not in OWN and top not in sys.stdlib_module_names and (not alone or top == own_package)
            waiting += _files_of(module, root) if ours else []
    return (file, *sorted(seen[1:]))


def import_root(file: Path) -> Path:
    """Return the folder from which a file is imported: above its outermost package, or the file's own folder."""
    folder = file.parent
    while (folder / "__init__.py").is_file():
        folder = folder.parent
    return folder


def installed(root: Path) -> bool:
    """Return whether a folder is that of installed packages."""
    return any(root == Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib", "stdlib"))


def source_digest(files: Iterable[Path], root: Path | None = None) -> str:
    """Return the sha256 over the syntax trees of Python files, without docstrings, comments and formatting.

    Every Python gives the same digest. With `root`, the names of the files below it count too.

    Raises OSError for a file that cannot be read, SyntaxError and ValueError for one that is no Python.
    """
    trees = []
    for path in files:
        name = path.relative_to(root).as_posix() if root else ""
        content = hashlib.sha256()
        for text in _plain(ast.parse(path.read_bytes(), filename=str(path))):
            content.update(text.encode("utf-8", "backslashreplace") + b"\0")
        trees.append(f"{name} {content.hexdigest()}")
    # Without names, the order of the files must not count either.
    return hashlib.sha256("\n".join(sorted(trees)).encode()).hexdigest()


def _plain(value: Any) -> Iterator[str]:
    """Yield a syntax tree as text; `ast.dump` differs between versions of Python."""
    if isinstance(value, ast.AST):
        yield f"({type(value).__name__}"
        for name, child in ast.iter_fields(value):
            # Later versions have fields that earlier ones lack; they are empty where both can read the file.
            if child is None or child == [] or name in ("kind", "type_comment"):
                continue
            yield name
            yield from _plain(_without_docstring(value, child) if name == "body" else child)
        yield ")"
    elif isinstance(value, list):
        yield "["
        for child in value:
            yield from _plain(child)
        yield "]"
    else:
        yield f"{type(value).__name__} {value!r}"


def _without_docstring(node: ast.AST, body: Any) -> Any:
    if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        return body
    return body[1:] if ast.get_docstring(node, clean=False) is not None else body


def _imported(path: Path, root: Path) -> Iterator[str]:
    """Yield the dotted names that a file imports, and those that may be modules among the names taken from them."""
    package = path.relative_to(root).parent.parts
    for node in ast.walk(ast.parse(path.read_bytes(), filename=str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" if base else alias.name for alias in node.names)


def _files_of(module: str, root: Path) -> list[Path]:
    """Return the files below `root` that importing a dotted name runs."""
    files, place = [], root
    for part in module.split("."):
        place /= part
        files += [path for path in (place / "__init__.py", place.with_suffix(".py")) if path.is_file()][:1]
        if not place.is_dir():
            break
    return files
