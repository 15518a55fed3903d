"""Files that a folder of images leaves out are named when a grid starts, once for each data set."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from orchestrator.scheduler import Observer, RunOptions, make_ready
from tests.trainer.fake_datasets import fake_folder
from trainer.config import TrainConfig


def test_files_left_out_are_said_once_before_a_grid(tmp_path: Path) -> None:
    for name in ("insects", "birds"):
        fake_folder(tmp_path / name)
        (tmp_path / name / "train/ant/0.npy").write_text("")
    configs = [TrainConfig(dataset="folder:insects", ood_dataset=other) for other in (None, "digits", "folder:birds")]
    options = RunOptions("grid", tmp_path, tmp_path / "checkpoints", tmp_path / "logs", {})
    lines: list[str] = []
    make_ready([SimpleNamespace(config=config) for config in configs], options, Observer(note=lines.append))
    assert [line.partition(": left out 1 file ")[0] for line in lines] == ["folder:insects", "folder:birds"]
