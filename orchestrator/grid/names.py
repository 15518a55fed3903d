"""Readable names for the trials of a grid: resnet18/byot[2,3]+pskd/stages3/seed0."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from typing import Any

from trainer.config import TrainConfig

MAX_LENGTH = 200

# Unsafe characters in paths, URLs and shells, and names of hidden or parent folders.
_UNSAFE_IN_PART = re.compile(r"(?:[^A-Za-z0-9_.,=+\[\]-]|\.\.)+")
_UNSAFE = re.compile(r"[^A-Za-z0-9_.,=+/\[\]-]")


def trial_names(configs: dict[str, TrainConfig], axes: Collection[str]) -> list[str]:
    """Return a unique name per configuration (given by key): network, methods, other varying fields, seed.

    `axes` are the fields that the grid file varies; one is shown where it has more than one value in this grid. A name
    that would be too long or ambiguous ends with the beginning of its key. Characters that are not safe in paths become
    `-`: `dataset=folder-pets` is the data set folder:pets.
    """
    always = {"network", "peer", "methods", "seed"}
    fields = [name for name in TrainConfig.model_fields if name in axes and name not in always]
    fields = [name for name in fields if len({repr(getattr(config, name)) for config in configs.values()}) > 1]
    start: dict[tuple[str, str | None, str], str] = {}
    names = []
    for config in configs.values():
        trained = (config.network, config.peer, repr(config.methods))
        if trained not in start:
            start[trained] = f"{'+'.join(config.network_names)}/{_methods(config)}"
        varying = "".join(_field(name, getattr(config, name)) for name in fields)
        names.append(f"{start[trained]}{varying}/seed{config.seed}")
    counts = Counter(names)
    return [
        name
        if counts[name] == 1 and len(name) <= MAX_LENGTH and not _UNSAFE.search(name) and ".." not in name
        else f"{_UNSAFE.sub('_', name).replace('..', '_')[:MAX_LENGTH]}-{key[:16]}"
        for key, name in zip(configs, names, strict=True)
    ]


def _methods(config: TrainConfig) -> str:
    return "+".join(name + _parameters(values) for name, values in config.methods.items()) or "baseline"


def _parameters(values: dict[str, Any]) -> str:
    """Return `[2,3]` for a lone list, `[alpha=0.2,temperature=4]` in general."""
    if len(values) == 1 and isinstance(only := next(iter(values.values())), (list, tuple)):
        return f"[{_text(only)}]"
    return f"[{','.join(f'{name}={_text(value)}' for name, value in values.items())}]" if values else ""


def _field(name: str, value: Any) -> str:
    """Return `/stages3`, `/dataset=folder-pets` or `/optimizer=adamw[0.9,0.95]`; nothing for a default of None."""
    if value is None:
        return ""
    if isinstance(value, dict):
        return f"/{name}=" + "+".join(part + _parameters(values) for part, values in value.items())
    word = isinstance(value, str)
    return f"/{name}{'=' if word else ''}{_UNSAFE_IN_PART.sub('-', value).strip('-') if word else _text(value)}"


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(map(_text, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
