"""Checks for users: this machine's versions and devices, and that a killed and resumed training gives the same bits."""

from __future__ import annotations

import multiprocessing
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from orchestrator.console.machine import Finding, gpus, processors
from orchestrator.provenance import code_provenance
from orchestrator.timing import gpus_here
from trainer.paths import folder_refusal

# Every combination of the paper's three methods, every other method, and two networks side by side.
COMBINATIONS = (
    *("", "byot", "dmfl", "pskd", "byot,dmfl", "byot,pskd", "dmfl,pskd", "byot,dmfl,pskd"),
    *("label_smoothing", "cskd", "tfkd", "dml", "dcm", "dml,pskd", "byot,dcm"),
    *("mixup", "cutmix,pskd", "cutout,byot"),
)
# A configuration that trains in about a second.
SMALL: dict[str, Any] = {"dataset": "digits", "width": 4, "subset": 5, "epochs": 2, "batch_size": 16}

LEAST_GIB = 1.0


def check_machine(data_root: str | Path) -> bool:
    """Print versions, devices, memory, disk and data sets; return True when trials can run here."""
    console = Console(highlight=False)

    def say(title: str, text: str, colour: str = "") -> None:
        shown = f"[{colour}]{escape(text)}[/]" if colour else escape(text)
        console.print(f"[bold]{title:<10}[/]{shown}", soft_wrap=True)

    provenance = code_provenance()
    say("program", f"commit {provenance['commit'] or 'unknown'}{' (changed)' if provenance['dirty'] else ''}")
    versions = ", ".join(f"{name} {number}" for name, number in provenance["versions"].items())
    say("versions", f"Python {provenance['python']}, {versions}")
    able = True
    for finding in _devices():
        say("device", finding.text, {"note": "yellow", "fail": "red"}.get(finding.verdict, ""))
        able = able and finding.verdict != "fail"
    for name, problem in _datasets(data_root):
        say("data", f"{name}: {problem or 'there'}", "" if problem else "green")
    here = Path.cwd()
    free, refusal = shutil.disk_usage(here).free / 2**30, folder_refusal(here)
    enough = free >= LEAST_GIB
    say(
        "disk",
        f"{free:.1f} GiB free in {here}" + ("" if enough else ": too little for checkpoints"),
        "" if enough else "red",
    )
    if refusal:
        say("disk", f"{here} cannot be written to ({refusal.strerror}): the database cannot be made here", "red")
    return not refusal and enough and able


def check_resume(combinations: Sequence[str] = COMBINATIONS, device: str = "cpu") -> bool:
    """Train two epochs at once, and one epoch + SIGKILL + one epoch, and compare every bit; return True when all agree.

    `combinations` are names of methods, separated by commas. Each of the three trainings has a process of its own, on
    `device`; on a GPU, PyTorch uses its deterministic algorithms, as with `deterministic: true` in a grid.
    """
    console = Console(highlight=False)
    if device != "cpu" and not gpus_here():
        console.print("[red]there is no GPU here to resume on; `orchestrate doctor` says why[/]")
        return False
    where = "on the CPU" if device == "cpu" else "on a GPU, with PyTorch's deterministic algorithms"
    console.print(
        f"2 epochs straight against 1 epoch + SIGKILL + 1 epoch, {where}:\n"
        "weights, optimizer, state of the methods, losses and metrics, bit for bit"
    )
    different = 0
    for methods in combinations:
        with tempfile.TemporaryDirectory(prefix="orchestrate-doctor-") as folder:
            difference = _resume_difference(methods, Path(folder), device)
        verdict = f"[red]{escape(difference)}[/]" if difference else "[green]identical[/]"
        console.print(f"  {methods.replace(',', ' + ') or 'baseline':<20} {verdict}", soft_wrap=True)
        different += bool(difference)
    if different:
        console.print(f"[red]{different} of {len(combinations)} differ: resumed trials are not to be trusted here[/]")
    return not different


def _resume_difference(methods: str, folder: Path, device: str) -> str:
    """Return where the two trainings differ, in words; empty where they agree."""
    from trainer.checks.training import difference, timeless

    straight, resumed = folder / "straight.pt", folder / "resumed.pt"
    for checkpoint, kill in ((straight, False), (resumed, True), (resumed, False)):
        ended = _train_in_a_process(methods, checkpoint, device, kill_after_first=kill)
        expected = -signal.SIGKILL if kill else 0
        if ended != expected:
            return f"a training ended with exit code {ended}, not {expected}"
    place = difference(timeless(straight), timeless(resumed))
    return "" if place is None else f"{place} differs"


def _train_in_a_process(methods: str, checkpoint: Path, device: str, *, kill_after_first: bool) -> int | None:
    """Train in a new process and return its exit code; it can be killed once its first epoch is reported."""
    # One server imports torch, and each process is forked from it before any computation.
    context = multiprocessing.get_context("forkserver")
    # The first optimizer of a process imports the compiler, which takes as long as everything else together.
    context.set_forkserver_preload(["torch._dynamo", "trainer.train", "trainer.methods"])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_train, args=(methods, checkpoint, device, sender, kill_after_first), daemon=True)
    process.start()
    sender.close()
    try:
        if kill_after_first:
            receiver.recv()
            process.kill()
    except EOFError:
        pass  # It has ended by itself: the exit code shows how.
    finally:
        process.join()
        receiver.close()
    return process.exitcode


def _train(methods: str, checkpoint: Path, device: str, channel: Connection, wait_to_be_killed: bool) -> None:
    import torch

    from trainer.config import TrainConfig
    from trainer.results import EpochResult
    from trainer.train import train

    torch.set_num_threads(1)

    def report(result: EpochResult) -> None:
        if wait_to_be_killed:
            channel.send(result.epoch)
            signal.pause()

    named: dict[str, dict[str, Any]] = {name: {} for name in methods.split(",") if name}
    # On one CPU the bits are equal without this option.
    deterministic = device != "cpu"
    train(
        TrainConfig(**SMALL, methods=named), report, device=device, checkpoint=checkpoint, deterministic=deterministic
    )


def _devices() -> Iterator[Finding]:
    import psutil
    import torch

    memory, cpus = psutil.virtual_memory(), processors()
    capability = torch.backends.cpu.get_cpu_capability()
    available = f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB of memory available"
    yield replace(cpus, text=f"cpu: {cpus.text} ({capability}), {available}")
    failed = False
    for finding in gpus(torch.version.cuda):
        failed = failed or finding.verdict == "fail"
        yield finding
    if gpus_here() and not failed and not torch.cuda.is_available():
        try:
            torch.cuda.init()
            why = "it does not say why"
        except Exception as error:
            why = str(error).splitlines()[0]
        yield Finding("fail", f"PyTorch cannot use the GPU: {why}")


def _datasets(data_root: str | Path) -> Iterator[tuple[str, str | None]]:
    from orchestrator.storage import is_url, missing_data
    from trainer.data import what_is_missing
    from trainer.parts import DATASETS

    for name, part in DATASETS.items():
        if is_url(data_root):
            yield name, missing_data(name, str(data_root))
            continue
        problem = what_is_missing(name, Path(data_root))
        if problem and (part.facts.archive or part.facts.files):
            problem += "; a grid that needs it downloads it"
        yield name, problem
