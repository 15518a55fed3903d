"""The command `orchestrate`: our packages before anything else of their names, then the command line.

`trainer`, `reports` and `orchestrator` are common names. A folder so called on PYTHONPATH, whose empty entries are the
present folder, would be found before ours; this module has a name that nobody else uses.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

OURS = ("trainer", "orchestrator", "reports")
HOME = Path(__file__).resolve().parent


class OursFirst:
    """A finder that looks for our packages beside this file."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return the place of a package of ours, None for any other module."""
        return PathFinder.find_spec(name, [str(HOME)]) if path is None and name in OURS else None


def main() -> None:
    """Run the command line; a module of the user's in the place of a package that is needed ends it in one line."""
    sys.meta_path.insert(0, OursFirst)
    try:
        from orchestrator.cli import main as command_line

        command_line()
    except (ImportError, AttributeError, SyntaxError) as error:
        if not (way := next(in_the_way(), None)):
            raise
        name, path = way
        print(
            f"error: {path} is in the way of the package {name} ({type(error).__name__}: {error}); rename it, or take "
            "its folder off PYTHONPATH (an empty entry there is the present folder)",
            file=sys.stderr,
        )
        raise SystemExit(2) from None


def in_the_way() -> Iterator[tuple[str, Path]]:
    """Yield the modules that were loaded from PYTHONPATH in the place of an installed package or one of Python's."""
    entries = [Path(entry or os.curdir).resolve() for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    elsewhere = [entry for entry in sys.path if Path(entry or os.curdir).resolve() not in entries]
    for folder in dict.fromkeys(entries):
        for path in sorted(folder.glob("*")) if os.environ.get("PYTHONPATH") else ():
            name = path.stem if path.suffix == ".py" else path.name
            if not (path.suffix == ".py" or (path / "__init__.py").is_file()) or name in OURS:
                continue
            if name in sys.stdlib_module_names or PathFinder.find_spec(name, elsewhere):
                yield name, path
