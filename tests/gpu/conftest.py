"""Tests on a real GPU: `make test-gpu`. ORCHESTRATE_GPU_TESTS=cpu tries their code where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.gpu.configs import TRIED_ON_A_CPU


@pytest.fixture(scope="session")
def device() -> str:
    """Return the device that is tested."""
    if torch.cuda.is_available():
        return "cuda:0"
    if TRIED_ON_A_CPU:
        return "cpu"
    pytest.skip("no CUDA device (ORCHESTRATE_GPU_TESTS=cpu tries these tests on the CPU)")


@pytest.fixture(scope="session")
def cuda() -> str:
    """Return a CUDA device, for what no CPU has."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return "cuda:0"


@pytest.fixture
def data_root(tmp_path: Path) -> Path:
    """Return an empty folder: random images need no files."""
    return tmp_path
