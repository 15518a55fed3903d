"""Parse YAML 1.2 into nodes with line and column; size and depth are limited."""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    DocumentStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceStartEvent,
)

from orchestrator.grid.problems import GridError, Place, Problem
from trainer.problems import nearest, shown

# Far above any real grid, and small enough to be read at once.
MAX_BYTES = 256 * 1024
MAX_DEPTH = 20
MAX_VALUES = 200_000
MAX_NUMBER = 100

# YAML 1.2.2, sections 5.1 (characters) and 10.3.2 (the core schema).
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NULL = re.compile(r"null|Null|NULL|~|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
# Without .inf and .nan: no field accepts them, and as strings they appear in the message.
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


# Templates of shells, Hydra, Jinja, Helm and CI services.
_TEMPLATE = re.compile(r"\$\{|\$\(|\{\{|\{%")
TEMPLATE = (
    "variables and templates are not filled in: write the value itself, or give it on the command line: "
    "--set FIELD=VALUE"
)
TARGET = (
    "nothing is built from `_target_`: name a network, a data set or a method, with its hyperparameters as a mapping"
)
# What a parser's context says is open.
_OPENED = {
    "while parsing a flow sequence": "the [",
    "while parsing a flow mapping": "the {",
    "while scanning a quoted scalar": "the quote",
}


@dataclass(eq=False, slots=True)
class Node:
    """A value and its position (line and column, from 1). Mappings have their keys' positions beside their values."""

    value: bool | int | float | str | list[Node] | dict[str, Node] | None
    line: int
    column: int
    places: dict[str, Place] = field(default_factory=dict)
    # Number of nodes below it and itself; aliases count each time.
    size: int = 1
    depth: int = 1

    @property
    def place(self) -> Place:
        """Return line and column."""
        return self.line, self.column

    def plain(self) -> Any:
        """Return the value without positions, in JSON's types."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        return [node.plain() for node in self.value] if isinstance(self.value, list) else self.value


def compose(file: str, text: str) -> tuple[Node, list[Problem]]:
    """Return the tree of a YAML text, and the problems of its values and keys (tags, templates, keys that repeat).

    Anchors and aliases are followed; tags are refused, so that only plain values of the core schema remain.

    Raises GridError: the text is no YAML, is empty, too deep, or expands to too much.
    """
    composer = _Composer(file, text)
    return composer.compose(), composer.problems


def read_text(path: Path) -> str:
    """Return the text of a grid file; raises GridError where it cannot be read, is too large, or is no text."""

    def refuse(message: str, line: int | None = None) -> GridError:
        return GridError([Problem(str(path), line, None, "", message)])

    try:
        if path.exists() and not path.is_file():
            raise refuse("is a folder, not a grid file" if path.is_dir() else "is not a regular file")
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise refuse(f"no such file{_neighbours(path)}") from None
    except (OSError, ValueError) as error:
        raise refuse(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > MAX_BYTES:
        raise refuse(f"is larger than {MAX_BYTES // 1024} KiB; a grid file lists axes, not trials", 1)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise refuse(f"is not UTF-8 text: byte 0x{data[error.start]:02x}; save it as UTF-8", line) from None
    if odd := _UNPRINTABLE.search(text):
        line = text.count("\n", 0, odd.start()) + 1
        raise refuse(f"holds the unprintable character U+{ord(odd.group()):04X}; is this a text file?", line)
    return text


def _neighbours(path: Path) -> str:
    try:
        names = [other.name for other in path.parent.iterdir() if other.suffix in (".yaml", ".yml")]
    except OSError:
        return ""
    return nearest(path.name, names, path.parent)


class _Composer:
    """Builds the tree from the parser's events; checks size and depth at each event."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.events = YAML(typ="safe", pure=True).parse(text)
        self.line = 1
        self.lines = max(1, len(text.splitlines()))
        self.depth = 0
        self.anchors: dict[str, Node | None] = {}
        self.problems: list[Problem] = []

    def compose(self) -> Node:
        """Return the tree; raises GridError with the first mistake of syntax."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                root = self._document()
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            unclosed = _OPENED.get(error.context) if error.context_mark else None
            seen = mark.line + 1 if mark else self.line
            if mark and (unclosed or mark.line >= self.lines):
                # The parser sees a missing bracket only in a later line. The end of the file shows nothing; an
                # incomplete value is reported where it began.
                mark = error.context_mark
            line, column = (mark.line + 1, mark.column + 1) if mark else (self.line, 1)
            line = min(line, self.lines)
            what = ", ".join(part for part in (error.context, error.problem) if part)
            if unclosed:
                where = "the end of the file" if seen > self.lines else "this line" if seen == line else f"line {seen}"
                what = f"{unclosed} opened here is not closed, or something is missing in it, before {where}: {what}"
            if "'\\t'" in what:
                what += "; indent with spaces, not with tabs"
            for end in (r"'\x00'", "'<stream end>'", "unexpected end of stream"):
                what = what.replace(end, "the end of the file")
            raise self._stop(line, column, f"is not YAML: {what}") from None
        except (YAMLError, ValueError, LookupError, AttributeError, TypeError, AssertionError) as error:
            # Parser errors without a position, and other exceptions of the parser on odd input.
            what = str(error).split("\n")[0] or type(error).__name__
            raise self._stop(self.line, 1, f"is not YAML: {what}") from None
        return root

    def _document(self) -> Node:
        root: Node | None = None
        while (event := self._next()) is not None:
            if isinstance(event, DocumentStartEvent) and root is not None:
                raise self._stop(*_place(event), "a second document starts here; a grid file holds one")
            if isinstance(event, NodeEvent):
                root = self._node(event)
        if (root is None or root.value is None) and not self.problems:
            raise self._stop(1, 1, "is empty; a grid file needs a name and a grid")
        if root is None or root.value is None:
            raise GridError(self.problems)
        return root

    def _next(self) -> Any:
        event = next(self.events, None)
        if event is not None:
            self.line = event.start_mark.line + 1
        return event

    def _node(self, event: Any) -> Node:
        line, column = _place(event)
        if isinstance(event, AliasEvent):
            node = self.anchors.get(event.anchor)
            if node is None:
                what = "stands inside itself" if event.anchor in self.anchors else "is not an anchor above this line"
                raise self._stop(line, column, f"*{event.anchor} {what}")
            return node
        if event.ctag is not None:
            name = str(event.tag)
            cure = "files are not included: write the values here" if "include" in name else "write a plain value"
            self._note(line, column, f"the tag {shown(name)} is not allowed; {cure}")
        if event.anchor is not None:
            self.anchors[event.anchor] = None
        if isinstance(event, ScalarEvent):
            node = Node(self._scalar(event, line, column), line, column)
        else:
            node = self._collection(event, Node([] if isinstance(event, SequenceStartEvent) else {}, line, column))
        if event.anchor is not None:
            self.anchors[event.anchor] = node
        return node

    def _collection(self, event: Any, node: Node) -> Node:
        self.depth += 1
        while not isinstance(event := self._next(), CollectionEndEvent):
            if self.depth >= MAX_DEPTH:
                raise self._stop(*_place(event), f"is nested deeper than {MAX_DEPTH} levels")
            key = self._node(event) if isinstance(node.value, dict) else None
            child = self._node(event if key is None else self._next())
            if key is not None and child.value is None:
                # The parser puts an empty value where the next token begins, which may be lines further down.
                child = Node(None, key.line, key.column)
            node.size += child.size
            node.depth = max(node.depth, child.depth + 1)
            if node.size > MAX_VALUES or node.depth + self.depth > MAX_DEPTH:
                raise self._stop(*_place(event), f"expands to over {MAX_VALUES:,} values or {MAX_DEPTH} levels")
            if isinstance(node.value, list):
                node.value.append(child)
            elif isinstance(node.value, dict) and key is not None:
                self._entry(node, node.value, key, child)
        self.depth -= 1
        return node

    def _entry(self, node: Node, entries: dict[str, Node], key: Node, child: Node) -> None:
        if not isinstance(key.value, str):
            # YAML reads `{{ x }}` as a mapping whose key is a mapping.
            what = "templates ({{ }}) are not filled in: write the value itself"
            what = what if isinstance(key.value, dict) else "put it in quotes"
            self._note(key.line, key.column, f"the key {shown(key.plain())} is not a name; {what}")
        elif key.value in entries:
            first = node.places[key.value][0]
            self._note(key.line, key.column, f"the key {shown(key.value)} stands twice; first in line {first}")
        else:
            if key.value == "_target_":
                self._note(key.line, key.column, TARGET)
            entries[key.value] = child
            node.places[key.value] = (key.line, key.column)

    def _scalar(self, event: ScalarEvent, line: int, column: int) -> bool | int | float | str | None:
        text: str = event.value
        if event.style is None and len(text) < MAX_NUMBER:
            if _NULL.fullmatch(text):
                return None
            if _BOOL.fullmatch(text):
                return text.lower() == "true"
            if _INT.fullmatch(text):
                return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
            if _FLOAT.fullmatch(text):
                value = float(text)
                if math.isfinite(value):
                    return value
                self._note(line, column, f"{text} is too large for a number")
        if _TEMPLATE.search(text):
            self._note(line, column, f"{shown(text)}: {TEMPLATE}")
        elif not text.isprintable():
            odd = next(character for character in text if not character.isprintable())
            self._note(line, column, f"{shown(text)} holds the unprintable character U+{ord(odd):04X}")
        return text

    def _note(self, line: int, column: int, message: str) -> None:
        self.problems.append(Problem(self.file, line, column, "", message))

    def _stop(self, line: int, column: int, message: str) -> GridError:
        self._note(line, column, message)
        return GridError(self.problems)


def _place(event: Any) -> Place:
    return event.start_mark.line + 1, event.start_mark.column + 1
