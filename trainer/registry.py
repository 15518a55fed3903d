"""Define a registered part, and the registry of the parts of one kind. No torch and no pydantic here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from functools import cached_property, lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from trainer.errors import FailureClass, TrainerError
from trainer.sources import source_digest, source_files

Facts = TypeVar("Facts")
Remembered = TypeVar("Remembered", bound=Callable[..., Any])


class PartError(TrainerError):
    """A part that cannot be registered or loaded; the message says where, why, and what to do."""

    failure: ClassVar[FailureClass] = "code"


@dataclass(frozen=True, eq=False, kw_only=True)
class Part(Generic[Facts]):
    """A registered part: what makes it, and what is known of it before it is made.

    `make` is the class of a method, an optimizer or a schedule, and the function of every other kind. `file` and `line`
    are where it was registered; a part without a line is a module as a whole. `own_files` are the files that it
    consists of where they are not to be followed.
    """

    kind: str
    name: str
    title: str
    version: int
    facts: Facts
    make: Any
    file: Path
    line: int | None = None
    own_files: tuple[Path, ...] | None = None

    @property
    def ships(self) -> bool:
        """Return whether the part is of the trainer or of a library, and of no plug-in."""
        return self.own_files is not None or Path(__file__).parent in self.file.parents

    @property
    def source(self) -> str:
        """Return the file and the line where the part was registered."""
        return str(self.file) if self.line is None else f"{self.file}:{self.line}"

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """Return the files that the part consists of, its own first; none for code that is in no file."""
        if self.own_files is not None:
            return self.own_files
        return source_files(self.file) if self.file.suffix == ".py" and self.file.is_file() else ()

    @cached_property
    def digest(self) -> str:
        """Return the sha256 over the syntax trees of its files, without docstrings."""
        return source_digest(self.files)

    def to_dict(self) -> dict[str, Any]:
        """Return the facts of its kind as plain values; of a method, an optimizer or a schedule, its defaults."""
        facts: Any = self.facts
        return asdict(facts) if facts is not None else {"defaults": _defaults(self.make)}


def _defaults(made: Any) -> dict[str, Any]:
    """Return the defaults of a class's hyperparameters, those that JSON can hold."""
    defaults = {}
    for field in fields(made) if is_dataclass(made) else ():
        value = field.default if field.default_factory is MISSING else field.default_factory()
        if isinstance(value, bool | int | float | str | None | list | tuple):
            defaults[field.name] = list(value) if isinstance(value, tuple) else value
    return defaults


class Registry(Mapping[str, Part[Facts]]):
    """The parts of one kind by name; the module `home` registers those that are built in, on first use."""

    def __init__(self, kind: str, home: str) -> None:
        self.kind = kind
        self._home: str | None = home
        self._parts: dict[str, Part[Facts]] = {}
        # Makes parts of names that are in no list, and returns None for other names.
        self.further: Callable[[str], Part[Facts] | None] = lambda name: None

    def add(self, part: Part[Facts]) -> None:
        """Register a part; the same one from the same place again takes the place of the first.

        Raises PartError for a bad name or version, and where another part has the name.
        """
        self._fill()
        if not isinstance(part.name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", part.name):
            raise PartError(
                f"{part.source}: {part.name!r} cannot be the name of a {self.kind}: a name begins with a letter and "
                "consists of letters, digits, '_', '-' and '.'"
            )
        if part.name == "baseline" and self.kind == "method":
            raise PartError(f"{part.source}: 'baseline' is training without any method; choose another name")
        if isinstance(part.version, bool) or not isinstance(part.version, int) or part.version < 1:
            raise PartError(f"{part.source}: the version of {part.name} is {part.version!r}; it must be 1, 2, 3 ...")
        taken = self._parts.get(part.name)
        if taken is not None and taken.source != part.source:
            raise PartError(
                f"two {self.kind}s are named {part.name!r}: one in {taken.source}, one in {part.source}; "
                "give one of them another name"
            )
        self._parts[part.name] = part
        _forget()

    def remove(self, name: str) -> Part[Facts]:
        """Take a part out of the registry and return it."""
        part = self._parts.pop(name)
        _forget()
        return part

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Restore the registry at the end: for parts that are tried out."""
        self._fill()
        before = dict(self._parts)
        try:
            yield
        finally:
            self._parts = before
            _forget()

    def _fill(self) -> None:
        home, self._home = self._home, None
        if home is not None:
            import_module(home)

    def __getitem__(self, name: str) -> Part[Facts]:
        self._fill()
        part = self._parts.get(name) or self.further(name)
        if part is None:
            raise KeyError(name)
        return part

    def __iter__(self) -> Iterator[str]:
        self._fill()
        return iter(self._parts)

    def __len__(self) -> int:
        self._fill()
        return len(self._parts)


_memories: list[Callable[[], None]] = []


def remembered(function: Remembered) -> Remembered:
    """Remember the results of a function (up to 4,096 of them) until a part is registered or removed."""
    cached = lru_cache(maxsize=4096)(function)
    _memories.append(cached.cache_clear)
    return cached  # type: ignore[return-value]


def _forget() -> None:
    for clear in _memories:
        clear()
