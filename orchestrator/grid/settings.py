"""Write settings of the command line (`--set FIELD=VALUE`) into a grid file's text, as its section `set`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.events import CollectionEndEvent, CollectionStartEvent

from orchestrator.grid.document import compose
from orchestrator.grid.problems import GridError, Place, Problem

SECTION = "set"


@dataclass(frozen=True)
class Span:
    """The part of a text that was written into it: columns `start` to `end` (without it) of a line, from 1."""

    line: int
    start: int
    end: int

    def covers(self, place: Place) -> bool:
        """Return whether a position is in the part."""
        return place[0] == self.line and self.start <= place[1] < self.end


def parse_settings(given: Iterable[str]) -> dict[str, Any]:
    """Return the values, read as YAML, of settings such as `seed=[0, 1]`, by field.

    Raises GridError: one is not FIELD=VALUE, is no YAML, or is given twice.
    """
    settings: dict[str, Any] = {}
    problems = []
    for text in given:
        name, equals, value = text.partition("=")
        name, option = name.strip(), f"--set {text}"
        if not equals or not name:
            problems.append(Problem(option, None, None, "", "is not FIELD=VALUE, such as --set epochs=3"))
        elif name in settings:
            problems.append(Problem(option, None, None, "", f"sets {name} a second time; leave one out"))
        elif not value.strip():
            settings[name] = None
        else:
            settings[name] = None
            try:
                node, wrong = compose(option, value)
                settings[name] = node.plain()
            except GridError as error:
                wrong = error.problems
            # A line of the option would say nothing.
            problems += [Problem(option, None, None, "", problem.message) for problem in wrong]
    if problems:
        raise GridError(problems)
    return settings


def with_settings(file: str, text: str, settings: Mapping[str, Any]) -> tuple[str, Span | None]:
    """Return a grid file's text with these settings in its section `set`, and where that section stands in it.

    Settings that the file has already stay, unless they are given anew. No line of the file moves, but for those behind
    a section `set` of its own.

    Raises GridError: the text is no YAML.
    """
    root, _ = compose(file, text)
    if not isinstance(root.value, dict):
        return text, None
    entries, end, flow = _top_level(text)
    if (own := root.value.get(SECTION)) is not None:
        settings = {**(own.plain() if isinstance(own.value, dict) else {}), **settings}
        start = entries[SECTION]
        behind = min((index for index in entries.values() if index > start), default=end)
        text, end = text[:start] + text[behind:], end - (behind - start)
    written = f"{SECTION}: {json.dumps(settings, ensure_ascii=False)}"
    if flow:
        # At its beginning: a trailing comma is allowed, a doubled one is not.
        start = text.index("{", 0 if not entries else text.rindex("{", 0, min(entries.values()))) + 1
        text = f"{text[:start]}{written}, {text[start:]}"
    else:
        before = text[:end] if text[:end].endswith("\n") or not text[:end] else f"{text[:end]}\n"
        start = len(before) + root.column - 1
        text = f"{before}{' ' * (root.column - 1)}{written}\n{text[end:]}"
    head = text[:start].split("\n")
    return text, Span(len(head), len(head[-1]) + 1, len(head[-1]) + 1 + len(written))


def _top_level(text: str) -> tuple[dict[str, int], int, bool]:
    """Return where the entries of a file's outermost mapping begin, where it ends, and whether it is in braces."""
    entries: dict[str, int] = {}
    depth, is_key, flow = 0, True, False
    for event in YAML(typ="safe", pure=True).parse(text):
        if isinstance(event, CollectionEndEvent):
            depth -= 1
            if depth == 0:
                return entries, event.start_mark.index, flow
        elif depth == 1:
            if is_key and (name := getattr(event, "value", None)) is not None:
                entries[name] = event.start_mark.index
            is_key = not is_key
        if isinstance(event, CollectionStartEvent):
            flow = flow if depth else bool(event.flow_style)
            depth += 1
    return entries, len(text), flow
