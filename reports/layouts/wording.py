"""Label values and fields as a reader of a declared table sees them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.tables.addresses import key_of, method_names, parameters
from orchestrator.tables.addresses import value as value_text
from orchestrator.tables.fields import named
from reports import titles


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
    return value_text(value)


def _methods(value: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Return a combination of methods by its own name, or with the parts that have names of their own replaced."""
    if not any(value.values()):
        for name, text in names.items():
            if named(name) == sorted(value):
                return text
    parts = [names.get(name, titles.methods({name: {}})) + parameters(value[name]) for name in method_names(value)]
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
