"""Calls of CUDA before a training come in the right order, and a training step never waits for the device.

There is no GPU here: CUDA is a fake that insists on being initialised, or the tensors are fake ones on a device that is
really called cuda:0.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

# Loaded here, because it cannot be while CUDA is a fake.
import torch._dynamo.utils
import torch._inductor.config

from tests.orchestrator.fake_gpu import FakeCuda
from tests.trainer.toy import GPU, fake_gpu, on_fake_gpu
from tests.trainer.training import COMBINATIONS, in_a_process, title
from trainer.canary import rehearse
from trainer.config import TrainConfig
from trainer.data import epoch_loader, load_splits
from trainer.device import prepare_device, without_search
from trainer.objective import Objective
from trainer.parts import NETWORKS
from trainer.recipe import OPTIMIZERS
from trainer.state import build_networks, build_optimizer, teacher_config
from trainer.step import Step, set_rate
from trainer.train import train


class Reached(Exception):
    """The first thing that a training does after its device is ready."""


@pytest.fixture
def flags() -> Iterator[None]:
    backends = torch.backends
    kept = [(b, b.fp32_precision) for b in (backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul)]
    allowed = backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32
    search, environment = backends.cudnn.benchmark, dict(os.environ)
    yield
    backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32 = allowed
    for backend, value in kept:
        backend.fp32_precision = value
    backends.cudnn.benchmark = search
    torch.use_deterministic_algorithms(False)
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    return FakeCuda(monkeypatch.setattr)


@pytest.mark.parametrize("name, index", [("cuda", 0), ("cuda:0", 0), ("cuda:1", 1)])
def test_the_device_is_made_the_current_one_and_started_before_anything_else(name, index, flags, cuda):
    device = prepare_device(name)
    assert device == torch.device("cuda", index)
    assert (cuda.current, cuda.asked) == (index, ["set_device", "init"])


@pytest.mark.parametrize("deterministic", [False, True])
def test_float32_is_ieee_and_equal_bits_are_asked_for(deterministic, flags, cuda):
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
    prepare_device("cuda", deterministic=deterministic)
    backends = torch.backends
    for backend in (backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul):
        assert backend.fp32_precision == "ieee"
    # The older names raise where they and the newer ones say different things.
    assert not backends.cudnn.allow_tf32
    assert not backends.cuda.matmul.allow_tf32
    assert backends.cudnn.benchmark is not deterministic
    assert torch.are_deterministic_algorithms_enabled() is deterministic
    # In any case: PyTorch looks at it once in a process, which may train something deterministic later.
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


@pytest.mark.parametrize(
    ("given", "used", "warned"),
    [(None, ":4096:8", False), ("", ":4096:8", False), (":16:8", ":16:8", False), (":4096:2:16:8", ":4096:8", True)],
)
def test_a_workspace_that_changes_bits_is_replaced_and_named(given, used, warned, flags, cuda, monkeypatch, caplog):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    if given is not None:
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", given)
    prepare_device("cuda", deterministic=True)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == used
    assert (f"CUBLAS_WORKSPACE_CONFIG={given} does not give equal bits" in caplog.text) is warned


def test_a_shape_without_a_search_is_still_ieee(flags, cuda):
    prepare_device("cuda")
    with without_search():
        assert not torch.backends.cudnn.benchmark
        assert torch.backends.cudnn.conv.fp32_precision == "ieee"
    assert torch.backends.cudnn.benchmark


def test_a_trial_after_a_deterministic_one_is_not(flags, cuda):
    prepare_device("cuda", deterministic=True)
    prepare_device("cuda")
    assert not torch.are_deterministic_algorithms_enabled()
    prepare_device("cpu", deterministic=True)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("start", [train, rehearse], ids=["train", "rehearse"])
def test_training_and_rehearsing_prepare_the_device_first(start, flags, cuda, tmp_path: Path, monkeypatch):
    def reached(*args: Any, **more: Any) -> None:
        assert cuda.asked[:2] == ["set_device", "init"]
        raise Reached

    monkeypatch.setattr("trainer.train.load_splits", reached)
    config = TrainConfig(dataset="synthetic", subset=1, width=4)
    more = {"report": lambda result: None} if start is train else {"folder": tmp_path}
    with pytest.raises(Reached):
        start(config, device="cuda:0", data_root=tmp_path, **more)


CASES = [("resnet18", methods) for methods in COMBINATIONS]
# These have more blocks of the kinds that others have; the images of imagenet_resnet152 are streamed from files.
DEEPER = ("resnet18", "resnet34", "resnet101", "preact_resnet101", "imagenet_resnet152")
CASES += [(name, {}) for name in NETWORKS if name not in DEEPER]
CASES += [
    ("resnext50_32x4d", {"byot": {}, "dmfl": {}, "pskd": {}}),
    ("wrn28_10", {"dcm": {}}),
    ("mobilenet", {"dcm": {}}),
]


@pytest.mark.parametrize("network, methods", CASES, ids=[f"{name}-{title(methods)}" for name, methods in CASES])
def test_a_step_on_a_gpu_mixes_no_devices_and_never_waits(network: str, methods: dict[str, Any], monkeypatch):
    # Gradients of fake tensors are computed by CUDA's own threads; `test_step.py` has them, on the CPU.
    monkeypatch.setattr(torch.Tensor, "backward", lambda loss: None)
    # Two blocks of a kind and stage are as good as 22.
    monkeypatch.setattr("trainer.networks.pyramidnet._BLOCKS_PER_STAGE", 2)
    monkeypatch.setattr("trainer.networks.densenet._LAYERS", (2, 2, 2, 2))
    config = TrainConfig(dataset="synthetic", subset=1, network=network, width=8, methods=methods, batch_size=32)
    splits = load_splits(config, Path("data"))
    networks = build_networks(config, 100, torch.device("cpu"))
    teacher = build_networks(teacher_config(config), 100, torch.device("cpu"))[0]
    with fake_gpu() as traffic:
        objective = Objective(config.build_methods(), 100)
        optimizer = build_optimizer(config, on_fake_gpu(networks))
        assert optimizer.param_groups[0]["lr"].device == GPU
        pairs, augmenting = objective.requires.class_pairs, objective.augmenting
        loader = epoch_loader(splits, config, GPU, class_pairs=pairs, augmenting=augmenting)
        moved = on_fake_gpu(teacher) if objective.requires.teacher else None
        for method in objective.methods:
            method.setup(splits.train.labels.to(GPU), 100, len(networks), moved)
            method.start_epoch(0, 300)
        step = Step(config, networks.train(), objective, optimizer)
        batches = loader.epoch(0)
        # Cutout draws its squares on the host.
        uploads = 0 if "cutout" not in methods else 2 * 2 * (2 if pairs else 1)
        before = traffic.uploads + uploads, traffic.blocking, traffic.waits
        for _, batch in zip(range(2), batches, strict=False):
            step(batch)
        assert step.tally.sums.device == GPU
        assert (traffic.uploads, traffic.blocking, traffic.waits) == before
        step.tally.read(64)
        assert traffic.waits == before[2] + 1


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_rate_for_every_step_reaches_a_gpu_without_waiting(optimizer: str):
    config = TrainConfig(dataset="synthetic", width=4, optimizer=optimizer, schedule="cosine", warmup=1.5)
    networks = build_networks(config, 100, torch.device("cpu"))
    with fake_gpu() as traffic:
        (group,) = build_optimizer(config, on_fake_gpu(networks)).param_groups
        rate, before = group["lr"], (traffic.blocking, traffic.waits)
        for value in config.learning_rates(1, 3):
            set_rate(SimpleNamespace(param_groups=[group]), value)
        assert (traffic.blocking, traffic.waits) == before
        # A recorded step reads the rate where it was.
        assert group["lr"] is rate and rate.device == GPU
        # PyTorch keeps the count of steps of a fused optimizer on the device.
        assert group["fused"]


def test_the_rate_of_float64_is_not_rounded_to_float32():
    config = TrainConfig(dataset="synthetic", width=4, precision="float64")
    networks = build_networks(config, 100, torch.device("cpu"))
    with fake_gpu():
        assert build_optimizer(config, on_fake_gpu(networks)).param_groups[0]["lr"] == config.learning_rate


def test_the_fake_refuses_memory_figures_before_cuda_is_started(cuda):
    with pytest.raises(RuntimeError, match="Invalid device argument"):
        torch.cuda.reset_peak_memory_stats("cuda:0")
    assert cuda.asked == []


MEMORY_PROGRAM = """
import resource
from pathlib import Path
import torch
from trainer.device import keep_freed_memory
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def measure():
    # The first few find their places.
    for turn in range(20):
        if turn == 16:
            before = faults()
        torch.ones(2**24)
    return faults() - before
before = measure()
keep_freed_memory()
Path(written).write_text(f"{before} {measure()}")
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives memory back so eagerly")
def test_freed_tensors_are_not_mapped_anew(tmp_path: Path):
    written = tmp_path / "faults"
    assert in_a_process(exec, MEMORY_PROGRAM, {"written": str(written)}) == 0
    giving_back, keeping = map(int, written.read_text().split())
    # 64 MiB are 16,384 pages of 4 KiB, or 32 huge ones.
    assert keeping < 20
    assert giving_back > 100
