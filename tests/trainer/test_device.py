"""A GPU is made ready before anything is asked of it; `torch.cuda` is a fake that insists on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.orchestrator.fake_gpu import FakeCuda
from trainer.config import TrainConfig
from trainer.device import prepare_device
from trainer.rehearsal import rehearse
from trainer.train import train


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave PyTorch's settings as they were."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    before = (torch.backends.cudnn.benchmark, torch.are_deterministic_algorithms_enabled())
    backends = (torch.backends.cudnn.conv, torch.backends.cudnn.rnn, torch.backends.cuda.matmul)
    precisions = [backend.fp32_precision for backend in backends]
    yield
    torch.backends.cudnn.benchmark = before[0]
    torch.use_deterministic_algorithms(before[1])
    for backend, precision in zip(backends, precisions, strict=True):
        backend.fp32_precision = precision


@pytest.mark.parametrize("deterministic", [False, True])
def test_float32_is_ieee_s_and_determinism_is_asked_for(monkeypatch: pytest.MonkeyPatch, deterministic: bool) -> None:
    cuda = FakeCuda(monkeypatch.setattr)
    used: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", used.append)
    torch.use_deterministic_algorithms(not deterministic)
    prepare_device(torch.device("cuda:1"), deterministic=deterministic)
    assert used == [torch.device("cuda:1")] and cuda.initialized
    assert torch.backends.cudnn.conv.fp32_precision == torch.backends.cuda.matmul.fp32_precision == "ieee"
    assert torch.backends.cudnn.benchmark != deterministic
    assert torch.are_deterministic_algorithms_enabled() == deterministic


@pytest.mark.parametrize("deterministic", [False, True])
def test_training_and_rehearsing_prepare_the_gpu_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, deterministic: bool
) -> None:
    config = TrainConfig(dataset="digits", epochs=1, width=4, stages=2)

    class Ready(Exception):
        pass

    def load(*_: Any) -> None:
        assert torch.cuda.is_initialized()
        assert torch.are_deterministic_algorithms_enabled() == deterministic
        raise Ready

    for module in ("trainer.train", "trainer.rehearsal"):
        monkeypatch.setattr(f"{module}.load_splits", load)
    for work in (
        lambda: train(config, print, device="cuda:0", data_root=tmp_path, deterministic=deterministic),
        lambda: rehearse(config, device="cuda:0", data_root=tmp_path, folder=tmp_path, deterministic=deterministic),
    ):
        FakeCuda(monkeypatch.setattr)
        with pytest.raises(Ready):
            work()


def test_a_cpu_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda(monkeypatch.setattr)
    prepare_device(torch.device("cpu"), deterministic=True)
    assert not cuda.initialized and not torch.are_deterministic_algorithms_enabled()
