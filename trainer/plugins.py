"""Load plug-ins: files and modules that register parts of one's own. No torch here.

The parts of one list of plug-ins are registered at a time: loading another list takes the former ones out, so that a
process may read several grids. The same file is run again only after it, or a file that it imports, has changed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from trainer.parts import REGISTRIES
from trainer.plugin_files import Plugin, digest_of, find, import_folders, importable, of_module, raised
from trainer.registry import Part, PartError, Registry

Listed = list[Part[Any]]


def load_plugins(names: Iterable[str], beside: Path) -> list[Plugin]:
    """Run the plug-ins of a list, and register their parts in place of those of the list before.

    A name is a file (`my_parts.py`, relative to the folder `beside`), an entry point of the group `orchestrate.plugins`
    that an installed package offers, or a module that can be imported from here or from `beside`.

    Raises PartError: one is missing, cannot be run, or registers a name that is taken.
    """
    _deactivate()
    return _load([find(name, beside) for name in dict.fromkeys(names)])


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
            import_folders.append(plugin.root)
        if plugin.module:
            here = replace(of_module(plugin.name, plugin.module, Path(plugin.root)), notes=plugin.notes)
        try:
            digest = digest_of(here.paths)
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
        if digest_of((plugin.shipped(folder)).paths) != plugin.digest:
            raise PartError(f"{plugin.paths[0]} has changed while the run started; start it again")


@dataclass
class _Run:
    """A plug-in that was run in this process: the parts that it registered, and the modules of its files."""

    plugin: Plugin
    parts: Listed
    modules: dict[str, ModuleType]


# By the plug-in's file, those that were run last.
_run: dict[Path, _Run] = {}
_active: list[_Run] = []


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
    for folder in import_folders:
        with suppress(ValueError):
            sys.path.remove(folder)
    import_folders.clear()


def _load(plugins: list[Plugin]) -> list[Plugin]:
    loaded = []
    for plugin in plugins:
        importable(Path(plugin.root))
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


def _reason(error: BaseException, paths: Sequence[Path]) -> str:
    """Return the line of a plug-in that raised, and what it raised."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: is not Python: {error.msg}"
    where, what = raised(error, paths)
    return f"{where or paths[0]}: running it raises {what}"


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
