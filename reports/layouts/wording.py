"""Labels and addresses of a declared table, from the values of fields."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.tables.fields import named
from reports import titles

_UNSAFE = re.compile(r"[^A-Za-z0-9_.,:=+()\[\]-]+")
_FIELD = re.compile(r"\{([^{}]*)\}")
_OPTIONAL = re.compile(r"\[((?:[^][{}]|\{[^{}]*\})*)\]")


def key_of(field: str, value: Any) -> str:
    """Return a value's part of an address: from the value alone, so that other values change nothing."""
    if field == "methods" and isinstance(value, Mapping):
        return titles.methods_key(value)
    if isinstance(value, Mapping):
        text = "+".join(name + (str(dict(given)) if given else "") for name, given in value.items()) or "default"
    elif isinstance(value, list | tuple):
        text = "-".join(map(str, value)) or "none"
    elif value is None or isinstance(value, bool):
        text = {None: "default", True: "yes", False: "no"}[value]
    else:
        text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    safe = _UNSAFE.sub("-", text).strip("-")
    # A short digest keeps values apart that differ in what an address cannot hold.
    return safe if safe == text else f"{safe}-{hashlib.sha256(text.encode()).hexdigest()[:6]}".lstrip("-")


def text_of(field: str, value: Any, names: Mapping[str, str]) -> str:
    """Return a value as a reader sees it: by the table's own names, or else by the usual ones."""
    if field == "methods" and isinstance(value, Mapping):
        return _methods(value, names)
    own = names.get(key_of(field, value))
    if own is not None:
        return own
    if field in ("network", "peer") and value is not None:
        return titles.network(str(value))
    if field in ("dataset", "ood_dataset") and value is not None:
        return titles.dataset(str(value))
    return titles.value(value)


def _methods(value: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Return a combination of methods by its own name, or with the parts that have names of their own replaced."""
    if not any(value.values()):
        for name, text in names.items():
            if named(name) == sorted(value):
                return text
    parts = [
        names.get(name, titles.methods({name: {}})) + titles.parameters(value[name])
        for name in titles.method_names(value)
    ]
    return "+".join(parts) or names.get("baseline", titles.methods({}))


def head_of(field: str, names: Mapping[str, str]) -> str:
    """Return the heading of a field's labels."""
    if field in names:
        return names[field]
    special = {"methods": "Method", "dataset": "Data set", "ood_dataset": "Other data set"}
    base, _, part = field.partition(".")
    if part and base == "methods":
        method, _, parameter = part.partition(".")
        title = titles.methods({method: {}})
        return f"{title} {parameter.replace('_', ' ')}" if parameter else title
    return special.get(field, (part or field).replace("_", " ").replace(".", " ").capitalize())


def filled(template: str, values: Mapping[str, Any], show: Callable[[str, Any], str]) -> str:
    """Return a template with `{field}` filled in by `show`, `{a|b}` by the first of the fields that is set.

    A part in brackets goes where one of its fields is not set.
    """

    def chosen(names: str) -> str:
        listed = names.split("|")
        return next((name for name in listed if values.get(name) not in (None, {})), listed[-1])

    def optional(part: re.Match[str]) -> str:
        is_set = all(values.get(chosen(names)) not in (None, {}) for names in _FIELD.findall(part[1]))
        return part[1] if is_set else ""

    def field(part: re.Match[str]) -> str:
        name = chosen(part[1])
        return show(name, values.get(name))

    return _FIELD.sub(field, _OPTIONAL.sub(optional, template))
