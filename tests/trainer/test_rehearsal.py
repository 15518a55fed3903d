"""Rehearsals: what they measure, what they leave behind, and that they fail where training would."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.trainer.training import small, title
from trainer.canary import rehearse
from trainer.config import TrainConfig
from trainer.data.splits import DataError
from trainer.train import Diverged, train

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"dataset": "digits", "width": 4, "subset": 20, "batch_size": 32, "epochs": 1, "precision": "float32"}


def config(**changes) -> TrainConfig:
    return TrainConfig(**{**SMALL, **changes})


@pytest.mark.parametrize(
    "methods", [{}, {"byot": {}, "dmfl": {}, "pskd": {}}, {"tfkd": {}}, {"cskd": {}}, {"dml": {}}], ids=title
)
def test_it_measures_what_the_training_has(methods, data_root, tmp_path):
    wanted = small(methods=methods, epochs=1)
    rehearsal = rehearse(wanted, device="cpu", data_root=data_root, folder=tmp_path / "canary")
    assert list((tmp_path / "canary").iterdir()) == []
    checkpoint = tmp_path / "run.pt"
    result = train(wanted, lambda result: None, data_root=data_root, checkpoint=checkpoint)
    assert rehearsal.parameters == result.parameters
    # Without the results of an epoch, which are a few kilobytes.
    assert rehearsal.checkpoint_bytes == pytest.approx(checkpoint.stat().st_size, rel=0.05)
    assert rehearsal.seconds_per_epoch > 0
    assert (rehearsal.launch_share, rehearsal.peak_memory_bytes, rehearsal.reserved_memory_bytes) == (1.0, None, None)


def test_an_epoch_is_extrapolated_from_a_step_and_the_evaluation_of_some_images(tmp_path, monkeypatch):
    now = iter(range(100))
    monkeypatch.setattr("trainer.canary.time", SimpleNamespace(perf_counter=lambda: float(next(now))))
    # The step begins at 0, was handed over at 1 and is over at 2; the evaluation takes from 3 to 4. The last of 200
    # training images' first two batches has 32 of them; all 360 test images were evaluated.
    rehearsal = rehearse(config(), device="cpu", data_root=tmp_path, folder=tmp_path)
    assert rehearsal.seconds_per_epoch == pytest.approx(2 * 200 / 32 + 1)


def test_a_training_of_one_step_can_be_rehearsed(tmp_path):
    assert rehearse(config(batch_size=500), device="cpu", data_root=tmp_path, folder=tmp_path).seconds_per_epoch > 0


def test_it_fails_where_training_would(tmp_path):
    with pytest.raises(Diverged, match="not finite at step"):
        rehearse(config(learning_rate=1e30), device="cpu", data_root=tmp_path, folder=tmp_path)
    with pytest.raises(DataError):
        rehearse(config(dataset="cifar100", subset=None), device="cpu", data_root=tmp_path, folder=tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        rehearse(config(), device="cpu", data_root=tmp_path, folder=tmp_path / "file")


def test_it_changes_nothing_of_a_training(data_root, tmp_path):
    wanted = small(methods={"pskd": {}}, epochs=1)
    before = train(wanted, lambda result: None, data_root=data_root)
    rehearse(wanted, device="cpu", data_root=data_root, folder=tmp_path)
    after = train(wanted, lambda result: None, data_root=data_root)
    assert (before.losses, before.evaluations) == (after.losses, after.evaluations)
