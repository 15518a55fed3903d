"""docs/notebook.ipynb: it runs as it stands, and is kept without outputs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
PATH = ROOT / "docs/notebook.ipynb"
# Seconds of work, where the quickstart is minutes.
GRID = """
name: quickstart
fixed: {dataset: synthetic, subset: 2, epochs: 2, width: 4}
grid: {methods: [baseline, pskd]}
resources: {gpu: 0, cpu: 1}
report: {tables: [1]}
"""


def own_python() -> Any:
    """Return a manager of kernels that finds this Python alone, whatever kernels the machine has."""
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager

    class OwnPython(KernelSpecManager):
        def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
            command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=command, display_name="Python", language="python", env={"PYTHONPATH": str(ROOT)})

    return OwnPython()


@pytest.fixture
def notebook() -> Any:
    return nbformat.read(PATH, as_version=4)


def test_the_notebook_holds_no_outputs(notebook: Any):
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code and not any(cell.outputs or cell.execution_count for cell in code)
    # Three lines to a table.
    assert len([line for line in code[0].source.splitlines() if line]) == 3


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_notebook_runs_from_the_first_cell_to_a_curve(notebook: Any, tmp_path: Path):
    from nbclient import NotebookClient

    (tmp_path / "grids").mkdir()
    (tmp_path / "grids/quickstart.yaml").write_text(GRID)
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    client.km = client.create_kernel_manager()
    client.km.kernel_spec_manager = own_python()
    client.execute()
    kinds = [
        {kind for output in cell.outputs for kind in output.get("data", {})} if cell.cell_type == "code" else set()
        for cell in notebook.cells
    ]
    table, frame, curve = (kind for cell, kind in zip(notebook.cells, kinds, strict=True) if cell.cell_type == "code")
    assert "text/html" in table and "text/html" in frame and "image/png" in curve
    shown = notebook.cells[3].outputs[0]["data"]["text/plain"]
    assert "pskd" in shown and "baseline" in shown and "cpu" in shown
    # Nothing else is printed: no line of Ray's, no warning.
    streams = [
        output for cell in notebook.cells for output in cell.get("outputs", ()) if output.output_type == "stream"
    ]
    assert streams == []
