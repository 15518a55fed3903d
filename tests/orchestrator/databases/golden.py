"""Writes `v<version>.sqlite`, the database that later versions must still open.

Run `python -m tests.orchestrator.databases.golden --write` once, when a version is released; a file that exists is
never written again.
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
from pathlib import Path

from orchestrator.database import PartRow, driver_lock, open_database
from orchestrator.database.schema import VERSION
from orchestrator.failures import Failure
from tests.orchestrator.databases.samples import outcomes, result, save, start, trials_of

FOLDER = Path(__file__).parent
PARTS = [
    PartRow("network", "resnet18", 1, "ResNet-18", {"stages": 4}, "5e" * 32, "trainer/networks/resnet.py:80"),
    PartRow("metric", "brier", 2, "Brier score", {"direction": "lower", "digits": 3, "unit": ""}, "b1" * 32, "m.py:7"),
]


def write(path: Path) -> None:
    """A grid of five trials: two done (one of them resumed), one failed twice, one interrupted, one new."""
    with open_database(path, create=True) as database, driver_lock(database, grid="table1"):
        done, resumed, failed, interrupted, _ = save(database, 5)
        for key in (done, resumed):
            first = start(database, key)
            database.record_parts(PARTS, first)
            for epoch in range(2):
                error = 30.0 - 5 * epoch
                measured = {"own": {"brier": 0.25}, "outcomes": outcomes(error, probabilities=key == done)}
                database.record_epoch(first, result(epoch, error=error, heads=3, **measured), "exclusive")
            if key == resumed:
                database.finish_attempt(first, "interrupted", trial_state="pending")
                first = start(database, key)
                database.record_epoch(first, result(0, restored=True), "exclusive")
                database.record_epoch(first, result(1, error=24.5, heads=3, outcomes=outcomes(24.5)), "packed")
            last = outcomes(26.0, probabilities=key == done)
            database.record_epoch(first, result(2, error=26.0, heads=3, outcomes=last), "exclusive")
            database.finish_attempt(first, "done", trial_state="done")
        timing = start(database, done, purpose="time")
        database.record_epoch(timing, result(0, error=99.0), "exclusive")
        database.finish_attempt(timing, "done")
        for number in range(2):
            failure = Failure("code", f"RuntimeError: {number}\ntraceback", "ab12")
            database.finish_attempt(start(database, failed), "failed", failure=failure, trial_state="failed")
            if number == 0:
                database.retry([failed])
        attempt = start(database, interrupted)
        database.record_epoch(attempt, result(0), "foreign load")
        database.finish_attempt(attempt, "interrupted", trial_state="pending")
        database.save_grid("table3", "grids/table3.yaml", "name: table3\n", {"tables": [3]}, trials_of(2))


def main() -> None:
    target = FOLDER / f"v{VERSION}.sqlite"
    if sys.argv[1:] != ["--write"]:
        sys.exit(f"usage: python -m {__spec__.name} --write")
    if target.exists():
        sys.exit(f"{target} is there already; a released version's file is not written again")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.db"
        write(path)
        # Small pages and no journal: the file lives in the repository.
        connection = sqlite3.connect(path, isolation_level=None)
        for statement in ("PRAGMA journal_mode = DELETE", "PRAGMA page_size = 512", f"VACUUM INTO '{target}'"):
            connection.execute(statement).fetchall()
        connection.close()
    print(f"wrote {target}")


if __name__ == "__main__":
    main()
