"""Trainings small enough for a test, and comparisons to the last bit."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, NamedTuple

import torch

from trainer.checkpoint import read_checkpoint
from trainer.config import TrainConfig
from trainer.results import EpochResult
from trainer.train import train

# What `npz:tiny.npz` below the fixture `data_root` has: images per class, and their pixels in a row.
CLASSES, TRAIN_IMAGES, TEST_IMAGES, SIZE = 6, 5, 4, 16

# What two equal trainings need not share.
TIMELESS = ("train_seconds", "eval_seconds", "data_seconds", "peak_memory_bytes", "restored")

# All 8 combinations of the paper's methods, the other methods, two networks, and methods of two families.
COMBINATIONS: list[dict[str, dict[str, Any]]] = [
    *({name: {} for name in names.split()} for names in ("", "byot", "dmfl", "pskd", "byot dmfl", "byot pskd")),
    *({name: {} for name in names.split()} for names in ("dmfl pskd", "byot dmfl pskd", "label_smoothing", "cskd")),
    {"tfkd": {}},
    {"tfkd": {"variant": "virtual"}},
    *({name: {} for name in names.split()} for names in ("dml", "dml pskd", "dcm", "dcm pskd", "byot dcm")),
    *({name: {} for name in names.split()} for names in ("cutout", "cutmix pskd", "cskd cutout mixup")),
    {"byot": {}, "cutmix": {"probability": 1.0}, "mixup": {}, "tfkd": {"variant": "virtual"}},
]


def title(methods: dict[str, Any]) -> str:
    """The name of a combination in a test's name."""
    return "+".join(methods) or "baseline"


def small(**fields: Any) -> TrainConfig:
    """A narrow network on the images below `data_root`: two steps per epoch, a few hundredths of a second each."""
    defaults = {"dataset": "npz:tiny.npz", "width": 4, "batch_size": 16, "epochs": 2, "precision": "float32"}
    return TrainConfig(**defaults | fields)


def trained(config: TrainConfig, checkpoint: Path, data_root: Path, **options: Any) -> dict[str, Any]:
    """Train, and return everything that was learned and measured."""
    reported: list[EpochResult] = []
    train(config, reported.append, checkpoint=checkpoint, data_root=data_root, **options)
    state = content(checkpoint)
    assert [numbers(result) for result in reported] == state["results"]
    return state


def content(checkpoint: Path) -> dict[str, Any]:
    """Return what a checkpoint holds, without clocks."""
    state = read_checkpoint(checkpoint)
    state["results"] = [numbers(EpochResult.from_dict(result)) for result in state["results"]]
    return state


def numbers(result: EpochResult) -> dict[str, Any]:
    """Return what an epoch gave, without clocks."""
    return {name: value for name, value in result.to_dict().items() if name not in TIMELESS}


def assert_same(one: Any, other: Any, path: str = "") -> None:
    """Fail with the path where two nested structures of tensors and plain values differ."""
    if isinstance(one, torch.Tensor):
        assert isinstance(other, torch.Tensor), path
        assert (one.dtype, one.shape, one.stride()) == (other.dtype, other.shape, other.stride()), path
        assert torch.equal(one, other), f"{path}: {(one != other).sum()} of {one.numel()} numbers differ"
    elif isinstance(one, dict):
        assert isinstance(other, dict), path
        assert list(one) == list(other), path
        for name in one:
            assert_same(one[name], other[name], f"{path}/{name}")
    elif isinstance(one, list | tuple):
        assert type(one) is type(other), path
        assert len(one) == len(other), path
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{path}/{i}")
    else:
        assert one == other, path


def forking() -> ForkServerContext:
    """Return what starts processes by forking a server that has imported everything and computed nothing."""
    context = multiprocessing.get_context("forkserver")
    # The first optimizer of a process imports the compiler, which takes as long as all the rest.
    needed = ["torch._dynamo", "torchvision.transforms.functional", "trainer.train", "trainer.methods", __name__]
    # What modules of tests import, whose functions the processes run.
    context.set_forkserver_preload([*needed, "pytest", "hypothesis.strategies", "tests.trainer.fake_datasets"])
    return context


def in_a_process(target: Callable[..., None], *arguments: Any) -> int | None:
    """Run a function in a process of its own and return the exit code: minus the signal that killed it."""
    process = forking().Process(target=_one_thread, args=(target, *arguments), daemon=True)
    process.start()
    process.join()
    return process.exitcode


def _one_thread(target: Callable[..., None], *arguments: Any) -> None:
    torch.set_num_threads(1)
    target(*arguments)


class Ended(NamedTuple):
    """The exit code of a program, and what it printed."""

    code: int | None
    out: str
    err: str


def run_program(module: str, *arguments: str, folder: Path, read: bool = True) -> Ended:
    """Run `python -m MODULE` in a folder, in a process of its own; without `read`, nobody reads what it prints."""
    out, err = folder / ".out", folder / ".err"
    code = in_a_process(_program, module, arguments, folder, out if read else None, err)
    return Ended(code, out.read_text() if read else "", err.read_text())


def _program(module: str, arguments: Sequence[str], folder: Path, out: Path | None, err: Path) -> None:
    if out is None:
        reading, writing = os.pipe()
        os.close(reading)
    else:
        writing = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(writing, 1)
    os.dup2(os.open(err, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    os.chdir(folder)
    # For the programs that it starts.
    os.environ |= {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
