"""Timing quality: whether other processes used the device while an epoch was measured."""

from orchestrator.timing.gpu import allowed_gpus, gpus_here, load_nvml
from orchestrator.timing.procfs import processors
from orchestrator.timing.sampler import DeviceSampler, Timing, device_facts, label, worst

__all__ = [
    "DeviceSampler",
    "Timing",
    "allowed_gpus",
    "device_facts",
    "gpus_here",
    "label",
    "load_nvml",
    "processors",
    "worst",
]
