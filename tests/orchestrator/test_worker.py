"""What a worker does with one trial in its own process; with Ray, see `test_scheduler_failures`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from orchestrator.provenance import code_digest
from orchestrator.worker import Job, attempt
from trainer.config import TrainConfig


def test_the_log_of_a_resumed_trial_marks_the_epochs_of_its_checkpoint(tmp_path: Path, monkeypatch):
    # It is for a process that trains and nothing else.
    monkeypatch.setattr("orchestrator.worker._leave_packages_alone", lambda: None)
    config = TrainConfig(dataset="digits", epochs=2, width=4, stages=2, batch_size=256, subset=20)
    job = Job(
        key=config.key(),
        name="g/small",
        config=config.model_dump(mode="json"),
        cpus=1,
        gpus=0,
        data_root=str(tmp_path),
        checkpoint=str(tmp_path / "small.pt"),
        checkpoint_seconds=0.0,
        log_folder=str(tmp_path / "logs"),
        code_sha256=code_digest(),
    )

    def stops(message: dict[str, Any]) -> None:
        if message["kind"] == "epoch":
            raise RuntimeError("stopped after the first epoch")

    def epochs() -> list[list[str]]:
        logs = sorted((tmp_path / "logs" / "g_small").iterdir())
        return [[line for line in log.read_text().splitlines() if " epoch " in line] for log in logs]

    assert attempt(job, stops).message == "RuntimeError: stopped after the first epoch"
    assert attempt(job, lambda message: None) is None
    ((first,), (again, second)) = epochs()
    said = re.search(r"epoch 0: \d+\.\d\d s, top-1 error \{'main': \d+\.\d+\}", first)[0]
    assert first.endswith(said) and again.endswith(f"{said}  (from the checkpoint)")
    assert re.search(r"epoch 1: .*\}$", second)
