"""Parse declared tables: every short form that a file may use becomes the full one, and every problem is named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from orchestrator.tables.schema import COLUMNS, SOURCES, SPECIAL, ColumnSpec, Declaration, RowSpec, TableSpec
from trainer.problems import Problems, plain_problems, shown, unknown

Spec = TypeVar("Spec", bound=Declaration)


def parse_table(
    written: Mapping[str, Any], fields: Iterable[str] | None = None, metrics: Iterable[str] = ()
) -> tuple[TableSpec | None, Problems]:
    """Return a table from its YAML, with every problem: the path of the key and a sentence.

    `fields` are those of a configuration (None for a table that was checked before), `metrics` the names of users' own
    metrics. The table is None if there is any problem.
    """
    wrong: Problems = []
    whole = dict(written)
    columns = whole.get("columns")
    metrics = [*COLUMNS, *SPECIAL, *metrics]
    if "columns" in whole:
        whole["columns"] = parse_columns(columns, metrics, wrong)
    else:
        wrong.append((("columns",), "is missing; list the metrics, such as [top1, ece]"))
    if isinstance(whole.get("groups"), str | list):
        whole["groups"] = {"fields": whole["groups"]}
    if isinstance(whole.get("bold"), str):
        whole["bold"] = {"rule": whole["bold"]}
    if whole.get("reference") is not None:
        whole["reference"] = _reference(whole["reference"], fields, wrong)
    if isinstance(whole.get("stub"), str):
        whole["stub"] = [whole["stub"]]
    whole.pop("source", None)
    parse_rows(whole, wrong)
    if fields is not None:
        wrong += unknown_fields(whole, ("groups", "over", "across", "rows"), list(fields))
    return checked(TableSpec, whole, [name for name in TableSpec.model_fields if name != "source"], wrong)


def checked(
    spec: type[Spec], whole: Mapping[str, Any], names: Iterable[str], wrong: Problems
) -> tuple[Spec | None, Problems]:
    """Return a declaration of its keys in full, None if there is any problem, and the problems with those before.

    `names` are the keys that a file may use. A problem below a path in `wrong` is not said again.
    """
    try:
        made = spec(**whole)
    except ValidationError as error:
        for path, what in plain_problems(error, "key", names):
            # The path of a union names its member as well.
            inner = tuple(part for part in path if not part.startswith(("tuple[", "function-", "constrained-")))
            if not any(inner[: len(known)] == known for known, _ in wrong):
                wrong.append((inner, what))
        return None, wrong
    except TypeError:
        return None, [*wrong, ((), "has a key that is no text")]
    return (None if wrong else made), wrong


def parse_columns(written: Any, metrics: list[str], wrong: Problems) -> list[Any]:
    """Return the columns of a list in full; problems are added to `wrong`, below the key `columns`."""
    if not isinstance(written, list) or not written:
        wrong.append((("columns",), f"{shown(written)} is not a list of metrics, such as [top1, ece]"))
        return [{"metric": "top1"}]
    columns = []
    for place, column in enumerate(written):
        path = ("columns", str(place))
        options: Any = {}
        if isinstance(column, dict) and len(column) == 1:
            [(column, options)] = column.items()
            options = {} if options is None else options
        if not isinstance(column, str) or not isinstance(options, dict):
            what = f"{shown(column)} is not a column; write a metric, or {{top1: {{digits: 1}}}}"
            wrong.append((path, what))
            continue
        if column not in metrics:
            wrong.append((path, unknown("metric", column, metrics)))
            continue
        try:
            columns.append(ColumnSpec(metric=column, **options))
        except ValidationError as error:
            names = [name for name in ColumnSpec.model_fields if name != "metric"]
            wrong += [((*path, column, *below), what) for below, what in plain_problems(error, "option", names)]
        except TypeError:
            wrong.append((path, f"{shown(options)} are not the options of a column"))
    return columns or [{"metric": "top1"}]


def _reference(written: Any, fields: Iterable[str] | None, wrong: Problems) -> list[Any]:
    """Return references in their full form; the fields of a recipe are those of a configuration, and `selection`."""
    listed = written if isinstance(written, list) else [written]
    whole = [{"file": one} if isinstance(one, str) else one for one in listed]
    allowed = [*fields, "selection"] if fields is not None else []
    for place, one in enumerate(whole):
        path = ("reference", *([str(place)] if isinstance(written, list) else []))
        recipe = one.get("recipe") if isinstance(one, dict) else None
        for name in recipe if isinstance(recipe, dict) and allowed else ():
            if name not in allowed:
                wrong.append(((*path, "recipe", str(name)), unknown("field", name, allowed)))
    return whole


def parse_rows(whole: dict[str, Any], wrong: Problems) -> None:
    """Bring the rows into their full form: fields, an explicit list, or a source."""
    rows = whole.get("rows")
    if isinstance(rows, str):
        rows = [rows]
    if rows is None:
        wrong.append((("rows",), "is missing; give a field, a list of fields, or a list of rows"))
        rows = []
    elif not isinstance(rows, list) or not rows:
        wrong.append((("rows",), f"{shown(rows)} is not a field, a list of fields, or a list of rows"))
        rows = []
    if len(rows) == 1 and rows[0] in SOURCES:
        whole["source"], rows = rows[0], []
    kinds = {type(row) for row in rows}
    if kinds and kinds not in ({str}, {dict}):
        wrong.append(
            (("rows",), "mixes fields and rows; write either names of fields, or rows such as {methods: pskd}")
        )
        rows = []
    if kinds == {dict}:
        rows = [_row(row, place, wrong) for place, row in enumerate(rows)]
    whole["rows"] = tuple(rows)


def _row(row: dict[str, Any], place: int, wrong: Problems) -> RowSpec:
    path = ("rows", str(place))
    own = {name: row[name] for name in ("key", "label", "alone") if row.get(name) is not None}
    shared = {name: each for name, each in row.items() if name not in ("key", "label", "alone", "first", "note")}
    alternatives = row.get("first", [{}])
    if not isinstance(alternatives, list) or not all(isinstance(each, dict) for each in alternatives):
        wrong.append(((*path, "first"), f"{shown(alternatives)} is not a list of choices, such as [{{heads: none}}]"))
        alternatives = [{}]
    choices, notes = [], []
    for alternative in alternatives:
        choice = shared | alternative
        notes.append(str(choice.pop("note", None) or row.get("note") or ""))
        choices.append(choice)
    if not all(choices):
        wrong.append((path, "names no field; write what its trials have, such as {methods: pskd}"))
    try:
        return RowSpec(choices=tuple(choices), notes=tuple(notes), **own)
    except ValidationError as error:
        wrong += [((*path, *below), what) for below, what in plain_problems(error, "key", RowSpec.model_fields)]
        return RowSpec(choices=tuple(choices))


def unknown_fields(whole: Mapping[str, Any], listing: Iterable[str], allowed: list[str]) -> Problems:
    """Return the names that are no field of a configuration, wherever a declaration names one.

    `listing` are the keys whose value is a field, a list of fields, or a list of rows.
    """
    named: list[tuple[tuple[str, ...], Any]] = []
    for key in ("where", "order", "prefer"):
        if isinstance(fields := whole.get(key), dict):
            named += [((key, str(name)), name) for name in fields]
    for key in listing:
        listed = whole.get(key)
        listed = listed.get("fields") if isinstance(listed, dict) else listed
        for place, one in enumerate(listed if isinstance(listed, list | tuple) else [listed]):
            if isinstance(one, RowSpec):
                named += [((key, str(place), name), name) for choice in one.choices for name in choice]
            elif one is not None:
                named.append(((key,), one))
    wrong: Problems = []
    for path, name in named:
        base, dot, _ = str(name).partition(".")
        if base not in allowed:
            wrong.append((path, unknown("field", base, allowed)))
        elif dot and base not in ("methods", "optimizer", "schedule"):
            wrong.append((path, f"{base} has no parts; only methods, optimizer and schedule have (methods.pskd.alpha)"))
    return list(dict.fromkeys(wrong))
