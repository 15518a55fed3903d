"""Makes a device ready: the one in use, initialised, with the arithmetic that a configuration's `precision` names."""

from __future__ import annotations

import os

import torch


def prepare_device(device: torch.device, *, deterministic: bool = False) -> None:
    """Prepare a device for training or evaluation; call it before anything else is asked of the device.

    On a GPU float32 is IEEE's, not the 10 bits of TF32 that cuDNN takes otherwise, and `deterministic` asks PyTorch for
    algorithms that give equal bits every time. A CPU needs nothing.

    Raises RuntimeError when there is no such GPU, or its driver does not work.
    """
    if device.type != "cuda":
        return
    if deterministic:
        # Read when cuBLAS makes its first handle.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # Without it the threads that pin memory, and Triton, would use GPU 0 as well.
    torch.cuda.set_device(device)
    # Memory figures of a device that was not initialised are refused.
    torch.cuda.init()
    for backend in (torch.backends.cudnn.conv, torch.backends.cudnn.rnn, torch.backends.cuda.matmul):
        backend.fp32_precision = "ieee"
    # The search for the fastest algorithm picks by timing.
    torch.backends.cudnn.benchmark = not deterministic
    torch.use_deterministic_algorithms(deterministic)
