"""Rows to put into a database under test."""

from __future__ import annotations

import zlib
from base64 import b64encode
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import text

from orchestrator.database import AttemptFacts, Database
from trainer.results import EpochResult, Evaluation, Metrics, Outcomes


def trials_of(count: int, *, epochs: int = 3, start: int = 0) -> list[tuple[str, dict[str, Any], str]]:
    """Trials that differ in their seed, as `save_grid` takes them."""
    return [
        (f"{seed:064x}", {"network": "resnet18", "methods": {}, "epochs": epochs, "seed": seed}, f"resnet18/seed{seed}")
        for seed in range(start, start + count)
    ]


def config(network: str, method: str, seed: int, epochs: int = 4) -> dict[str, Any]:
    """Return the configuration of a trial with one method as the database keeps it."""
    methods = {} if method == "baseline" else {method: {}}
    return {"network": network, "methods": methods, "epochs": epochs, "seed": seed, "dataset": "digits"}


def save(database: Database, count: int = 1, *, grid: str = "table1", epochs: int = 3, start: int = 0) -> list[str]:
    """Save a grid of that many trials and return their keys."""
    trials = trials_of(count, epochs=epochs, start=start)
    database.save_grid(grid, f"grids/{grid}.yaml", f"name: {grid}\n", {"tables": [1]}, trials)
    return [key for key, _, _ in trials]


def start(database: Database, key: str, *, purpose: str = "train", at: datetime | None = None, **facts: Any) -> int:
    """Start an attempt on an ordinary device."""
    where = AttemptFacts(
        *("node1", "cuda:0 (H200)", "GPU-1", 4711, "/logs/1.log"),
        {"commit": "abc", "dirty": False, "versions": {"torch": "2.11"}},
    )
    return database.start_attempt(key, replace(where, **facts), purpose=purpose, at=at)


def result(
    epoch: int,
    *,
    error: float = 25.0,
    restored: bool = False,
    heads: int = 1,
    own: dict[str, float] | None = None,
    outcomes: Outcomes | None = None,
    **changes: Any,
) -> EpochResult:
    """An epoch with the main classifier and some heads, each half a point worse than the one before.

    `own` are the values of own metrics, equal for all classifiers; `outcomes` those of the main one.
    """
    classifiers = ["main", *(f"head{number}" for number in range(1, heads + 1))]
    evaluations = [
        Evaluation(
            0,
            name,
            Metrics(error + rank / 2, 5.0, 0.9, 3.5, 60.0),
            images=10_000,
            own_metrics=own or {},
            outcomes=outcomes if name == "main" else None,
        )
        for rank, name in enumerate(classifiers)
    ]
    values = {
        "learning_rate": 0.1,
        "train_seconds": 2.0,
        "eval_seconds": 0.5,
        "data_seconds": 0.1,
        "images": 50_000,
        "losses": {"cross_entropy": 1.5},
        "evaluations": evaluations,
        "parameters": 11_000_000,
        "peak_memory_bytes": 2**33,
    }
    return EpochResult(epoch=epoch, restored=restored, **{**values, **changes})


def outcomes(error: float = 25.0, images: int = 10_000, *, probabilities: bool = False) -> Outcomes:
    """Return outcomes whose last images are wrong, as many as the error says; all probabilities are zero."""
    right = round(images * (1 - error / 100))
    bits = int("1" * right + "0" * (-(-images // 8) * 8 - right), 2).to_bytes(-(-images // 8))
    more = (bytes(4 * images), bytes(4 * images)) if probabilities else ()
    return Outcomes("1a" * 32, *(b64encode(part).decode() for part in (bits, *map(zlib.compress, more))))


def accepted(database: Database, key: str) -> dict[int, int]:
    """The attempt number behind every accepted epoch of a trial."""
    query = text(
        "SELECT e.epoch, a.number FROM epochs e JOIN attempts a ON a.id = e.attempt_id "
        "JOIN trials t ON t.id = e.trial_id WHERE t.key = :key AND e.accepted = 1"
    )
    with database.engine.connect() as connection:
        rows = [tuple(row) for row in connection.execute(query, {"key": key})]
    assert len(rows) == len(dict(rows)), "an epoch is accepted twice"
    return dict(rows)


def count(database: Database, table: str) -> int:
    """Return the number of rows of a table."""
    with database.engine.connect() as connection:
        return connection.scalar(text(f"SELECT count(*) FROM {table}"))
