"""`python -m tests.bench gpu`: the speed of Table 1's networks and methods on a GPU, one JSON line per figure.

Every figure comes from `trainer.train.train`, the way every trial goes: on CIFAR-100 where its files are below
`--data-root`, and else on 10,000 random images of its size. `--device cpu --tiny` tries the whole program where there
is no GPU; its figures say nothing of one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from orchestrator.provenance import code_provenance
from trainer.checkpoint import save_checkpoint
from trainer.config import TrainConfig
from trainer.datasets import dataset_spec
from trainer.objective import Objective
from trainer.results import EpochResult
from trainer.train import Training, build_networks, checkpoint_state, train

NETWORKS = ("resnet18", "resnet50", "resnext50_32x4d")
ROWS: dict[str, dict[str, dict[str, Any]]] = {
    "baseline": {},
    "pskd": {"pskd": {}},
    "byot": {"byot": {}},
    "dmfl": {"dmfl": {}},
    "byot+dmfl": {"byot": {}, "dmfl": {}},
    "byot+pskd": {"byot": {}, "pskd": {}},
    "dmfl+pskd": {"dmfl": {}, "pskd": {}},
    "all three": {"byot": {}, "dmfl": {}, "pskd": {}},
}
ENGINES = ("launched", "replayed", "compiled")
TABLE1_EPOCHS = 300
TABLE1_IMAGES, TEST_IMAGES = 50_000, 10_000
# Epochs before those that count: kernels are searched, graphs captured, networks compiled.
WARM_UP = 2

Figure = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """The arguments of the command; `images` are training images of an epoch."""

    device: str
    dataset: str
    data_root: Path
    images: int
    width: int
    epochs: int
    rounds: int
    seconds: float
    engines: tuple[str, ...]
    networks: tuple[str, ...]
    rows: tuple[str, ...]

    @property
    def classes(self) -> int:
        return dataset_spec(self.dataset).classes or 0

    @property
    def test_images(self) -> int:
        return dataset_spec(self.dataset).test_images or TEST_IMAGES

    def config(self, network: str, methods: dict[str, dict[str, Any]], **fields: Any) -> TrainConfig:
        """Return the configuration of a row of Table 1 on random images."""
        defaults = {
            "dataset": self.dataset,
            "subset": self.images // self.classes,
            "network": network,
            "width": self.width,
            "methods": methods,
            "heads": "native",
            "epochs": TABLE1_EPOCHS,
        }
        return TrainConfig(**defaults | fields)


def main(arguments: list[str]) -> None:
    """Measure the parts that are asked for; a part that fails prints its error, and the next one runs."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench gpu", description=__doc__)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--tiny", action="store_true", help="narrow networks on few images: a trial of the program")
    parser.add_argument("--only", action="append", choices=PARTS, help="a part; may be repeated")
    parser.add_argument("--data-root", type=Path, help="the folder of CIFAR-100's files")
    parser.add_argument("--images", type=int, help="training images of an epoch, if not all")
    parser.add_argument("--epochs", type=int, default=3, help="epochs that count, of each training")
    parser.add_argument("--rounds", type=int, default=1, help="times that each training is repeated, in turns")
    parser.add_argument("--engine", action="append", choices=ENGINES, help="an engine; may be repeated")
    parser.add_argument("--network", action="append", choices=NETWORKS, help="a network; may be repeated")
    parser.add_argument("--row", action="append", choices=ROWS, help="a row of Table 1 (epochs); may be repeated")
    parser.add_argument("--seconds", type=float, default=3600.0, help="no part starts after so many seconds")
    given = parser.parse_args(arguments)
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit("no CUDA device; `--device cpu --tiny` tries the program without one")
    dataset = "digits" if given.tiny else "cifar100" if given.data_root else "synthetic"
    options = Options(
        device=given.device,
        dataset=dataset,
        data_root=given.data_root or Path("data"),
        images=200 if given.tiny else given.images or dataset_spec(dataset).train_images or 0,
        width=8 if given.tiny else 64,
        epochs=1 if given.tiny else given.epochs,
        rounds=given.rounds,
        seconds=given.seconds,
        engines=tuple(given.engine or ENGINES),
        networks=tuple(given.network or NETWORKS),
        rows=tuple(given.row or ("baseline", "all three")),
    )
    started = time.monotonic()
    _print({"part": "machine", "what": "versions", **_machine(options)})
    for name in given.only or PARTS:
        left = options.seconds - (time.monotonic() - started)
        if left <= 0:
            _print({"part": name, "error": f"not started: {options.seconds:g} s have passed"})
            continue
        try:
            for figure in PARTS[name](options):
                _print({"part": name, **figure})
        except Exception as error:
            _print({"part": name, "error": f"{type(error).__name__}: {error}"})


def _print(figure: Figure) -> None:
    print(json.dumps(figure), flush=True)


def _machine(options: Options) -> Figure:
    """Return what every figure depends on: the card, the versions, the commit."""
    facts: Figure = {"torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    if options.device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(options.device)
        facts |= {"card": properties.name, "memory_bytes": properties.total_memory}
    program = code_provenance()
    return facts | {
        "device": options.device,
        "dataset": options.dataset,
        "images": options.images,
        "width": options.width,
        "cores": os.cpu_count(),
        "platform": platform.platform(),
        "commit": program["commit"],
        "changed": program["dirty"],
    }


def _wait(options: Options) -> None:
    if options.device.startswith("cuda"):
        torch.cuda.synchronize(options.device)


def _seconds(work: Callable[[], object], options: Options, times: int = 5) -> float:
    """Return the median seconds of a piece of work, after one call that does not count."""
    measured = []
    for _ in range(times + 1):
        _wait(options)
        started = time.perf_counter()
        work()
        _wait(options)
        measured.append(time.perf_counter() - started)
    return median(measured[1:])


def ceilings(options: Options) -> Iterator[Figure]:
    """Measure what the device can do at best: copying, and a bfloat16 matrix product."""
    big = options.device.startswith("cuda")
    values = torch.zeros(2**30 if big else 2**24, dtype=torch.uint8, device=options.device)
    copy = torch.empty_like(values)
    seconds = _seconds(lambda: copy.copy_(values), options)
    yield {"what": "copy within the device", "value": 2 * values.numel() / seconds / 1e9, "unit": "GB/s"}
    yield {"what": "bf16 matrix product", "value": _matrix_rate(options) / 1e12, "unit": "TFLOP/s"}


def _matrix_rate(options: Options) -> float:
    size = 8192 if options.device.startswith("cuda") else 1024
    left, right = (torch.randn(size, size, device=options.device).bfloat16() for _ in range(2))
    return 2.0 * size**3 / _seconds(lambda: torch.mm(left, right), options)


def _train(
    config: TrainConfig,
    options: Options,
    engine: str,
    stop_after: int,
    report: Callable[[EpochResult], None] = lambda result: None,
    deterministic: bool = False,
) -> None:
    train(
        config,
        report,
        device=options.device,
        data_root=options.data_root,
        engine=engine,
        stop_after=stop_after,
        deterministic=deterministic,
    )


def _epochs(
    config: TrainConfig, options: Options, engine: str, count: int, deterministic: bool = False
) -> list[EpochResult]:
    """Train `count` epochs; those after the warm-up are returned."""
    results: list[EpochResult] = []
    _train(config, options, engine, WARM_UP + count, results.append, deterministic)
    return results[WARM_UP:]


def epochs(options: Options) -> Iterator[Figure]:
    """Measure seconds per epoch of the least and the most demanding row of each network, by engine."""
    rate = _matrix_rate(options)
    for network in options.networks:
        for row in options.rows:
            config = options.config(network, ROWS[row])
            turns = [
                (engine, _epochs(config, options, engine, options.epochs))
                for engine in options.engines * options.rounds
            ]
            work = 3 * _forward_flops(config, options.classes) * options.images
            for engine in options.engines:
                measured = [result for name, results in turns if name == engine for result in results]
                training = median(result.train_seconds + result.data_seconds for result in measured)
                about = {"network": network, "row": row, "engine": engine}
                yield {"what": "training of an epoch", "value": training, "unit": "s", **about}
                steps = -(-options.images // config.batch_size)
                yield {"what": "a training step", "value": 1000 * training / steps, "unit": "ms", **about}
                evaluation = median(result.eval_seconds for result in measured)
                yield {"what": "evaluation of an epoch", "value": evaluation, "unit": "s", **about}
                yield {"what": "share of the matrix rate", "value": work / training / rate, "unit": "", **about}
                if memory := max(result.peak_memory_bytes or 0 for result in measured):
                    yield {"what": "peak memory", "value": memory / 2**30, "unit": "GiB", **about}


def _forward_flops(config: TrainConfig, classes: int) -> float:
    """Return the floating-point operations of one image's forward pass; a step takes three times as many."""
    network = build_networks(config, classes, torch.device("cpu"))[0]
    heads = Objective(config.build_methods(), classes).requires.heads
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.randn(2, 3, 32, 32), heads=heads)
    return counter.get_total_flops() / 2


def table1(options: Options) -> Iterator[Figure]:
    """Project the GPU-hours of Table 1: every row of every network, 300 epochs each, with the engine `auto`."""
    hours = 0.0
    for network in options.networks:
        for row, methods in ROWS.items():
            measured = _epochs(options.config(network, methods), options, "auto", options.epochs)
            training = median(result.train_seconds + result.data_seconds for result in measured)
            evaluation = median(result.eval_seconds for result in measured)
            seconds = training * TABLE1_IMAGES / options.images + evaluation * TEST_IMAGES / options.test_images
            hours += seconds * TABLE1_EPOCHS / 3600
            about = {"network": network, "row": row}
            yield {"what": "epoch of 50,000 images with evaluation", "value": seconds, "unit": "s", **about}
    yield {"what": f"Table 1, projected ({', '.join(options.networks)})", "value": hours, "unit": "GPU-hours"}


def launches(options: Options) -> Iterator[Figure]:
    """Count what the processor launches in a training step: the difference between two and one epochs."""
    for engine in options.engines:
        config = options.config("resnet18", ROWS["all three"], epochs=WARM_UP + 2)
        counts = [_launches(config, options, engine, WARM_UP + more) for more in (1, 2)]
        steps = -(-options.images // config.batch_size)
        yield {
            "what": "launches per step, its share of the evaluation among them",
            "value": (counts[1] - counts[0]) / steps,
            "unit": "",
            "engine": engine,
        }


def _launches(config: TrainConfig, options: Options, engine: str, count: int) -> int:
    """Return the launches of kernels and graphs in a training; on a CPU, its operations."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if options.device.startswith("cuda"):
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        _train(config, options, engine, count)
    signs = ("cudaLaunch", "cuLaunch", "cudaGraphLaunch") if len(activities) > 1 else ("aten::",)
    return sum(event.count for event in profile.key_averages() if event.key.startswith(signs))


def compiling(options: Options) -> Iterator[Figure]:
    """Measure the seconds until a compiled training has its first epoch, with an empty and with a full cache."""
    for network in options.networks:
        config = options.config(network, ROWS["all three"], subset=3 * 128 // options.classes)
        with tempfile.TemporaryDirectory() as cache:
            for what in ("cold", "warm"):
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                    seconds = process.submit(_compile_seconds, config, options, cache).result()
                yield {"what": f"compiling, {what} cache", "value": seconds, "unit": "s", "network": network}


def _compile_seconds(config: TrainConfig, options: Options, cache: str) -> float:
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
    seconds = {}
    for engine in ("launched", "compiled"):
        started = time.perf_counter()
        _train(config, options, engine, 1)
        seconds[engine] = time.perf_counter() - started
    return seconds["compiled"] - seconds["launched"]


def packing(options: Options) -> Iterator[Figure]:
    """Measure how many images per second several trials on one device train together, against one alone."""
    config = options.config("resnet18", ROWS["all three"])
    for engine in options.engines:
        alone = None
        for count in (1, 2, 4):
            with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as processes:
                running = [processes.submit(_images_per_second, config, options, engine) for _ in range(count)]
                rate = sum(future.result() for future in running)
            alone = alone or rate
            about = {"engine": engine, "trials": count}
            yield {"what": "training images per second, together", "value": rate, "unit": "1/s", **about}
            yield {"what": "gain over one trial alone", "value": rate / alone, "unit": "", **about}


def deterministic(options: Options) -> Iterator[Figure]:
    """Measure how much longer a training step takes with deterministic algorithms, by network and engine."""
    for network in options.networks:
        config = options.config(network, ROWS["all three"])
        for engine in options.engines:
            seconds: dict[bool, list[float]] = {False: [], True: []}
            for chosen in [False, True] * options.rounds:
                results = _epochs(config, options, engine, options.epochs, deterministic=chosen)
                seconds[chosen] += [result.train_seconds + result.data_seconds for result in results]
            ratio = median(seconds[True]) / median(seconds[False])
            about = {"network": network, "row": "all three", "engine": engine}
            yield {"what": "a deterministic step against another", "value": ratio, "unit": "", **about}


def _images_per_second(config: TrainConfig, options: Options, engine: str) -> float:
    results = _epochs(config, options, engine, options.epochs)
    return options.images / median(result.train_seconds + result.data_seconds for result in results)


def checkpoints(options: Options) -> Iterator[Figure]:
    """Measure the seconds and the size of a checkpoint."""
    for network in options.networks:
        config = options.config(network, ROWS["all three"])
        training = Training(config, torch.device(options.device), options.data_root)
        training.set_up(None)
        for parameter in training.networks.parameters():
            parameter.grad = torch.zeros_like(parameter)
        # The optimizer has its momentum after the first step.
        training.optimizer.step()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "checkpoint.pt"
            state = checkpoint_state(training.networks, training.optimizer, training.objective, [])
            seconds = _seconds(
                lambda path=path, config=config, state=state: save_checkpoint(path, config, state), options
            )
            yield {"what": "writing a checkpoint", "value": seconds, "unit": "s", "network": network}
            yield {"what": "checkpoint", "value": path.stat().st_size / 2**20, "unit": "MiB", "network": network}


PARTS: dict[str, Callable[[Options], Iterator[Figure]]] = {
    "ceilings": ceilings,
    "epochs": epochs,
    "launches": launches,
    "compiling": compiling,
    "packing": packing,
    "deterministic": deterministic,
    "checkpoints": checkpoints,
    "table1": table1,
}
