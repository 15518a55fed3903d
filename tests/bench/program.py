"""The program around the trainer: how fast it starts, plans, schedules, records and reports."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.training import row

ROOT = Path(__file__).resolve().parent.parent.parent
ENTRY = "from orchestrator.cli import main; main()"


def orchestrate(*arguments: str) -> list[str]:
    """The command line, whether or not the program is installed."""
    return [sys.executable, "-c", ENTRY, *arguments]


def seconds_of(command: Sequence[str], times: int, **kwargs: object) -> float:
    """Median wall seconds of a whole process."""
    measured = []
    for _ in range(times):
        started = time.perf_counter()
        subprocess.run(
            command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)}, **kwargs
        )
        measured.append(time.perf_counter() - started)
    return median(measured)


def starting(rounds: int) -> Iterator[dict[str, object]]:
    """Help, status and plan, as whole processes."""
    with tempfile.TemporaryDirectory() as folder:
        grid = Path(folder) / "grid.yaml"
        grid.write_text(
            "name: bench\nfixed: {dataset: cifar100, subset: 1}\n"
            f"grid: {{network: [resnet18], methods: [pskd], seed: {list(range(28))}}}\nresources: {{gpu: 0, cpu: 1}}\n"
        )
        database = Path(folder) / "results.db"
        _database_with(database, trials=28, epochs=10)
        yield row("`orchestrate --help`, s", seconds_of(orchestrate("--help"), rounds), "<=", 0.3)
        yield row(
            "`orchestrate status`, s", seconds_of(orchestrate("status", "--db", str(database)), rounds), "<=", 0.6
        )
        plan = orchestrate("plan", str(grid), "--db", str(database))
        yield row("`orchestrate plan` of 28 trials, s", seconds_of(plan, rounds), "<=", 0.8)


def planning(sizes: Sequence[int]) -> Iterator[dict[str, object]]:
    """`orchestrate plan` of large grids: seconds and peak memory of the whole process."""
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            grid = Path(folder) / "grid.yaml"
            rates = [round(0.001 * (1 + i), 6) for i in range(10)]
            grid.write_text(
                f"name: large\ngrid:\n  learning_rate: {rates}\n  methods: {{powerset: [byot, dmfl, pskd]}}\n"
                f"  weight_decay: [1e-4, 5e-4]\n  seed: {list(range(size // 160))}\n"
            )
            code = (
                "import re, sys\nfrom pathlib import Path\n"
                "try:\n    from orchestrator.cli import main; main()\n"
                # Not ru_maxrss: that starts with what this process had when it forked.
                "finally:\n    peak = re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())\n"
                "    print(int(peak[1]) * 1024, file=sys.stderr)"
            )
            command = [sys.executable, "-c", code, "plan", str(grid), "--db", str(Path(folder) / "none.db")]
            started = time.perf_counter()
            done = subprocess.run(
                command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )  # fmt: skip
            seconds = time.perf_counter() - started
            trials = size // 160 * 160
            bound = {"sense": "<=", "bound": 10.0} if trials >= 100_000 else {}
            yield row(f"`orchestrate plan` of {trials:,} trials, s", seconds, **bound)
            if trials >= 100_000:
                yield row(
                    f"`orchestrate plan` of {trials:,} trials, GiB", int(done.stderr.split()[-1]) / 2**30, "<=", 1.0
                )


def recording(sizes: Sequence[int]) -> Iterator[dict[str, object]]:
    """Committed epochs per second into SQLite on the local disk, five classifiers each."""
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            rate = _database_with(Path(folder) / "results.db", trials=4, epochs=size // 4)
            yield row(f"committed epochs per second, {size:,} epochs", rate, ">=", 2000.0)


def reporting(sizes: Sequence[int]) -> Iterator[dict[str, object]]:
    """`orchestrate report` on databases of many epoch rows."""
    from tests.reports.big_database import fill

    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            database = Path(folder) / "results.db"
            fill(database, -(-size // 300), 300)
            command = orchestrate("report", "--db", str(database), "--out", str(Path(folder) / "report"))
            bound = {"sense": "<=", "bound": 5.0} if size >= 1_000_000 else {}
            yield row(f"`orchestrate report` on {size:,} epoch rows, s", seconds_of(command, 1), **bound)


def scheduling(trials: int) -> Iterator[dict[str, object]]:
    """Trivial trials through `run_trials`, database included, against plain Ray Tune with the same three reports."""
    with tempfile.TemporaryDirectory() as folder:
        seconds = {}
        for case in ("ours", "reuse", "fresh"):
            count = trials if case != "fresh" else max(4, trials // 8)
            command = [sys.executable, "-m", "tests.bench.trivial", case, str(count), str(Path(folder) / case)]
            done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
            if done.returncode:
                raise RuntimeError(f"{' '.join(command)}:\n{done.stderr[-3000:]}")
            seconds[case] = json.loads(done.stdout.splitlines()[-1])["seconds"] / count
        yield row(
            f"{trials} trivial trials against Tune with actor reuse", seconds["ours"] / seconds["reuse"], "<=", 1.5
        )
        yield row(f"{trials} trivial trials against Tune as it comes", seconds["ours"] / seconds["fresh"], "<=", 0.15)
        yield row("milliseconds per trivial trial", 1000 * seconds["ours"])


def recorded_sizes(*, trials: int, epochs: int) -> dict[str, float]:
    """Bytes that an SQLite database grows by a trial, by an attempt and by an epoch of five classifiers."""
    from orchestrator.provenance import code_provenance

    environment = {**code_provenance(), "diff": None}
    sizes: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.db"
        _database_with(
            path, trials=trials, epochs=epochs, environment=environment,
            after=lambda what: sizes.update({what: _file_size(path)}),
        )  # fmt: skip
    return {
        "empty": sizes["empty"],
        "trial": (sizes["trials"] - sizes["empty"]) / trials,
        "attempt": (sizes["attempts"] - sizes["trials"]) / trials,
        "epoch": (sizes["epochs"] - sizes["attempts"]) / (trials * epochs),
    }


def _file_size(path: Path) -> int:
    """Return the size of a database file in bytes, once nothing is left in its journal."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path.stat().st_size


def _database_with(
    path: Path,
    *,
    trials: int,
    epochs: int,
    environment: Mapping[str, Any] = {},
    after: Callable[[str], None] = lambda what: None,
) -> float:
    """Record epochs of trials as a run does; returns committed epochs per second.

    `after` hears when the tables, the trials, the attempts and the epochs are there.
    """
    from orchestrator.database import AttemptFacts, driver_lock, open_database
    from trainer.config import TrainConfig
    from trainer.results import EpochResult, Evaluation, Metrics

    metrics = Metrics(30.0, 10.0, 1.0, 5.0, 60.0)
    classifiers = ("main", "head1", "head2", "head3", "ensemble")
    evaluations = [Evaluation(0, name, metrics, 10_000) for name in classifiers]
    losses = {"cross_entropy": 1.0, "byot/cross_entropy": 2.0, "byot/distillation": 3.0}
    configs = [TrainConfig(methods={"pskd": {}}, subset=1, seed=seed) for seed in range(trials)]
    with open_database(path, create=True) as database, driver_lock(database, grid="bench") as driver:
        after("empty")
        rows = [(each.key(), each.model_dump(mode="json"), f"seed{each.seed}") for each in configs]
        database.save_grid("bench", "bench.yaml", "", {}, rows)
        database.claim([key for key, _, _ in rows], driver)
        after("trials")
        facts = AttemptFacts(environment=dict(environment))
        attempts = [database.start_attempt(key, facts) for key, _, _ in rows]
        after("attempts")
        started = time.perf_counter()
        for epoch in range(epochs):
            for attempt in attempts:
                result = EpochResult(epoch, 0.1, 1.0, 0.5, 0.01, 50_000, losses, evaluations, 11_000_000)
                database.record_epoch(attempt, result, "exclusive")
        seconds = time.perf_counter() - started
        after("epochs")
        return trials * epochs / seconds
