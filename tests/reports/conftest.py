"""One made-up database for all tests of reports, and golden files that only GOLDEN_WRITE=1 writes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.database import Database
from tests.reports.synthetic import make_database

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Database:
    """Grids like the project's, unfinished in every way; read only."""
    with make_database(tmp_path_factory.mktemp("reports") / "results.db") as opened:
        yield opened


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """Compare a text with a file below `golden/`; a missing file is a failure, unless GOLDEN_WRITE=1 writes it."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if os.environ.get("GOLDEN_WRITE") == "1":
            path.write_text(text, encoding="utf-8", newline="\n")
        assert path.is_file(), f"{path} is missing; GOLDEN_WRITE=1 writes it"
        assert text == path.read_text(encoding="utf-8"), f"{path} differs; look at it, then GOLDEN_WRITE=1 rewrites it"

    return check


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write an empty picture for each figure: for tests that show where files go, and nothing of what figures show."""
    monkeypatch.setattr("reports.figures.drawing._bytes", lambda figure, format: b"<svg></svg>")
