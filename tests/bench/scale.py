"""Many stub trials through the whole program: `python -m tests.bench.scale --trials 2000`.

Grid file, plan, claims, Ray Tune, worker processes, messages, database and display are the real ones; only the
training is replaced by a pause and an epoch's worth of made-up numbers. Meanwhile the driver's processor time and
memory and the size of the database are sampled, so that a cost which grows with the number of trials shows.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from orchestrator.provenance import code_provenance
from orchestrator.timing import device_facts
from tests.bench.program import recorded_sizes
from tests.orchestrator.runs import Run, Workplace, ended

# Appended to the trainer of the copy that runs.
STUB = '''

def train(config, report, **_):
    """Stand in for training: a pause, and an epoch of five classifiers."""
    from trainer.results import Evaluation, Metrics

    metrics = Metrics(30.0, 10.0, 1.0, 5.0, 60.0)
    classifiers = ("main", "head1", "head2", "head3", "ensemble")
    evaluations = [Evaluation(0, name, metrics, 10_000) for name in classifiers]
    losses = {"cross_entropy": 1.0, "byot/cross_entropy": 2.0, "byot/distillation": 3.0}
    for epoch in range(config.epochs):
        time.sleep(PAUSE)
        result = EpochResult(epoch, 0.1, PAUSE, 0.5, 0.01, 50_000, losses, evaluations, 11_000_000)
        report(result)
    return result
'''
EVERY_SECONDS = 1.0
WINDOWS = 10
# What is computed from the figures: the paper's setting, 300 epochs of half a minute, on a large cluster.
PAPER = {"trials": 10_000, "gpus": 1_000, "epochs": 300, "seconds_per_epoch": 30.0}


@dataclass(frozen=True)
class Sample:
    """Figures of one moment of a run; processor seconds count from the start of a process, sizes are in bytes."""

    seconds: float
    trials_done: int
    epochs: int
    driver_cpu: float
    driver_memory: int
    ray_cpu: float
    workers: int
    database: int
    load: float


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scale", description=__doc__)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=3, help="of each trial")
    parser.add_argument("--pause", type=float, default=0.05, help="seconds of an epoch")
    parser.add_argument("--slots", type=int, default=4, help="trials at once")
    parser.add_argument("--fresh", type=int, default=60, help="trials that get a process each, as long ones do")
    parser.add_argument("--long", type=int, default=500, help="epochs of the trials that tell what an epoch costs")
    parser.add_argument("--out", type=Path, default=Path("bench/scale.json"))
    options = parser.parse_args()

    parts = {
        "many": run("many", options, trials=options.trials, epochs=options.epochs),
        "long": run("long", options, trials=options.slots, epochs=options.long),
        "fresh": run("fresh", options, trials=options.fresh, epochs=options.epochs, fresh=True),
    }
    sizes = recorded_sizes(trials=200, epochs=100)
    report = {
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"platform": platform.platform(), "cores": os.cpu_count()},
        "device": device_facts("cpu"),
        "program": code_provenance(),
        "options": {name: str(value) for name, value in vars(options).items()},
        "parts": parts,
        "database_bytes": sizes,
        "projection": projection(parts, sizes),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n")
    print(f"wrote {options.out}")


def run(name: str, options: argparse.Namespace, *, trials: int, epochs: int, fresh: bool = False) -> dict[str, Any]:
    """Run a grid of stub trials and sample it."""
    # A short path: Ray's sockets lie below it.
    folder = Path(tempfile.mkdtemp(prefix="scale-"))
    try:
        place = Workplace(folder)
        source = place.code / "trainer/train.py"
        source.write_text(source.read_text() + STUB.replace("PAUSE", repr(options.pause)))
        # Ten thousand images per epoch are a long trial to the scheduler.
        fixed = {"dataset": "synthetic", "subset": None} if fresh else {}
        share = max(0.01, round((os.cpu_count() or 1) / options.slots, 4))
        grid = place.grid(
            name,
            {"seed": list(range(trials))},
            epochs=epochs,
            fixed=fixed,
            resources={"gpu": 0, "cpu": share if share < 1 else int(share)},
        )
        print(f"{name}: {trials} trials of {epochs} epochs, {options.slots} at once", flush=True)
        with ended(place.start("run", grid, "--no-dashboard", "--no-canary")) as started:
            samples = watch(place, started)
            if started.code():
                raise RuntimeError(started.text())
        summary = summarize(samples, trials, epochs)
        for window in summary["windows"]:
            print("  " + ", ".join(f"{key} {value:.4g}" for key, value in window.items()), flush=True)
        return summary | {"samples": [asdict(sample) for sample in thinned(samples)]}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def watch(place: Workplace, started: Run) -> list[Sample]:
    """Look at a run every second until it ends."""
    began, samples = time.monotonic(), []
    driver = psutil.Process(started.pid)
    while not started.over():
        with suppress(psutil.Error):
            samples.append(look(place, driver, time.monotonic() - began))
        time.sleep(EVERY_SECONDS)
    return samples


def look(place: Workplace, driver: psutil.Process, seconds: float) -> Sample:
    with driver.oneshot():
        times, memory = driver.cpu_times(), driver.memory_info().rss
    ray_cpu, workers = 0.0, 0
    for process in driver.children():
        with suppress(psutil.Error):
            if process.name() in ("gcs_server", "raylet"):
                spent = process.cpu_times()
                ray_cpu += spent.user + spent.system
                workers += len(process.children())
    counts = place.ask("SELECT (SELECT count(*) FROM trials WHERE state = 'done'), (SELECT max(id) FROM epochs)")
    done, epochs = counts[0] if counts else (0, 0)
    size = sum(path.stat().st_size for path in place.folder.glob("results.db*") if path.is_file())
    return Sample(
        seconds, done, epochs or 0, times.user + times.system, memory, ray_cpu, workers, size, os.getloadavg()[0]
    )


def summarize(samples: list[Sample], trials: int, epochs: int) -> dict[str, Any]:
    """Return what a trial costs in each part of a run, the parts being of equal numbers of epochs."""
    # After the last trial Ray ends.
    samples = [sample for sample in samples if sample.trials_done < trials]
    ready = next(sample for sample in samples if sample.epochs)
    last = samples[-1]
    windows = []
    for number in range(WINDOWS):
        low, high = (ready.epochs + (last.epochs - ready.epochs) * part / WINDOWS for part in (number, number + 1))
        part = [sample for sample in samples if low <= sample.epochs <= high]
        if len(part) < 2 or part[-1].epochs == part[0].epochs:
            continue
        first, final = part[0], part[-1]
        messages = final.epochs - first.epochs
        windows.append(
            {
                "trials_done": final.trials_done,
                "epochs_per_second": messages / (final.seconds - first.seconds),
                "driver_ms_per_epoch": 1000 * (final.driver_cpu - first.driver_cpu) / messages,
                "driver_share_of_a_core": (final.driver_cpu - first.driver_cpu) / (final.seconds - first.seconds),
                "ray_ms_per_epoch": 1000 * (final.ray_cpu - first.ray_cpu) / messages,
                "driver_mb": final.driver_memory / 1e6,
                "database_mb": final.database / 1e6,
                "load": median(sample.load for sample in part),
            }
        )
    spent = last.driver_cpu - ready.driver_cpu
    return {
        "trials": trials,
        "epochs": epochs,
        "seconds": last.seconds - ready.seconds,
        "driver_cpu_seconds_before_first_epoch": ready.driver_cpu,
        "driver_ms_per_epoch": 1000 * spent / (last.epochs - ready.epochs),
        "driver_mb": max(sample.driver_memory for sample in samples) / 1e6,
        "workers": max(sample.workers for sample in samples),
        "load": median(sample.load for sample in samples),
        "windows": windows,
    }


def projection(parts: dict[str, dict[str, Any]], sizes: dict[str, float]) -> dict[str, float]:
    """The paper's setting on a large cluster, from what was measured."""
    epoch_ms = parts["long"]["driver_ms_per_epoch"]
    # What a trial costs beside its epochs.
    trial_ms = (parts["fresh"]["driver_ms_per_epoch"] - epoch_ms) * parts["fresh"]["epochs"]
    trials, gpus, epochs, seconds = PAPER["trials"], PAPER["gpus"], PAPER["epochs"], PAPER["seconds_per_epoch"]
    messages = gpus / seconds
    starts = gpus / (seconds * epochs)
    return PAPER | {
        "hours": trials / gpus * epochs * seconds / 3600,
        "epochs_per_second": messages,
        "trials_per_second": starts,
        "driver_ms_per_epoch": epoch_ms,
        "driver_ms_per_trial": trial_ms,
        "driver_share_of_a_core": (messages * epoch_ms + starts * trial_ms) / 1000,
        "database_gb": trials * (sizes["trial"] + sizes["attempt"] + epochs * sizes["epoch"]) / 1e9,
    }


def thinned(samples: list[Sample]) -> list[Sample]:
    """Return at most a hundred of the samples, for the file."""
    step = -(-len(samples) // 100)
    return samples[::step]


if __name__ == "__main__":
    main()
