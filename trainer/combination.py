"""The parts of a configuration, checked against themselves; methods also against its networks, once for many trials.

Methods travel as canonical JSON: a grid of 100,000 trials has few distinct combinations, and each is checked once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from trainer.objective import Objective, build_methods, method_parameters
from trainer.parts import METHODS, NETWORKS
from trainer.problems import Problems, plain_problems, problem, problems, shown, unknown
from trainer.recipe import build_part, named
from trainer.registry import Registry, remembered

if TYPE_CHECKING:
    from trainer.method import Requires


# One text for equal values, whatever the order of their keys.
canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=repr).encode


@remembered
def settled_heads(network: str, peer: str | None, heads: str, methods: str) -> str:
    """Return the kind of heads that every network of a run carries, `none` for none; `methods` as canonical JSON."""
    built = build_methods(json.loads(methods))
    needing = [method.name for method in built if method.requires.heads]
    comparing = [method.name for method in built if method.requires.features]
    for name in dict.fromkeys((network, peer or network)):
        if comparing and not NETWORKS[name].facts.features:
            given = f"an Output with features [B, D]{' and those of heads' if needing else ''}"
            raise problem(
                f"{name} gives logits alone, and {' and '.join(comparing)} reads features: it would have to return "
                f"{given} (from trainer import Output) and be registered with "
                f"{'heads=(KIND,) and stages' if needing else 'features=True'}",
                "network" if name == network else "peer",
            )
    if heads == "none" or (heads == "auto" and not needing):
        if needing:
            raise problem(
                f"'none', but {', '.join(needing)} trains auxiliary heads; leave it out or name a kind", "heads"
            )
        return "none"
    by_default = heads in ("auto", "native")
    kind = next(iter(NETWORKS[network].facts.heads), None) if by_default else heads
    for name in (network, peer or network):
        allowed = NETWORKS[name].facts.heads
        if kind not in allowed:
            carrying = {other: part.facts.heads for other, part in NETWORKS.items()}
            able = ", ".join(other for other, kinds in carrying.items() if (kind in kinds if kind else kinds))
            asked = f" ({', '.join(needing)} trains them)" if needing else ""
            cure = "" if allowed else "; a network of one's own returns an Output with head_logits for them"
            raise problem(
                f"{name} cannot carry {repr(kind) if kind else 'auxiliary'} heads{asked}; it can carry: "
                f"{', '.join(allowed) or 'none'} (networks that can: {able or 'none'}){cure}",
                ("network" if name == network else "peer") if by_default else "heads",
            )
        if comparing and kind not in NETWORKS[name].facts.comparable_heads:
            able = ", ".join(other for other, part in NETWORKS.items() if part.facts.comparable_heads)
            verb = "compares" if len(comparing) == 1 else "compare"
            raise problem(
                f"{' and '.join(comparing)} {verb} the features of heads with the network's own, and those of "
                f"{name} ({kind!r} heads) have another length; leave {name} out of these rows (`exclude`), or take "
                f"a network that can: {able}",
                "methods",
            )
    return str(kind)


def _no_method(name: str) -> str:
    """Return what to say of a name that is no method: several in one, none (`baseline`), or a slip of the pen."""
    parts = [part for part in re.split(r"[\s,;&|/+]+", name.strip()) if part]
    if len(parts) > 1 and all(part in METHODS for part in parts):
        return f"{shown(name)} is not one method; to train with all of them, write {'+'.join(parts)}"
    if name == "baseline":
        return "'baseline' stands alone: it is training without any method; leave it out of a combination"
    return unknown("method", name, [*METHODS, "baseline"])


@remembered
def checked_methods(text: str) -> dict[str, dict[str, Any]]:
    """Return methods with the hyperparameters that differ from their defaults; raises the `problems` of all at once."""
    checked: dict[str, dict[str, Any]] = {}
    invalid: Problems = []
    for name, given in sorted(json.loads(text).items()):
        parameters = {} if given is None else given
        if isinstance(parameters, dict):
            parameters = {parameter: plus_zero(value) for parameter, value in parameters.items()}
        if name not in METHODS:
            invalid.append(((name,), _no_method(name)))
        elif not isinstance(parameters, dict):
            invalid.append(((name,), f"{shown(parameters)} is not a mapping of hyperparameters, such as {{}}"))
        else:
            kept, wrong = _checked(METHODS[name].make, name, parameters, lambda given: build_methods(given)[0])
            invalid += [((name, *path), message) for path, message in wrong]
            checked[name] = kept
    if invalid:
        raise problems(invalid)
    plain: dict[str, dict[str, Any]] = json.loads(json.dumps(checked))
    return plain


def _checked(
    part: Any, name: str, given: dict[str, Any], build: Callable[[dict[str, Any]], Any]
) -> tuple[dict[str, Any], Problems]:
    """Return the hyperparameters of a part that differ from their defaults, and what is wrong with those given."""
    try:
        built = build({name: given})
    except ValidationError as error:
        return {}, plain_problems(error, f"hyperparameter of {name}", [field.name for field in fields(part)])
    # pydantic takes true for 1.
    flags = [key for key, value in given.items() if _has_bool(value) and not _has_bool(getattr(built, key))]
    return method_parameters(built), [((key,), f"{shown(given[key])} is not a number") for key in flags]


def checked_part(kind: str, value: Any, registry: Registry[None]) -> Any:
    """Return an optimizer or a schedule as a configuration keeps it; raises the `problems` of all that is wrong.

    It is a name, or, where hyperparameters differ from their defaults, a mapping of the name to these.
    """
    given = {value: None} if isinstance(value, str) else value
    if not isinstance(given, dict) or len(given) != 1 or not isinstance(next(iter(given)), str):
        raise problem(
            f"{shown(value)} is not one {kind}; give its name ({', '.join(sorted(registry))}), or a mapping of "
            "the name to its hyperparameters"
        )
    ((name, parameters),) = given.items()
    below = () if isinstance(value, str) else (name,)
    if name not in registry:
        raise problem(unknown(kind, name, registry), *below)
    parameters = {} if parameters is None else parameters
    if not isinstance(parameters, dict) or not all(isinstance(key, str) for key in parameters):
        raise problem(f"{shown(parameters)} is not a mapping of hyperparameters, such as {{}}", name)
    part = registry[name].make
    fields_of_their_own = [key for key in parameters if key in part.reads]
    if fields_of_their_own:
        raise problems(
            [((name, key), f"is a field of its own; write it beside `{kind}`") for key in fields_of_their_own]
        )
    parameters = {key: plus_zero(given) for key, given in parameters.items()}
    kept, wrong = _checked(part, name, parameters, lambda given: build_part(given, registry))
    if wrong:
        raise problems([((name, *path), message) for path, message in wrong])
    return {name: json.loads(json.dumps(kept))} if kept else name


def unread(kind: str, value: Any, registry: Registry[None], given: dict[str, Any]) -> Problems:
    """Return what is wrong with fields that were given and that the optimizer or schedule does not read."""
    part = named(value, registry)
    invalid: Problems = []
    for field in given:
        readers = [name for name, other in registry.items() if field in other.make.reads]
        if part is not None and readers and part.name not in readers:
            value = list(given[field]) if isinstance(given[field], tuple) else given[field]
            message = f"{shown(value)} is not used: the {kind} {part.name} has no {field} (of {', '.join(readers)})"
            invalid.append(((field,), f"{message}; leave it out"))
    return invalid


def plus_zero(value: Any) -> Any:
    """Return zero for minus zero, which must not make another key."""
    return value + 0.0 if isinstance(value, float) else value


def _has_bool(value: Any) -> bool:
    return any(map(_has_bool, value)) if isinstance(value, (list, tuple)) else isinstance(value, bool)


@remembered
def resolved_methods(text: str, num_heads: int) -> dict[str, dict[str, Any]]:
    """Return methods as they are on networks with `num_heads` heads; raises the `problem` of one that does not fit."""
    resolved: dict[str, dict[str, Any]] = {}
    methods = build_methods(json.loads(text))
    mixing = [method.name for method in methods if method.mixes]
    for method in methods:
        if mixing and method.requires.single_images:
            mixes = f"{' and '.join(mixing)} {'mix' if len(mixing) > 1 else 'mixes'}"
            raise problem(
                f"needs inputs that show one image, and {mixes} images; leave one out", "methods", method.name
            )
        try:
            resolved[method.name] = method_parameters(method.resolve(num_heads))
        except ValueError as error:
            raise problem(str(error), "methods", method.name) from None
    plain: dict[str, dict[str, Any]] = json.loads(json.dumps(resolved))
    return plain


@remembered
def merged_requires(text: str) -> Requires:
    """Return what methods need of a run, merged."""
    return Objective(build_methods(json.loads(text)), 1).requires


def copied(methods: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return a copy of methods that were kept for several configurations."""
    return {name: dict(parameters) for name, parameters in methods.items()}
