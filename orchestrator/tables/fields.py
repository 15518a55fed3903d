"""Read the values of configurations' fields, and compare them with the values that a declared table names."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from trainer.problems import nearest, shown

Config = Mapping[str, Any]


def value_of(config: Config, field: str, placed: Iterable[str] = ()) -> Any:
    """Return a field's value; `methods.pskd.alpha` is a part of one, None where the configuration lacks it.

    A whole field comes without the parts of it that are `placed` elsewhere.
    """
    base, *parts = field.split(".")
    value = config.get(base)
    for part in parts:
        value = value.get(part) if isinstance(value, Mapping) else {} if value == part else None
    inner = [name.split(".")[1:] for name in placed if name.startswith(f"{field}.")]
    return _without(value, inner) if inner else value


def _without(value: Any, parts: Sequence[Sequence[str]]) -> Any:
    if not isinstance(value, Mapping):
        return value
    whole = dict(value)
    for first, *below in parts:
        if first in whole and below:
            whole[first] = _without(whole[first], [below])
        else:
            whole.pop(first, None)
    return whole


def comparable(value: Any) -> str:
    """Return a text that is equal for equal values: tuples and lists, 1 and 1.0 alike."""
    if isinstance(value, str | None | bool | int):
        return f"'{value}'" if isinstance(value, str) else str(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, list | tuple):
        return json.dumps([comparable(item) for item in value])
    return json.dumps(value, sort_keys=True)


def matches(field: str, wanted: Any, value: Any) -> bool:
    """Return whether a value is what a table asks for: it, one of a list, or anything but `{not: it}`.

    Methods may be named (`pskd+byot`, with any hyperparameters) or written out with theirs.
    """
    if isinstance(wanted, Mapping) and set(wanted) == {"not"}:
        return not matches(field, wanted["not"], value)
    if comparable(wanted) == comparable(value):
        return True
    if isinstance(wanted, list | tuple):
        return any(matches(field, one, value) for one in wanted)
    if isinstance(value, Mapping) and isinstance(wanted, str):
        return named(wanted) == sorted(value)
    return False


def has(config: Config, wanted: Mapping[str, Any], placed: Iterable[str] = ()) -> bool:
    """Return whether a configuration has what a table asks for in every field, parts that are `placed` left out."""
    return all(matches(name, each, value_of(config, name, placed)) for name, each in wanted.items())


def named(text: str) -> list[str]:
    """Return the parts that `pskd+byot` names, in alphabetical order; none for `baseline`."""
    return [] if text == "baseline" else sorted(part.strip() for part in text.split("+"))


def by_name(wanted: Any) -> bool:
    """Return whether methods are given by their names alone."""
    return isinstance(wanted, str) or (isinstance(wanted, list | tuple) and all(map(by_name, wanted)))


def in_words(value: Any) -> str:
    """Return a value as a grid file has it, for a message."""
    if value == {}:
        return "baseline"
    if isinstance(value, Mapping) and not any(value.values()):
        return "+".join(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(in_words, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {in_words(each) if each else ''}" for name, each in value.items()) + "}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def not_among(wanted: Any, texts: Sequence[str]) -> str:
    """Return a value that is none of those that there are, with the nearest and the first dozen of them."""
    more = ", ..." if len(texts) > 12 else ""
    return f"{shown(wanted)}{nearest(in_words(wanted), texts)} (there are: {', '.join(texts[:12])}{more})"
