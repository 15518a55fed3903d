"""A run of the tests ends in its own last line."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

LEAK = """
import ctypes, sys
import triton._C.libtriton as library
ctypes.pythonapi.Py_IncRef(ctypes.py_object(library.ir.context()))
print("the last word", file=sys.stderr)
"""


@pytest.mark.skipif(not importlib.util.find_spec("triton"), reason="this PyTorch has no Triton")
def test_what_triton_calls_leaks_is_not_printed() -> None:
    def standard_error(program: str) -> str:
        command = [sys.executable, "-c", program]
        return subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True).stderr

    if "nanobind: leaked" not in standard_error(LEAK):
        pytest.skip("this Triton prints nothing")
    assert standard_error(f"import tests.conftest\n{LEAK}") == "the last word\n"
