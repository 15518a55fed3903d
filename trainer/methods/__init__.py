"""The training methods. Each file in this folder registers the methods it defines; a new one needs no edit here."""

from importlib import import_module
from pkgutil import iter_modules

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
