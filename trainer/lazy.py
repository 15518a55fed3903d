"""Import the public names of a package on first use: nobody waits for what is not needed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import Any


def on_first_use(package: str, modules: Mapping[str, Collection[str]]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package; `modules` maps each module, which may be relative, to its public names.

    The function raises AttributeError for every other name.
    """
    homes = {name: module for module, names in modules.items() for name in names}

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(homes[name], package), name)

    return get
