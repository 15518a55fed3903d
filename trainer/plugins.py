"""Load plug-ins: files and modules that register parts of one's own. No torch here.

The parts of one list of plug-ins are registered at a time: loading another list takes the former ones out, so that a
process may read several grids. The same file is run again only after it, or a file that it imports, has changed.
"""

from __future__ import annotations

import ast
import hashlib
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from importlib import import_module, invalidate_caches, metadata
from importlib.machinery import SourceFileLoader
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from trainer.parts import REGISTRIES
from trainer.registry import Part, PartError, Registry
from trainer.sources import import_root, installed, source_files

ENTRY_POINTS = "orchestrate.plugins"
HEAVY = ("torch", "torchvision", "timm")

Listed = list[Part[Any]]


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


def load_plugins(names: Iterable[str], beside: Path) -> list[Plugin]:
    """Run the plug-ins of a list, and register their parts in place of those of the list before.

    A name is a file (`my_parts.py`, relative to the folder `beside`), an entry point of the group `orchestrate.plugins`
    that an installed package offers, or a module that can be imported from here or from `beside`.

    Raises PartError: one is missing, cannot be run, or registers a name that is taken.
    """
    _deactivate()
    return _load([_find(name, beside) for name in dict.fromkeys(names)])


def activate(plugins: Iterable[Plugin]) -> None:
    """Register the parts of plug-ins that were loaded before, here or in another process.

    Raises PartError: the code is no longer the same, or cannot be run.
    """
    loaded = []
    _deactivate()
    for plugin in plugins:
        here = plugin
        if not plugin.module and plugin.root not in sys.path:
            # Before the driver's folder, which Ray lets workers import from too.
            sys.path.insert(0, plugin.root)
            _folders.append(plugin.root)
        if plugin.module:
            here = replace(_of_module(plugin.name, plugin.module, Path(plugin.root)), notes=plugin.notes)
        try:
            digest = _digest(here.paths)
        except OSError as error:
            raise PartError(f"the plug-in {plugin.name} cannot be loaded: {error}") from None
        if digest != plugin.digest:
            raise PartError(
                f"the plug-in {plugin.name} is other code here than where the trial was planned: "
                f"{here.paths[0]} has the digest {digest[:12]}, not {plugin.digest[:12]}; install the same version on "
                "every node, or start the run again"
            )
        loaded.append(here)
    _load(loaded)


def stage(plugins: Iterable[Plugin], folder: Path) -> None:
    """Copy the files of plug-ins that are not installed into a folder, from where `Plugin.shipped` has them.

    Raises PartError when a file has changed since it was loaded.
    """
    for plugin in plugins:
        if plugin.module:
            continue
        contents = {file: (Path(plugin.root) / file).read_bytes() for file in plugin.files}
        for file, content in contents.items():
            target = folder / plugin.digest[:16] / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        if _digest((plugin.shipped(folder)).paths) != plugin.digest:
            raise PartError(f"{plugin.paths[0]} has changed while the run started; start it again")


def _digest(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        content = path.read_bytes()
        digest.update(len(content).to_bytes(8) + content)
    return digest.hexdigest()


def _find(name: str, beside: Path) -> Plugin:
    if name.endswith(".py") or "/" in name:
        path = beside / Path(name).expanduser()
        if not path.is_file():
            what = "is a folder, not a file" if path.is_dir() else f"no such file{_neighbours(path)}"
            raise PartError(f"{path}: {what}; plug-ins are files, relative to the grid file, or modules")
        return _of_file(name, path.resolve())
    offered = {point.name: point.value for point in metadata.entry_points(group=ENTRY_POINTS)}
    module = offered.get(name, name).partition(":")[0]
    return _of_module(name, module, beside, offered)


def _neighbours(path: Path) -> str:
    near = get_close_matches(path.name, [other.name for other in path.parent.glob("*.py")], n=1, cutoff=0.5)
    return f"; did you mean {path.with_name(near[0])}?" if near else ""


def _of_module(name: str, module: str, beside: Path, offered: Iterable[str] = ()) -> Plugin:
    if not all(part.isidentifier() for part in module.split(".")):
        raise PartError(f"{name!r} is neither a file (NAME.py) nor the name of a module")
    _importable(beside)
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
        near = get_close_matches(module, offered, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise PartError(
            f"no module named {module!r} can be imported, from here or from beside the grid file{hint}; install it, or "
            "name a file, such as my_parts.py"
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
        _digest(files),
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


@dataclass
class _Run:
    """A plug-in that was run in this process: the parts that it registered, and the modules of its files."""

    plugin: Plugin
    parts: Listed
    modules: dict[str, ModuleType]


# By the plug-in's file, those that were run last.
_run: dict[Path, _Run] = {}
_active: list[_Run] = []
# Folders that modules are imported from for the active plug-ins.
_folders: list[str] = []


def _deactivate() -> None:
    """Take the parts of the active plug-ins out of the registries, and what they import out of the process."""
    for run in _active:
        for part in run.parts:
            if _registry(part).get(part.name) is part:
                _registry(part).remove(part.name)
        run.modules |= _modules(run.plugin)
        for name in run.modules:
            sys.modules.pop(name, None)
    _active.clear()
    for folder in _folders:
        with suppress(ValueError):
            sys.path.remove(folder)
    _folders.clear()


def _load(plugins: list[Plugin]) -> list[Plugin]:
    loaded = []
    for plugin in plugins:
        _importable(Path(plugin.root))
        path = plugin.paths[0]
        run = _run.get(path)
        if run is not None and run.plugin.digest == plugin.digest:
            _active.append(run)
            sys.modules.update(run.modules)
            for part in run.parts:
                _registry(part).add(part)
        else:
            run = _Run(plugin, [], {})
            _active.append(run)
            before = {id(part) for registry in REGISTRIES for part in registry.values()}
            try:
                _execute(plugin)
            finally:
                run.parts += [part for registry in REGISTRIES for part in registry.values() if id(part) not in before]
            _check(run.parts)
            _run[path] = run
        silent = f"{path} registers no method, network, data set or metric"
        loaded.append(plugin if run.parts else replace(plugin, notes=(*plugin.notes, silent)))
    return loaded


def _registry(part: Part[Any]) -> Registry[Any]:
    return next(registry for registry in REGISTRIES if registry.kind == part.kind)


def _modules(plugin: Plugin) -> dict[str, ModuleType]:
    """Return the modules of a plug-in's files; none for an installed one, whose modules others may use."""
    paths = set() if plugin.module else set(plugin.paths)
    files = {name: getattr(module, "__file__", None) for name, module in sys.modules.items()}
    return {name: sys.modules[name] for name, file in files.items() if file and Path(file) in paths}


def _execute(plugin: Plugin) -> None:
    """Run a plug-in's file; those that it imports are run anew."""
    paths = plugin.paths
    for name in _modules(plugin):
        del sys.modules[name]
    # Files that are imported by their names, and not run as they are.
    by_name = plugin.files[1:]
    try:
        dotted = plugin.module or _dotted(plugin.files[0])
        if "." in dotted or plugin.module:
            by_name = plugin.files
            import_module(dotted)
        else:
            _run_file(f"{dotted}_{plugin.digest[:12]}", paths[0])
    except PartError:
        raise
    except (Exception, SystemExit) as error:
        raise PartError(_reason(error, paths)) from error
    for file in plugin.files:
        origin = getattr(sys.modules.get(_dotted(file)), "__file__", None)
        if origin and Path(origin).resolve() != Path(plugin.root) / file and file in by_name:
            raise PartError(
                f"{plugin.name}: importing {_dotted(file)} gives {origin}, not {Path(plugin.root) / file}; rename it"
            )


def _dotted(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


class _Uncached(SourceFileLoader):
    """Compiles a file anew: Python takes an edit in the same second that keeps the size for what it compiled before."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _run_file(name: str, path: Path) -> ModuleType:
    spec = spec_from_file_location(name, path, loader=_Uncached(name, str(path)))
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    # Dataclasses and pydantic look there for the names in annotations.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _importable(folder: Path) -> None:
    """Let modules be imported from a folder, after all others, while the plug-ins are active."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
        _folders.append(str(folder))
    invalidate_caches()


def _reason(error: BaseException, paths: Sequence[Path]) -> str:
    """Return the line of a plug-in that raised, and what it raised."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: is not Python: {error.msg}"
    own = {str(path) for path in paths}
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename in own]
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__) if frame.filename in own]
    where = f"{files[-1]}:{lines[-1]}" if files else str(paths[0])
    message = " ".join(str(error).split())[:300]
    return f"{where}: running it raises {type(error).__name__}{f': {message}' if message else ''}"


def _check(parts: Listed) -> None:
    """Refuse a method whose hyperparameters are none, because it is no dataclass."""
    for part in parts:
        cls: Any = part.make
        if part.kind != "method" or "__dataclass_params__" in vars(cls):
            continue
        own = [name for name, kind in vars(cls).get("__annotations__", {}).items() if "ClassVar" not in str(kind)]
        if own:
            raise PartError(
                f"{part.source}: the method {part.name!r} is no dataclass, so that {', '.join(own)} cannot be set; "
                "write @dataclass above the class"
            )
