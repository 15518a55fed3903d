"""Memory that a process frees stays its own."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from tests.trainer.training import in_a_process

PROGRAM = """
import resource
from pathlib import Path
import torch
from trainer.memory import keep_freed_memory
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
    assert in_a_process(exec, PROGRAM, {"written": str(written)}) == 0
    giving_back, keeping = map(int, written.read_text().split())
    # 64 MiB are 16,384 pages of 4 KiB, or 32 huge ones.
    assert keeping < 20
    assert giving_back > 100
