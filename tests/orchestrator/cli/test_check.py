"""`orchestrate check`: a line for each check, and exit codes for scripts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator.cli import app
from trainer.plugins import load_plugins

METRICS = """
from trainer import metric


@metric("brier", direction="lower")
def brier(probabilities, labels):
    right = probabilities.new_zeros(probabilities.shape).scatter_(1, labels[:, None], 1)
    return (probabilities - right).square().sum(1).mean().item()
"""
IN_ORDER = """

@metric("last", direction="higher")
def last(probabilities, labels):
    return probabilities[-1, labels[-1]].item()
"""
RANDOM_IMAGES = """
import numpy as np
from trainer import dataset


@dataset("noise", classes=2, size=16)
def noise(root):
    images = np.random.default_rng().integers(0, 256, (8, 16, 16, 3), dtype=np.uint8), np.arange(8) % 2
    return images, images
"""


@pytest.fixture(autouse=True)
def no_plugins_left() -> Iterator[None]:
    yield
    load_plugins([], Path())


def checked(folder: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, name: str = "parts.py"):
    monkeypatch.chdir(folder)
    if content is not None:
        (folder / "parts.py").write_text(content)
    return CliRunner().invoke(app, ["check", name])


def test_every_check_has_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = checked(tmp_path, monkeypatch, METRICS)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[:-1] and all(line.startswith("ok     metric brier: it") for line in lines[:-1])
    assert lines[-1] == "1 part checked: nothing wrong"


def test_a_problem_is_named_with_what_to_do_and_exit_code_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = checked(tmp_path, monkeypatch, METRICS + IN_ORDER)
    assert result.exit_code == 1
    (line,) = (line for line in result.output.splitlines() if line.startswith("WRONG"))
    assert line.startswith("WRONG  metric last: it does not depend on the order of images: depends on the order")
    assert "average over all of them" in line
    assert result.output.splitlines()[-1] == "2 parts checked: 1 problem found"


def test_a_faulty_data_set_is_named_with_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = checked(tmp_path, monkeypatch, RANDOM_IMAGES)
    assert result.exit_code == 1, result.output
    first, second, _ = result.output.splitlines()
    assert first == "ok     data set noise: it gives what it declares"
    place = f"{tmp_path / 'parts.py'}:6 gives other images or labels when it is read again"
    assert second.startswith(f"WRONG  data set noise: it gives the same images every time: {place}")
    # Where the declaration is wrong, the sentence is the one of reading a data set, which begins with the file.
    result = checked(
        tmp_path, monkeypatch, RANDOM_IMAGES.replace("default_rng()", "default_rng(0)").replace("=16", "=32")
    )
    (line,) = (line for line in result.output.splitlines() if line.startswith("WRONG"))
    assert line.startswith(
        f"WRONG  data set noise: it gives what it declares: {tmp_path / 'parts.py'}:6 gives images of 16 pixels"
    )


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("def", "parts.py", "is not Python"),
        ("raise ValueError('no')", "parts.py", "running it raises ValueError: no"),
        ("x = 1", "parts.py", "registers no method, network, data set or metric"),
        (METRICS, "part.py", "did you mean"),
    ],
)
def test_a_file_that_cannot_be_loaded_has_exit_code_2(
    content: str, name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = checked(tmp_path, monkeypatch, content, name)
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output
