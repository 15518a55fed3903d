"""Measure what the driver itself costs while a grid runs, live table included."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests.bench.program import ROOT, orchestrate
from tests.bench.training import row

GRID = """
name: driving
fixed: {dataset: digits, network: resnet18, width: 16, epochs: 1000, batch_size: 32, precision: float32}
grid: {methods: [baseline, pskd+byot+dmfl]}
resources: {gpu: 0, cpu: 1}
"""


def driving(seconds: float) -> Iterator[dict[str, object]]:
    """The driver's share of a core in a run in a terminal, from the second recorded epoch on."""
    with tempfile.TemporaryDirectory() as folder:
        grid, database = Path(folder) / "grid.yaml", Path(folder) / "results.db"
        grid.write_text(GRID)
        outside, inside = pty.openpty()
        command = orchestrate("run", str(grid), "--db", str(database), "--no-dashboard", "--no-canary")
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": "120"}
        run = subprocess.Popen(
            command, stdin=inside, stdout=inside, stderr=inside, cwd=folder, env=environment, start_new_session=True
        )
        os.close(inside)
        drain = threading.Thread(target=_read_all, args=(outside,), daemon=True)
        drain.start()
        try:
            while _epochs(database) < 2:
                if run.poll() is not None:
                    raise RuntimeError(f"the run ended with exit code {run.returncode}")
                time.sleep(0.5)
            process = psutil.Process(run.pid)
            before, first, began = sum(process.cpu_times()[:2]), _epochs(database), time.perf_counter()
            time.sleep(seconds)
            spent = sum(process.cpu_times()[:2]) - before
            taken, recorded = time.perf_counter() - began, _epochs(database) - first
        finally:
            run.terminate()
            run.wait(60)
    yield row("driver's share of a core in a run of two trials", spent / taken, "<=", 0.05)
    yield row("seconds per epoch of these trials", 2 * taken / max(recorded, 1))


def _epochs(database: Path) -> int:
    import sqlite3

    if not database.exists():
        return 0
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        try:
            return int(connection.execute("SELECT count(*) FROM epochs").fetchone()[0])
        except sqlite3.OperationalError:
            return 0


def _read_all(outside: int) -> None:
    try:
        while os.read(outside, 65536):
            pass
    except OSError:
        pass


if __name__ == "__main__":
    for found in driving(float(sys.argv[1]) if len(sys.argv) > 1 else 30.0):
        print(found["what"], found["value"])
