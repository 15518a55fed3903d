"""Make the addresses of a declared table's numbers from the values of fields alone; other values change nothing."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from orchestrator.tables.schema import RowSpec, TableSpec

# Methods in the order in which the papers chain them; others follow by name.
CHAIN = ("label_smoothing", "cskd", "tfkd", "dml", "dcm", "pskd", "byot", "dmfl")
_UNSAFE = re.compile(r"[^A-Za-z0-9_.,:=+()\[\]-]+")
_FIELD = re.compile(r"\{([^{}]*)\}")
_OPTIONAL = re.compile(r"\[((?:[^][{}]|\{[^{}]*\})*)\]")


def method_names(methods: Iterable[str]) -> list[str]:
    """Return methods in the order in which the papers chain them."""
    chosen = sorted(methods, key=lambda name: (CHAIN.index(name) if name in CHAIN else len(CHAIN), name))
    # The paper's only exception.
    return ["dmfl", "byot"] if chosen == ["byot", "dmfl"] else chosen


def plain_methods(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return methods with their default hyperparameters, as a configuration has them."""
    return {name: {} for name in names}


def parameters(given: Mapping[str, Any]) -> str:
    """Return hyperparameters in parentheses, nothing for none; of a list with one value, its name in the singular."""
    named = [
        (name.removesuffix("s") if isinstance(each, list | tuple) and len(each) == 1 else name, each)
        for name, each in sorted(given.items())
    ]
    return " (" + ", ".join(f"{name} {value(each)}" for name, each in named) + ")" if named else ""


def value(given: Any) -> str:
    """Return a configuration value as a reader writes it; an optimizer or a schedule with its hyperparameters."""
    if isinstance(given, Mapping):
        return "+".join(name + parameters(inner) for name, inner in given.items())
    if isinstance(given, list | tuple):
        return ", ".join(map(value, given))
    if given is None:
        return "default"
    if isinstance(given, bool):
        return "yes" if given else "no"
    return f"{given:g}" if isinstance(given, float) else str(given)


def slug(text: str) -> str:
    """Return a text as part of a file name or an address."""
    return re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-") or "x"


def methods_key(configured: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a combination of methods as part of an address."""
    names = method_names(configured)
    keys = [f"{name}-{slug(parameters(configured[name]))}" if configured[name] else name for name in names]
    return "+".join(keys) or "baseline"


def key_of(field: str, value: Any) -> str:
    """Return a value's part of an address."""
    if field == "methods" and isinstance(value, Mapping):
        return methods_key(value)
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


def written(name: str, value: Any) -> Any:
    """Return the value that an explicit row names, as a configuration has it."""
    if name == "methods" and isinstance(value, str):
        return {} if value == "baseline" else plain_methods(part.strip() for part in value.split("+"))
    return value


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


def row_key(table: TableSpec, group: Sequence[Any], values: Sequence[Any], row: RowSpec | None) -> str:
    """Return a row's part of an address: that of its group, and that of its fields or of the explicit row."""
    return "/".join(filter(None, [_group_key(table, group), _line_key(table, values, row)]))


def _group_key(table: TableSpec, group: Sequence[Any]) -> str:
    values = dict(zip(table.group_fields, group, strict=True))
    if table.groups and table.groups.key:
        return filled(table.groups.key, values, key_of)
    return "/".join(key_of(name, value) for name, value in values.items())


def _line_key(table: TableSpec, values: Sequence[Any], row: RowSpec | None) -> str:
    if row is None:
        return "/".join(key_of(name, value) for name, value in zip(table.row_fields, values, strict=True))
    return row.key or "/".join(key_of(name, written(name, value)) for name, value in row.shared.items())


def column_key(table: TableSpec, across: Any, key: str) -> str:
    """Return a column's part of an address: the value of `across`, where the table has it, and the column's own key."""
    return key if table.across is None else f"{key_of(table.across, across)}/{key}"
