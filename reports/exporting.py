"""The database as tidy files: grids, trials, attempts, parts, epochs, losses and evaluations."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from orchestrator.database import queries
from orchestrator.database.export import statements
from orchestrator.tables.addresses import method_names
from reports.errors import ReportError
from reports.loading import chosen_grids

if TYPE_CHECKING:
    from orchestrator.database import Database

FORMATS = ("csv", "parquet")
_ROWS = 100_000
_TYPES = {int: "Int64", float: "float64", str: "str", bool: "boolean", bytes: "str", datetime: "datetime64[us]"}
# The trials' columns: what a key of `trainer.config.TrainConfig` holds when it is set; mappings and lists are
# JSON text, but `methods` reads `pskd+byot[blocks=[2, 3]]`, and `hyperparameters` has them as JSON. A test compares the
# two; what only another version knows has the type of its values.
TRIALS = {
    **dict.fromkeys(("key", "state"), "str"),
    "finished": "datetime64[us]",
    "dataset": "str",
    **dict.fromkeys(("subset", "validation"), "Int64"),
    "normalization": "str",
    "padding": "Int64",
    "padding_mode": "str",
    "flip": "boolean",
    **dict.fromkeys(("ood_dataset", "network", "peer"), "str"),
    **dict.fromkeys(("width", "stages"), "Int64"),
    **dict.fromkeys(("heads", "methods"), "str"),
    **dict.fromkeys(("epochs", "batch_size"), "Int64"),
    "optimizer": "str",
    **dict.fromkeys(("learning_rate", "warmup"), "float64"),
    **dict.fromkeys(("schedule", "milestones"), "str"),
    **dict.fromkeys(("gamma", "momentum"), "float64"),
    "nesterov": "boolean",
    "weight_decay": "float64",
    "precision": "str",
    "seed": "Int64",
    "hyperparameters": "str",
}


def export(database: Database, out: Path, format: str = "csv", grids: Sequence[str] | None = None) -> list[Path]:
    """Write a file each of grids, trials, attempts, their parts, accepted epochs, losses, evaluations and outcomes.

    One row per observation, joined by the trial's `key`, the `attempt` and the `epoch`, counted from 1; a
    configuration's fields are columns of the trials, and the grids' file says which trials each has, by name, in its
    order. With `grids` it is these grids and their trials alone. Returns the paths. Raises ReportError for an unknown
    format or grid and for a folder that cannot be written.
    """
    if format not in FORMATS:
        raise ReportError(f"unknown format {format!r}; allowed: {', '.join(FORMATS)}")
    written = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        grid_ids = _ids(database, grids)
        for name in statements():
            path = out / f"{name}.{format}"
            _write(path, format, frames(database, name, grid_ids))
            written.append(path)
    except OSError as error:
        raise ReportError(f"cannot write to {out}: {error.strerror or error}; choose another folder") from error
    return written


def _ids(database: Database, grids: Sequence[str] | None) -> list[int] | None:
    if grids is None:
        return None
    with database.reading() as connection:
        return [row.id for row in chosen_grids(connection, grids)]


def frames(database: Database, name: str, grid_ids: Sequence[int] | None = None) -> Iterator[pd.DataFrame]:
    """Yield the rows of one relation of the export in typed frames of bounded size, one at least.

    The rows are those of all grids, or of these and their trials.
    """
    with database.reading() as connection:
        statement = statements(grid_ids, queries.own_metrics(connection))[name]
        types = {column.name: _TYPES.get(column.type.python_type) for column in statement.selected_columns}
        yield from _frames(name, connection.execution_options(stream_results=True).execute(statement), types)


def _frames(name: str, rows: Any, types: dict[str, str | None]) -> Iterator[pd.DataFrame]:
    """Yield the rows in frames of bounded size and equal types; one frame at least, so every file has its heading."""
    if name == "trials":
        # All at once: only together do they tell which fields of other versions there are.
        trials = [_trial(row) for row in rows]
        names = dict.fromkeys([*TRIALS, *(name for trial in trials for name in trial)])
        yield pd.DataFrame({name: _column(name, [trial.get(name) for trial in trials]) for name in names})
        return
    if name == "losses":
        types = {"key": "str", "epoch": "Int64", "term": "str", "value": "float64"}
    empty = True
    for part in rows.partitions(_ROWS):
        empty = False
        if name == "outcomes":
            # Packed bits as hexadecimal text, which both formats have.
            part = [(*row[:-1], row.correct.hex()) for row in part]
        yield _frame(_losses(part) if name == "losses" else part, types)
    if empty:
        yield _frame([], types)


def _frame(rows: Iterable[Any], types: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame([tuple(row) for row in rows], columns=list(types)).astype(types)


def _column(name: str, values: list[Any]) -> pd.Series[Any]:
    """Return a column of the declared type; of a field that is not declared, of the type that its values have."""
    kind = TRIALS.get(name) or _kind(values)
    if kind == "str":
        values = [value if value is None else str(value) for value in values]
    try:
        return pd.Series(values, dtype=kind)
    except (TypeError, ValueError) as error:
        raise ReportError(f"a trial's {name} is no {kind} ({error}); mend that row with sqlite3") from error


def _kind(values: list[Any]) -> str:
    """Return the type that values have in common: 1.0 stays a float beside None, and none at all are text."""
    types = {type(value) for value in values if value is not None}
    if types == {bool}:
        return "boolean"
    if types == {int}:
        return "Int64"
    return "float64" if types and types <= {int, float} else "str"


def _losses(rows: Iterable[Any]) -> Iterator[tuple[str, int, str, float | None]]:
    for key, epoch, losses in rows:
        for term, value in losses.items():
            yield key, epoch, term, value


def _trial(row: Any) -> dict[str, Any]:
    config = {
        name: json.dumps(each, sort_keys=True) if isinstance(each, dict | list) else each
        for name, each in row.config.items()
        if name != "methods"
    }
    methods = row.config.get("methods", {})
    config |= {"methods": _combination(methods), "hyperparameters": json.dumps(methods, sort_keys=True)}
    return {"key": row.key, "state": row.state, "finished": row.finished, **config}


def _combination(methods: Mapping[str, Mapping[str, Any]]) -> str:
    """Return `pskd+byot[blocks=[2, 3]]` in the order of tables, or `baseline` for no method."""
    parts = []
    for name in method_names(methods):
        values = sorted(methods[name].items())
        given = ", ".join(f"{parameter}={json.dumps(value)}" for parameter, value in values)
        parts.append(f"{name}[{given}]" if given else name)
    return "+".join(parts) or "baseline"


def _write(path: Path, format: str, frames: Iterator[pd.DataFrame]) -> None:
    if format == "csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            for place, frame in enumerate(frames):
                frame.to_csv(file, index=False, header=place == 0, lineterminator="\n")
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer = None
    try:
        for frame in frames:
            table = pa.Table.from_pandas(frame, schema=writer.schema if writer else None, preserve_index=False)
            writer = writer or pq.ParquetWriter(path, table.schema)
            writer.write_table(table)
    finally:
        if writer:
            writer.close()
