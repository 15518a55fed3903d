"""Fill an SQLite file with a million epochs and time a report on it: `python -m tests.reports.big_database FILE`."""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from orchestrator.database import open_database
from tests.reports.synthetic import ablation

NETWORKS = ("resnet18", "resnet50", "resnext50_32x4d")
NOW = str(datetime(2025, 1, 1))
# Trials that run at once: their epochs arrive in turns.
TOGETHER = 8
CLASSIFIERS = ("main", "head1", "head2", "head3", "ensemble")


def fill(path: Path, trials: int, epochs: int) -> None:
    """Trials of Table 1 with as many seeds as it takes, every epoch with one or five evaluations."""
    open_database(path, create=True).close()
    configs = [
        config.model_dump(mode="json") | {"epochs": epochs}
        for seed in range(-(-trials // 24))
        for network in NETWORKS
        for config in ablation([seed], network=network)
    ][:trials]
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        report = json.dumps({"tables": [1, 2], "figures": [2], "selection": "best_test"})
        insert(connection, "grids", [(1, "big", "big.yaml", "", report, NOW, NOW)])
        columns = "id, key, config, state, created, finished"
        rows = [(i, f"{i:064x}", json.dumps(config), "done", NOW, NOW) for i, config in enumerate(configs, 1)]
        insert(connection, f"trials ({columns})", rows)
        members = [
            (1, i, i, f"{c['network']}/{'+'.join(c['methods'])}/seed{c['seed']}") for i, c in enumerate(configs, 1)
        ]
        insert(connection, "grid_trials (grid_id, trial_id, position, name)", members)
        columns = "id, trial_id, number, purpose, environment, started, outcome, parameters"
        rows = [(i, i, 1, "train", "{}", NOW, "done", 13_011_152) for i in range(1, len(configs) + 1)]
        insert(connection, f"attempts ({columns})", rows)
        pending = _epochs(configs, epochs)
        while batch := list(islice(pending, 20_000)):
            columns = (
                "id, trial_id, attempt_id, epoch, accepted, learning_rate, train_seconds, eval_seconds, data_seconds"
            )
            insert(
                connection, f"epochs ({columns}, images, losses, timing_quality, recorded)", [row for row, _ in batch]
            )
            columns = "epoch_id, network, classifier, split, images, top1_error, top5_error, nll, ece, aurc"
            insert(connection, f"evaluations ({columns})", [row for _, rows in batch for row in rows])


def insert(connection: sqlite3.Connection, into: str, rows: list[tuple]) -> None:
    connection.executemany(f"INSERT INTO {into} VALUES ({', '.join('?' * len(rows[0]))})", rows)


def _epochs(configs: list[dict], epochs: int) -> Iterator[tuple[tuple, list[tuple]]]:
    noise = random.Random(0)
    losses = json.dumps({"cross_entropy": 1.23456789, "byot/cross_entropy": 0.4325678, "dmfl/features": 0.1234567})
    number = 0
    for start in range(0, len(configs), TOGETHER):
        for epoch in range(epochs):
            for trial in range(start, min(start + TOGETHER, len(configs))):
                number += 1
                seconds = (20 + noise.random(), 2.0, 0.5)
                row = (number, trial + 1, trial + 1, epoch, 1, 0.1, *seconds, 50_000, losses, "exclusive", NOW)
                error = 20 + 10 * noise.random()
                classifiers = CLASSIFIERS[: 5 if configs[trial]["heads"] != "none" else 1]
                metrics = (5.0 + noise.random(), 0.8 + noise.random(), 5.0 + noise.random(), 50.0 + noise.random())
                yield (
                    row,
                    [
                        (number, 0, name, "test", 10_000, round(error + place, 2), *metrics)
                        for place, name in enumerate(classifiers)
                    ],
                )


# In a process of its own, so that starting Python and loading every package counts.
MEASURE = """
import sys, time
began = time.perf_counter()
from pathlib import Path
from orchestrator.database import open_database
from reports import write_report
with open_database(sys.argv[1], readonly=True) as database:
    files = write_report(database, Path(sys.argv[2]))
print(f"{len(files)} files in {time.perf_counter() - began:.2f} s wall, {time.process_time():.2f} s of processor time")
"""


def main() -> None:
    path = Path(sys.argv[1])
    trials, epochs = (int(each) for each in [*sys.argv[2:4], "3336", "300"][:2])
    if not path.exists():
        fill(path, trials, epochs)
    with TemporaryDirectory() as out:
        for _ in range(3):
            subprocess.run([sys.executable, "-c", MEASURE, str(path), out], check=True)


if __name__ == "__main__":
    main()
