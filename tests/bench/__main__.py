"""`make bench`: every speed that docs/how-fast.md promises, as one table and one JSON file; `gpu`: those of a GPU.

Figures are medians of interleaved rounds; nothing here is a test, because machines differ.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from orchestrator.provenance import code_provenance
from orchestrator.timing import device_facts
from tests.bench import driving, gpu, program, training

PARTS = (
    *("training", "evaluating", "outcomes", "methods", "operations", "sizes"),
    *("starting", "planning", "scheduling", "driving", "recording", "reporting"),
)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--images", type=int, default=1024, help="training images of an epoch; batches are of 128")
    parser.add_argument("--width", type=int, default=64, help="64 is the published ResNet-18")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=100, help="trivial trials through Ray")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the sizes of databases and grids")
    parser.add_argument("--out", type=Path, default=Path("bench/bench.json"))
    options = parser.parse_args()

    trained = (options.images, options.width, options.rounds)
    sizes = [round(size * options.scale) for size in (10_000, 100_000, 1_000_000)]
    parts: dict[str, Callable[[], Iterator[dict[str, object]]]] = {
        "training": lambda: training.alone(training.loops, *trained),
        "evaluating": lambda: training.alone(training.evaluation, *trained),
        "outcomes": lambda: training.alone(training.outcomes, *trained),
        "methods": lambda: training.alone(training.methods, *trained),
        "operations": lambda: training.alone(training.operations, *trained),
        "sizes": lambda: training.alone(training.sizes, *trained),
        "starting": lambda: program.starting(max(3, options.rounds)),
        "planning": lambda: program.planning([sizes[0], sizes[1] // 2, sizes[1]]),
        "scheduling": lambda: program.scheduling(options.trials),
        "driving": lambda: driving.driving(30 * options.scale),
        "recording": lambda: program.recording([sizes[0] // 5, sizes[0], sizes[0] * 2]),
        "reporting": lambda: program.reporting(sizes),
    }
    console = Console()
    rows = []
    started = time.perf_counter()
    for name in PARTS if options.only is None else [options.only]:
        for row in parts[name]():
            rows.append({"part": name, **row})
            console.print(f"{name}: {row['what']}: {row['value']:.3f}", highlight=False)
    report = {
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": time.perf_counter() - started,
        "machine": {"platform": platform.platform(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "device": device_facts("cpu"),
        "load_before": os.getloadavg(),
        "program": code_provenance(),
        "options": {name: str(value) for name, value in vars(options).items()},
        "rows": rows,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n")
    console.print(_table(rows))
    console.print(f"wrote {options.out}")


def _table(rows: list[dict[str, object]]) -> Table:
    table = Table(box=None)
    table.add_column("what", overflow="fold")
    for heading in ("measured", "must reach", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        bound = "" if row["bound"] is None else f"{row['sense']} {row['bound']:g}"
        verdict = {True: "[green]yes[/]", False: "[red]no[/]", None: ""}[row["met"]]
        table.add_row(
            str(row["what"]), f"{row['value']:.3g}" if row["value"] < 1000 else f"{row['value']:,.0f}", bound, verdict
        )
    return table


if __name__ == "__main__":
    if sys.argv[1:2] == ["gpu"]:
        gpu.main(sys.argv[2:])
    else:
        main()
