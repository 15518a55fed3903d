"""Outcomes per image in exported files."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from orchestrator.database import open_database
from reports import export
from tests.orchestrator.databases import golden


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_files_have_the_bits_of_the_best_and_last_epochs(tmp_path: Path, format: str) -> None:
    shutil.copy(golden.FOLDER / "v3.sqlite", tmp_path / "r.db")
    with open_database(tmp_path / "r.db", readonly=True) as database:
        export(database, tmp_path / "export", format)
    path = tmp_path / "export" / f"outcomes.{format}"
    rows = pd.read_csv(path) if format == "csv" else pd.read_parquet(path)
    assert list(rows.columns) == ["key", "epoch", "network", "images", "labels_sha256", "correct"]
    errors = [
        100 - 100 * np.unpackbits(np.frombuffer(bytes.fromhex(row.correct), np.uint8), count=row.images).mean()
        for row in rows.itertuples()
    ]
    assert list(rows.epoch) == [2, 3, 2, 3]
    assert errors == pytest.approx([25.0, 26.0, 24.5, 26.0])
