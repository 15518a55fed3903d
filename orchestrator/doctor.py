"""Checks that a user can run: what this machine offers, and that a killed and resumed training gives the same bits."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from orchestrator.provenance import code_provenance

# Two networks side by side, and every combination of the paper's three methods.
COMBINATIONS = ("", "byot", "dmfl", "pskd", "byot,pskd", "dmfl,pskd", "byot,dmfl", "byot,dmfl,pskd", "dml", "dcm,pskd")
SMALL = ("--dataset", "digits", "--width", "4", "--subset", "10", "--epochs", "2", "--batch-size", "32")


def check_machine(data_root: Path) -> bool:
    """Print versions, devices, memory, disk and data sets; True when trials can run here."""
    console = Console(highlight=False)
    provenance = code_provenance()
    console.print(
        f"[bold]program[/]   commit {provenance['commit'] or 'unknown'}{' (changed)' if provenance['dirty'] else ''}"
    )
    versions = ", ".join(f"{name} {number}" for name, number in provenance["versions"].items())
    console.print(f"[bold]versions[/]  Python {provenance['python']}, {escape(versions)}")
    for line in _devices():
        console.print(f"[bold]device[/]    {escape(line)}")
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    console.print(f"[bold]disk[/]      {free:.1f} GiB free in {escape(str(Path.cwd()))}")
    for name, problem in _datasets(data_root):
        console.print(f"[bold]data[/]      {name}: {escape(problem) if problem else '[green]there[/]'}")
    writable = os.access(Path.cwd(), os.W_OK)
    if not writable:
        console.print("[red]this folder cannot be written to: the database cannot be made here[/]")
    return writable and free > 1


def check_resume() -> bool:
    """Train two epochs straight, and one epoch + SIGKILL + one epoch, and compare every bit; True when all agree."""
    console = Console(highlight=False)
    console.print(
        "2 epochs straight against 1 + SIGKILL + 1, on the CPU: weights, method state and metrics bit for bit"
    )
    agreed = True
    for methods in COMBINATIONS:
        with tempfile.TemporaryDirectory() as folder:
            difference = _resume_difference(methods, Path(folder))
        agreed = agreed and not difference
        verdict = f"[red]{escape(difference)}[/]" if difference else "[green]identical[/]"
        console.print(f"  {methods.replace(',', '+') or 'baseline':<18} {verdict}")
    return agreed


def _resume_difference(methods: str, folder: Path) -> str:
    straight, resumed = folder / "straight.pt", folder / "resumed.pt"
    _train(methods, straight, kill_after_first=False)
    _train(methods, resumed, kill_after_first=True)
    _train(methods, resumed, kill_after_first=False)
    return _difference(_load(straight), _load(resumed))


def _train(methods: str, checkpoint: Path, *, kill_after_first: bool) -> None:
    command = [sys.executable, "-m", "trainer", *SMALL, "--methods", methods, "--json", "--checkpoint", str(checkpoint)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    ) as process:
        for line in process.stdout or ():
            if kill_after_first and line.startswith("{") and json.loads(line)["epoch"] == 0:
                process.send_signal(signal.SIGKILL)
                break
    if process.returncode != (-signal.SIGKILL if kill_after_first else 0):
        raise RuntimeError(f"`{' '.join(command)}` ended with {process.returncode}")


def _load(checkpoint: Path) -> dict[str, Any]:
    from trainer.checkpoint import read_checkpoint

    state = read_checkpoint(checkpoint)
    timeless = ("train_seconds", "eval_seconds", "data_seconds", "restored", "peak_memory_bytes")
    state["results"] = [
        {name: value for name, value in result.items() if name not in timeless} for result in state["results"]
    ]
    return state


def _difference(one: Any, other: Any, path: str = "") -> str:
    """The first place where two nested structures of tensors and plain values differ; empty where none does."""
    import torch

    if isinstance(one, torch.Tensor):
        same = isinstance(other, torch.Tensor) and torch.equal(one, other)
        return "" if same else f"{path} differs"
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return next((found for name in one if (found := _difference(one[name], other[name], f"{path}/{name}"))), "")
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return next((found for i, (a, b) in pairs if (found := _difference(a, b, f"{path}/{i}"))), "")
    return "" if one == other else f"{path}: {one!r} and {other!r}"


def _devices() -> Iterator[str]:
    import torch

    yield f"cpu: {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        yield f"cuda:{index}: {facts.name}, {facts.total_memory / 2**30:.0f} GiB"
    if not torch.cuda.is_available():
        yield "no CUDA device: grids with `resources: {gpu: 1}` cannot run here"


def _datasets(data_root: Path) -> Iterator[tuple[str, str]]:
    from trainer.datasets import DATASETS
    from trainer.download import missing_files

    for name in DATASETS:
        yield name, missing_files(name, data_root)
