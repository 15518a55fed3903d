"""Memory that a process frees stays its own."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
from trainer.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
# The first few find their places.
for turn in range(20):
    if turn == 16:
        before = faults()
    torch.ones(2**24)
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives memory back so eagerly")
def test_freed_tensors_are_not_mapped_anew():
    def page_faults(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
        return int(done.stdout)

    # 64 MiB are 16,384 pages of 4 KiB, or 32 huge ones.
    assert page_faults("keep") < 20
    assert page_faults("give back") > 100
