"""Outcomes per image: they are those of the metrics, cost no bit of a training, and survive a resume."""

from __future__ import annotations

import hashlib
import itertools
import json
import signal
import zlib
from base64 import b64decode
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.trainer.training import assert_same, content, in_a_process, small
from trainer.checkpoint import read_checkpoint
from trainer.config import TrainConfig
from trainer.metrics import compute_metrics
from trainer.outcomes import Keeper, drop_surpassed
from trainer.results import EpochResult, Evaluation, Metrics, Outcomes
from trainer.train import train

pytestmark = pytest.mark.usefixtures("one_thread")


def reported(config: TrainConfig, data_root: Path, **options: Any) -> list[EpochResult]:
    results: list[EpochResult] = []
    train(config, results.append, data_root=data_root, **options)
    return results


def main(result: EpochResult, network: int = 0) -> Evaluation:
    """Return the evaluation of a network's main classifier on the test split."""
    (evaluation,) = [
        each for each in result.evaluations if (each.network, each.classifier, each.split) == (network, "main", "test")
    ]
    return evaluation


def bits(outcomes: Outcomes, images: int) -> np.ndarray:
    return np.unpackbits(np.frombuffer(b64decode(outcomes.correct), np.uint8), count=images)


def unpacked(text: str, dtype: str) -> np.ndarray:
    return np.frombuffer(zlib.decompress(b64decode(text)), dtype)


def test_the_bits_are_those_of_the_error(data_root: Path) -> None:
    results = reported(small(epochs=6), data_root, outcomes="correct")
    measured = [main(result) for result in results]
    assert measured[0].outcomes and measured[-1].outcomes
    for evaluation in measured:
        if evaluation.outcomes:
            assert 100 * (1 - bits(evaluation.outcomes, evaluation.images).mean()) == pytest.approx(
                evaluation.metrics.top1_error
            )
            assert evaluation.outcomes.probabilities == evaluation.outcomes.labels == ""
    assert len({evaluation.outcomes.labels_sha256 for evaluation in measured if evaluation.outcomes}) == 1
    assert not any(
        evaluation.outcomes
        for result in results
        for evaluation in result.evaluations
        if evaluation.classifier != "main"
    )


def test_probabilities_give_the_metrics_again(data_root: Path) -> None:
    measured = main(reported(small(epochs=1), data_root, outcomes="probabilities")[0])
    labels = unpacked(measured.outcomes.labels, "<i4")
    assert hashlib.sha256(labels.tobytes()).hexdigest() == measured.outcomes.labels_sha256
    probabilities = unpacked(measured.outcomes.probabilities, "<f2").reshape(measured.images, -1)
    again = compute_metrics(torch.tensor(probabilities).double(), torch.tensor(labels).long())
    assert again.nll == pytest.approx(measured.metrics.nll, rel=1e-2)
    assert again.top1_error == pytest.approx(measured.metrics.top1_error)


def test_they_are_there_for_the_best_so_far_and_the_last_of_each_network_and_split(data_root: Path) -> None:
    config = small(methods={"dml": {}}, peer="resnet18", epochs=5, validation=6)
    results = reported(config, data_root, outcomes="correct")
    for network in (0, 1):
        best = {"test": float("inf"), "validation": float("inf")}
        for result in results:
            errors = {
                evaluation.split: evaluation.metrics.top1_error
                for evaluation in result.evaluations
                if (evaluation.network, evaluation.classifier) == (network, "main")
            }
            wanted = any(errors[split] < best[split] for split in best) or result.epoch == 4
            assert (main(result, network).outcomes is not None) == wanted
            best = {split: min(best[split], errors[split]) for split in best}


def test_keeping_them_changes_no_bit_of_a_training(data_root: Path, tmp_path: Path) -> None:
    config = small(methods={"byot": {}, "pskd": {}}, epochs=3)
    states = []
    for kind in ("none", "probabilities"):
        train(config, lambda result: None, data_root=data_root, checkpoint=tmp_path / kind, outcomes=kind)
        state = content(tmp_path / kind)
        for evaluation in itertools.chain(*(result["evaluations"] for result in state["results"])):
            evaluation["outcomes"] = None
        states.append(state)
    assert_same(*states)


def _die_after(config: TrainConfig, checkpoint: Path, data_root: Path, epochs: int) -> None:
    import os

    def report(result: EpochResult) -> None:
        if result.epoch == epochs - 1:
            os.kill(os.getpid(), signal.SIGKILL)

    train(config, report, checkpoint=checkpoint, data_root=data_root, outcomes="correct")


def test_a_resumed_training_reports_those_of_an_undisturbed_one(data_root: Path, tmp_path: Path) -> None:
    config = small(epochs=6, learning_rate=0.3)
    straight = reported(config, data_root, outcomes="correct")
    checkpoint = tmp_path / "resumed.pt"
    assert in_a_process(_die_after, config, checkpoint, data_root, 4) == -signal.SIGKILL
    resumed = reported(config, data_root, checkpoint=checkpoint, outcomes="correct")
    assert [result.restored for result in resumed] == [True] * 4 + [False] * 2
    for one, other in zip(straight[4:], resumed[4:], strict=True):
        assert main(one).outcomes == main(other).outcomes
    # Of the epochs in the checkpoint: the best one and the newest.
    best = min(range(4), key=lambda epoch: main(straight[epoch]).metrics.top1_error)
    assert main(resumed[best]).outcomes == main(straight[best]).outcomes is not None
    assert {epoch for epoch in range(4) if main(resumed[epoch]).outcomes} <= {best, 3}
    json.dumps([result.to_dict() for result in resumed])
    stored = read_checkpoint(checkpoint)["results"]
    assert 1 <= sum(bool(each["outcomes"]) for result in stored for each in result["evaluations"]) <= 2


def test_none_is_the_default_of_the_trainer(data_root: Path) -> None:
    assert not any(each.outcomes for each in reported(small(epochs=1), data_root)[0].evaluations)


def epoch(number: int, error: float, outcomes: bool = True) -> EpochResult:
    kept = Outcomes("1a", "AA==") if outcomes else None
    evaluation = Evaluation(0, "main", Metrics(error, 1, 1, 1, 1), 8, outcomes=kept)
    return EpochResult(number, 0.1, 1, 1, 1, 8, {}, [evaluation])


def test_a_checkpoint_carries_few() -> None:
    results = []
    for number, (error, expected) in enumerate([(5, {0}), (4, {1}), (6, {1, 2}), (4, {1, 3}), (3, {4})]):
        results.append(epoch(number, error))
        drop_surpassed(results)
        assert {place for place, result in enumerate(results) if main(result).outcomes} == expected


def test_a_keeper_knows_the_epochs_from_before() -> None:
    keeper = Keeper("correct", 9)
    keeper.see([epoch(0, 5, outcomes=False), epoch(1, 3, outcomes=False)])
    kept = {0: (torch.ones(8, dtype=torch.bool), None, torch.arange(8))}
    (same,) = keeper.keep(2, epoch(2, 3, outcomes=False).evaluations, kept)
    (better,) = keeper.keep(3, epoch(3, 2, outcomes=False).evaluations, kept)
    (last,) = keeper.keep(8, epoch(8, 9, outcomes=False).evaluations, kept)
    assert same.outcomes is None and better.outcomes is not None and last.outcomes is not None
