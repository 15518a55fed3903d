"""Say in words for its author what is wrong with a configuration. No torch here."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

# The path of a key below the mapping being checked, and a sentence that holds the value.
Problems = list[tuple[tuple[str, ...], str]]

_SENTENCES = {
    "int_type": "{value} is not a whole number",
    "int_parsing": "{value} is not a whole number",
    "int_parsing_size": "{value} is too large",
    "int_from_float": "{value} is not a whole number",
    "float_type": "{value} is not a number",
    "float_parsing": "{value} is not a number",
    "finite_number": "{value} is not a finite number",
    "bool_type": "{value} is neither true nor false",
    "bool_parsing": "{value} is neither true nor false",
    "string_type": "{value} is not text",
    "tuple_type": "{value} is not a list",
    "list_type": "{value} is not a list",
    "dict_type": "{value} is not a mapping",
    "missing": "{value} is too short",
    "too_long": "{value} is too long; it may have {max_length}",
    "too_short": "{value} is too short; it needs {min_length} or more",
    "greater_than": "{value} is too small; it must be more than {gt}",
    "greater_than_equal": "{value} is too small; it must be {ge} or more",
    "less_than": "{value} is too large; it must be less than {lt}",
    "less_than_equal": "{value} is too large; it must be {le} or less",
}


def problems(listed: Problems) -> PydanticCustomError:
    """Return a validation error of one or more problems; `plain_problems` lists them one by one again."""
    message = "; ".join(message for _, message in listed)
    return PydanticCustomError("config", "{message}", {"message": message, "problems": listed})


def problem(message: str, *path: str) -> PydanticCustomError:
    """Return a validation error of one problem."""
    return problems([(path, message)])


def unknown(kind: str, name: Any, allowed: Iterable[str], more: str = "") -> str:
    """Return the message for a name that is not in a catalogue: the nearest one and all that are allowed.

    An abbreviation counts as near: `lr` means `learning_rate`.
    """
    allowed = sorted(allowed)
    initials = ["".join(word[:1] for word in other.split("_")) for other in allowed]
    near = [other for other, short in zip(allowed, initials, strict=True) if len(short) > 1 and short == name]
    hint = f"; did you mean {near[0]!r}?" if near else nearest(str(name), allowed)
    return f"unknown {kind} {shown(name)}{hint} (allowed: {', '.join(allowed) or 'none'}{more})"


def nearest(name: str, names: Iterable[str], folder: Path | None = None) -> str:
    """Return a hint at the name, or the file of a folder, that is spelled nearly alike: `; did you mean 'width'?`."""
    near = get_close_matches(name[:100], list(names), n=1, cutoff=0.5)
    return f"; did you mean {repr(near[0]) if folder is None else folder / near[0]}?" if near else ""


def shown(value: Any) -> str:
    """Return a value as the person may have written it, shortened."""
    text = repr(value)
    text = {"None": "null", "True": "true", "False": "false"}.get(text, text)
    return text if len(text) <= 80 else f"{text[:60]}...{text[-10:]}"


def plain_problems(error: ValidationError, kind: str, names: Iterable[str]) -> Problems:
    """Return every problem that pydantic reported. `kind` is what an unknown key was meant to be: one of `names`."""
    listed: Problems = []
    for entry in error.errors(include_url=False):
        path = tuple(str(part) for part in entry["loc"])
        context = entry.get("ctx", {})
        if entry["type"] == "config":
            listed += [((*path, *below), message) for below, message in context["problems"]]
        elif entry["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            listed.append((path, unknown(kind, path[-1], names)))
        elif entry["type"] == "literal_error":
            listed.append((path, unknown("value", entry["input"], re.findall(r"'([^']*)'", context["expected"]))))
        elif entry["type"] in _SENTENCES:
            limits = {name: f"{limit:g}" if isinstance(limit, float) else limit for name, limit in context.items()}
            listed.append((path, _SENTENCES[entry["type"]].format(value=shown(entry["input"]), **limits)))
        else:
            listed.append((path, f"{shown(entry['input'])}: {entry['msg'][0].lower()}{entry['msg'][1:]}"))
    return listed
