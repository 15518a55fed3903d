"""Writes grid files for the tests, and loads them."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from orchestrator.grid import Grid, GridError, load_grid

GRIDS = Path(__file__).parents[2] / "grids"
SHIPPED = sorted(GRIDS.glob("*.yaml"))


def load(content: str | bytes | dict[str, Any]) -> Grid:
    """The grid of a file with this content; a mapping is written as JSON, which is YAML too."""
    data = json.dumps({"name": "test", **content}) if isinstance(content, dict) else content
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "test.yaml"
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return load_grid(path)


def problems(content: str | bytes | dict[str, Any]) -> list[str]:
    """Return every problem of such a file as `line: key: message`."""
    try:
        grid = load(content)
    except GridError as error:
        assert all(problem.file.endswith("test.yaml") for problem in error.problems)
        return [str(problem).split("test.yaml:", 1)[1] for problem in error.problems]
    raise AssertionError(f"{len(grid.trials)} trials instead of a problem")


def keys(content: str | dict[str, Any]) -> set[str]:
    """The keys of a grid's trials."""
    return {trial.key for trial in load(content).trials}


def names(content: str | dict[str, Any]) -> list[str]:
    """The names of a grid's trials, in its order."""
    return [trial.name for trial in load(content).trials]
