"""`orchestrate doctor`: the lines that it prints, and that it would tell of a difference."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import tempfile
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.console import check_machine, check_resume, doctor
from orchestrator.console.doctor import COMBINATIONS, SMALL
from orchestrator.console.machine import Finding
from trainer.checkpoint import save_checkpoint
from trainer.config import TrainConfig
from trainer.parts import METHODS


def test_resuming_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert check_resume(("dml,pskd",))
    shown = capsys.readouterr().out
    assert "SIGKILL" in shown
    assert [line.split() for line in shown.splitlines()[2:]] == [["dml", "+", "pskd", "identical"]]


def test_every_method_is_resumed() -> None:
    names = {name for combination in COMBINATIONS for name in combination.split(",") if name}
    assert names == set(METHODS)
    three = {frozenset(c.split(",")) - {""} for c in COMBINATIONS if set(c.split(",")) <= {"", "byot", "dmfl", "pskd"}}
    assert len(three) == 8
    for combination in COMBINATIONS:
        assert TrainConfig(**SMALL, methods={name: {} for name in combination.split(",") if name}).epochs == 2


def test_a_training_that_fails_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert not check_resume(("no_such_method",))
    printed = capsys.readouterr().out
    assert "no_such_method       a training ended with exit code 1, not 0" in printed
    assert "1 of 1 differ" in printed


def test_a_difference_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def train(methods: str, checkpoint: Path, device: str, *, kill_after_first: bool) -> int:
        # A loss of precision on the way through a checkpoint.
        weight = torch.tensor([0.1, 0.2])
        if checkpoint.exists():
            weight = weight.bfloat16().float()
        result = {"epoch": 0, "train_seconds": weight.sum().item(), "restored": checkpoint.exists()}
        state = {"networks": {"weight": weight}, "optimizer": {}, "methods": {}, "results": [result]}
        save_checkpoint(checkpoint, TrainConfig(), state)
        return -signal.SIGKILL if kill_after_first else 0

    monkeypatch.setattr(doctor, "_train_in_a_process", train)
    assert not check_resume(("", "pskd"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["baseline", "networks/weight", "differs"]
    assert lines[-1].startswith("2 of 2 differ")


def test_the_machine_is_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_machine(tmp_path)
    shown = capsys.readouterr().out
    for words in (f"torch {torch.__version__}".split("+")[0], "cpu: ", "GiB of memory available", "GiB free in"):
        assert words in shown
    lines = shown.splitlines()
    assert "data      digits: there" in lines
    missing = f"{tmp_path}/cifar-100-python/train is missing"
    assert f"data      cifar100: {missing}; a grid that needs it downloads it" in lines
    assert f"data      imagenet: {tmp_path}/imagenet is missing" in lines


def test_a_machine_that_cannot_hold_results_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        usage = namedtuple("usage", "total used free")
        patched.setattr(shutil, "disk_usage", lambda path: usage(2**40, 2**40, 2**29))
        assert not check_machine(tmp_path)
    assert "0.5 GiB free" in capsys.readouterr().out

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with monkeypatch.context() as patched:
        # A full disk takes no new file, whoever has the right to write one.
        patched.setattr(tempfile, "TemporaryFile", refuse)
        assert not check_machine(tmp_path)
    assert "cannot be written to (Disk quota exceeded): the database cannot" in capsys.readouterr().out


def test_resuming_on_a_gpu_asks_for_deterministic_algorithms(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr("trainer.train.train", lambda config, report, **manner: asked.append(manner))
    for device in ("cpu", "cuda"):
        doctor._train("pskd", tmp_path / "c.pt", device, None, False)
    assert [(manner["device"], manner.get("deterministic", False)) for manner in asked] == [
        ("cpu", False),
        ("cuda", True),
    ]


def test_resuming_on_a_gpu_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "gpus_here", lambda: 0)
    result = CliRunner().invoke(app, ["doctor", "--resume", "--device", "cuda"])
    assert result.exit_code == 1
    assert "there is no GPU here to resume on" in result.output


def test_what_would_fail_ends_with_an_exit_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "gpus", lambda cuda: [Finding("note", "MIG"), Finding("fail", "driver 550 is old")])
    result = CliRunner().invoke(app, ["doctor", "--data-root", str(tmp_path)])
    assert result.exit_code == 1
    assert "device    driver 550 is old" in result.output


@pytest.mark.parametrize(("agreed", "code"), [(True, 0), (False, 1)])
def test_the_exit_code_tells_programs(agreed: bool, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "check_resume", lambda device: agreed)
    monkeypatch.setattr(doctor, "check_machine", lambda data_root: agreed)
    assert CliRunner().invoke(app, ["doctor", "--resume"]).exit_code == code
    assert CliRunner().invoke(app, ["doctor"]).exit_code == code
