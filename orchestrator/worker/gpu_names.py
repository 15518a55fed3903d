"""Names of the GPU on which a process trains: its UUID, and the one that people use."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def gpu_uuid(device: str) -> str | None:
    """Return the UUID of the GPU that PyTorch calls cuda:i, as NVML has it; None for a CPU, or where PyTorch is mute.

    PyTorch has it from CUDA, so that it is right in every order of the GPUs and within every limit to some of them.
    """
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return None
    visible = _visible(device)
    if visible.startswith("MIG-"):
        # CUDA may give the whole GPU's for a slice.
        return visible
    with suppress(Exception):
        # A PyTorch or a driver that does not work fails the trial in its own words, once it trains.
        import torch

        uuid = str(torch.cuda.get_device_properties(int(index or 0)).uuid)
        return uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
    return None


def _visible(device: str) -> str:
    """Return the name or number that CUDA_VISIBLE_DEVICES has for cuda:i; the number i where nothing is set."""
    index = int(device.partition(":")[2] or 0)
    names = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return names[index] if index < len(names) and names[index] else str(index)


def gpu_name(device: str) -> str:
    """Return what tells a GPU from every other one, for people who look for a broken one; empty for a CPU."""
    if not device.startswith("cuda"):
        return ""
    return f"{gpu_uuid(device) or f'GPU {_visible(device)}'} on {socket.gethostname()}"
