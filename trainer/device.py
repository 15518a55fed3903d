"""Prepare the device of a process, once, before any other use of CUDA, and the memory that it keeps."""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
EQUAL_BITS = (":4096:8", ":16:8")
# The names of glibc's malloc.h; a threshold of -1 is never reached, however much is free.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
NEVER = -1

log = logging.getLogger(__name__)


def prepare_device(device: str | torch.device, *, deterministic: bool = False) -> torch.device:
    """Make a device the current one of this process, with the arithmetic that a configuration promises.

    On a GPU float32 is IEEE float32 (PyTorch's default rounds the operands of convolutions to TF32, 10 bits of
    mantissa), and cuDNN searches the fastest kernels. With `deterministic` PyTorch takes kernels that give equal bits
    in every run; they are slower. On a CPU nothing depends on `deterministic`.

    Returns the device with its index. Raises RuntimeError when CUDA does not start.
    """
    device = torch.device(device)
    on_gpu = device.type == "cuda"
    torch.use_deterministic_algorithms(deterministic and on_gpu)
    if not on_gpu:
        return device
    _fix_workspace()
    device = torch.device("cuda", device.index or 0)
    # Memory figures, streams and threads that load data take the current device, and none of them starts CUDA itself.
    torch.cuda.set_device(device)
    torch.cuda.init()
    backends = torch.backends
    # PyTorch has two names for each of these, and refuses to answer where they say different things.
    backends.cudnn.allow_tf32 = backends.cuda.matmul.allow_tf32 = False
    cudnn: Any = backends.cudnn
    for backend in (cudnn.conv, cudnn.rnn, backends.cuda.matmul):
        backend.fp32_precision = "ieee"
    backends.cudnn.benchmark = not deterministic
    return device


def _fix_workspace() -> None:
    """Have cuBLAS take a workspace with which a deterministic trial's bits are equal in every run.

    PyTorch looks at it once in a process, at the first product of matrices: such a trial may follow others. Source of
    the values: NVIDIA, cuBLAS, "Results reproducibility".
    """
    given = os.environ.get(WORKSPACE)
    if given in EQUAL_BITS:
        return
    if given:
        log.warning(f"{WORKSPACE}={given} does not give equal bits in every run: {EQUAL_BITS[0]} is used instead")
    os.environ[WORKSPACE] = EQUAL_BITS[0]


@contextmanager
def without_search() -> Iterator[None]:
    """Have cuDNN take kernels without a search: shapes that are rare are not worth the seconds of one.

    `torch.backends.cudnn.flags` would also switch TF32 on.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def upload(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return `values` on the device, without waiting for the device."""
    if device.type == "cpu":
        return values
    return values.pin_memory().to(device, non_blocking=True)


def wait_for(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def keep_freed_memory() -> None:
    """Have this process keep the memory that it frees, for its next allocation.

    On a CPU every step allocates the same large tensors. Given back to the kernel in between, each page of them is
    cleared and mapped anew, which takes some percent of the time. Does nothing where the C library is not glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, NEVER)
