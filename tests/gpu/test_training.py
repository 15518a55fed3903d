"""Training on a GPU: numbers against the CPU's, equal bits, no waiting, and what ends a trial."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.failures import CODE, OUT_OF_MEMORY
from tests.gpu.configs import SIZES, config_of
from tests.trainer.training import COMBINATIONS, assert_same, content, numbers, title
from trainer.checkpoint import read_checkpoint
from trainer.config import TrainConfig
from trainer.results import EpochResult
from trainer.train import train

# Without a method, the paper's, two networks, and images that are mixed and cut.
ROWS: list[dict[str, Any]] = [
    {},
    {"byot": {}, "dmfl": {}, "pskd": {}},
    {"dml": {}, "pskd": {}},
    {"cutmix": {}, "cutout": {}, "pskd": {}},
]


def trained(config: TrainConfig, device: str, **options: Any) -> list[EpochResult]:
    results: list[EpochResult] = []
    train(config, results.append, device=device, **options)
    return results


def losses(results: list[EpochResult]) -> list[float]:
    return [value for result in results for value in result.losses.values()]


@pytest.mark.parametrize("network", ["resnet18", "resnext50_32x4d"])
@pytest.mark.parametrize("methods", COMBINATIONS, ids=title)
def test_every_method_trains(device: str, methods: dict[str, Any], network: str):
    results = trained(config_of(methods, network), device)
    assert [result.epoch for result in results] == [0, 1]


@pytest.mark.parametrize("methods", COMBINATIONS, ids=title)
def test_float64_losses_are_those_of_a_cpu(device: str, methods: dict[str, Any]):
    config = config_of(methods, precision="float64", epochs=1)
    expected = losses(trained(config, "cpu"))
    assert losses(trained(config, device)) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_float32_is_ieee_float32(device: str):
    # Ten steps at a usual rate make a relative difference of 1e-7 one of 0.4 %; at this one, weights hardly move. Ten
    # bits of mantissa would cost a hundred times the bound.
    config = config_of({}, precision="float32", epochs=1, learning_rate=1e-6)
    assert losses(trained(config, device)) == pytest.approx(losses(trained(config, "cpu")), rel=2e-6)


@pytest.mark.parametrize("methods", ROWS, ids=title)
def test_replaying_gives_the_bits_of_launching(device: str, methods: dict[str, Any], tmp_path: Path):
    config = config_of(methods)
    states = []
    for engine in ("launched", "replayed"):
        checkpoint = tmp_path / f"{engine}.pt"
        trained(config, device, checkpoint=checkpoint, engine=engine, deterministic=True)
        states.append(content(checkpoint))
    assert_same(*states)


def test_compiling_changes_rounding_alone(device: str):
    # In float32, ten steps make of what rounding changes a third of what training changes: nothing could be told apart.
    config = config_of({"byot": {}, "pskd": {}}, precision="float64")
    expected = losses(trained(config, device, engine="launched"))
    assert losses(trained(config, device, engine="compiled")) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("methods", ROWS, ids=title)
def test_a_deterministic_run_resumes_to_the_bit(device: str, methods: dict[str, Any], tmp_path: Path):
    config = config_of(methods)
    straight, resumed = tmp_path / "straight.pt", tmp_path / "resumed.pt"
    trained(config, device, checkpoint=straight, deterministic=True)
    trained(config, device, checkpoint=resumed, deterministic=True, stop_after=1)
    trained(config, device, checkpoint=resumed, deterministic=True)
    assert_same(content(straight), content(resumed))


def test_a_checkpoint_moves_between_devices(device: str, tmp_path: Path):
    config = config_of({"byot": {}, "pskd": {}}, epochs=3)
    checkpoint = tmp_path / "moved.pt"
    for place, epochs in ((device, 1), ("cpu", 2), (device, 3)):
        results = trained(config, place, checkpoint=checkpoint, stop_after=epochs)
        assert len(results) == epochs
    assert all(value.device.type == "cpu" for value in read_checkpoint(checkpoint)["networks"].values()), (
        "a checkpoint is read to the CPU first"
    )


def test_numbers_do_not_depend_on_what_ran_before(device: str):
    config = config_of({"pskd": {}})
    first = trained(config, device, deterministic=True)
    trained(config_of({"byot": {}}, "resnext50_32x4d"), device)
    assert_same([numbers(one) for one in first], [numbers(one) for one in trained(config, device, deterministic=True)])


def test_no_step_waits_for_the_device(cuda: str):
    """The debug mode of CUDA raises where a training step waits; an epoch ends with one wait, which is allowed."""
    code = f"""
    import torch
    from trainer import train as module
    from trainer.config import TrainConfig

    steps = module.Step.__call__ if hasattr(module, "Step") else None
    from trainer.step import Step
    inner = Step.__call__

    def strict(self, batch):
        torch.cuda.set_sync_debug_mode("error")
        try:
            return inner(self, batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    Step.__call__ = strict
    for methods in ({{}}, {{"byot": {{}}, "dmfl": {{}}, "pskd": {{}}}}, {{"cskd": {{}}}}, {{"dml": {{}}}}):
        config = TrainConfig(**{SIZES!r}, methods=methods)
        module.train(config, lambda result: None, device={cuda!r}, engine="launched")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "body, error_class, sign",
    [
        ("torch.empty(2**45, dtype=torch.uint8, device=device)", OUT_OF_MEMORY, "out of memory"),
        (
            "torch.nn.functional.cross_entropy(torch.zeros(2, 3, device=device), torch.tensor([0, 7], device=device))",
            CODE,
            "device-side assert",
        ),
    ],
    ids=["out of memory", "device assert"],
)
def test_a_failure_keeps_its_class_and_reason(cuda: str, tmp_path: Path, body: str, error_class: str, sign: str):
    # In a process of its own: a failed assertion leaves CUDA unusable.
    code = f"""
    import json
    import torch
    from pathlib import Path
    from orchestrator.worker import attempt
    from orchestrator.provenance import code_digest
    from trainer import train as module
    from trainer.config import TrainConfig

    def broken(*args, **more):
        device = {cuda!r}
        {body}
        torch.cuda.synchronize()

    module.evaluate = broken
    config = TrainConfig(**{SIZES!r})
    job = attempt.Job(
        key=config.key(), name="g/broken", config=config.model_dump(mode="json"), cpus=1, gpus=1,
        data_root={str(tmp_path)!r}, checkpoint=None, checkpoint_seconds=0.0,
        log_folder={str(tmp_path / "logs")!r}, code_digest=code_digest(),
    )
    failure = attempt.run_job(job, lambda message: None)
    print(json.dumps(failure.to_dict()))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    last = done.stdout.splitlines()[-1]
    assert f'"error_class": "{error_class}"' in last, done.stderr
    assert sign in last


def test_memory_figures_are_of_the_epoch(cuda: str):
    results = trained(config_of({}), cuda)
    torch.cuda.synchronize()
    assert all(result.peak_memory_bytes for result in results)
