"""Metrics of one's own: what they get, what they may give, and that measuring changes nothing of a training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.trainer.training import assert_same, small, trained
from trainer.builtin_metrics import ALWAYS
from trainer.canary import rehearse
from trainer.metrics import compute_metrics, excess_aurc
from trainer.own_metrics import MetricError, measure, try_out
from trainer.parts import METRICS, metric
from trainer.results import EpochResult
from trainer.train import train

LABELS = torch.tensor([0, 2, 1, 1])


@pytest.fixture(autouse=True)
def _apart() -> Iterator[None]:
    """Take the metrics of a test out of the registry again."""
    with METRICS.apart():
        yield


def own(function, name: str = "own"):
    return metric(name, title="Own", direction="lower", digits=3)(function)


def brier(probabilities, labels):
    return ((probabilities - torch.nn.functional.one_hot(labels, probabilities.shape[1])) ** 2).sum(1).mean()


def softmax(seed: int = 0, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(seed)).softmax(1).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_metric_gets_copies_in_full_precision(dtype: torch.dtype) -> None:
    seen = []

    def greedy(probabilities, labels):
        seen.append((probabilities.clone(), labels.clone()))
        probabilities.zero_()
        labels.zero_()
        return 1

    own(greedy, "first")
    own(greedy, "second")
    probabilities, labels = softmax(dtype=dtype), LABELS.clone()
    assert measure(["first", "second"], probabilities, labels) == {"first": 1.0, "second": 1.0}
    for given, targets in seen:
        assert (given.dtype, targets.dtype) == (torch.float64, torch.int64)
        assert torch.equal(given, softmax(dtype=dtype).double()) and torch.equal(targets, LABELS)
    assert torch.equal(probabilities, softmax(dtype=dtype)) and torch.equal(labels, LABELS)


def test_a_metric_of_random_numbers_takes_none_from_the_training() -> None:
    own(lambda probabilities, labels: torch.rand(()))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    measure(["own"], softmax(), LABELS)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (math.nan, r"the metric 'own' \(.*test_own_metrics.py:\d+\) returns nan, not a finite number, for "),
        (math.inf, "returns inf, not a finite number"),
        (None, r"returns a NoneType, not a number, for probabilities \[4, 3\] and labels \[4\]"),
        ("0.5", "returns a str, not a number"),
        (True, "returns a bool, not a number"),
        (torch.ones(2), "returns a Tensor, not a number"),
        (1j, "returns a complex, not a number"),
    ],
)
def test_what_is_no_finite_number_is_refused(returned: object, message: str) -> None:
    own(lambda probabilities, labels: returned)
    with pytest.raises(MetricError, match=message) as caught:
        measure(["own"], softmax(), LABELS)
    assert caught.value.failure == "code"


def test_a_metric_that_fails_is_named_with_its_reason() -> None:
    own(lambda probabilities, labels: probabilities[:, 7].mean())
    with pytest.raises(MetricError, match=r"the metric 'own' \(.*\) fails for probabilities \[16, 3\].*IndexError: "):
        try_out(["own"], 3)


def test_what_has_diverged_is_not_measured() -> None:
    own(lambda probabilities, labels: 1 / 0)
    assert measure(["own"], softmax() * math.nan, LABELS) == {}


def test_the_built_in_metrics_are_registered_and_agree_with_those_of_every_evaluation() -> None:
    computed = compute_metrics(softmax(dtype=torch.float64), LABELS)
    values = measure([*ALWAYS, "e_aurc"], softmax(), LABELS)
    assert values.pop("e_aurc") == excess_aurc(softmax(dtype=torch.float64), LABELS)
    assert {ALWAYS[name]: value for name, value in values.items()} == vars(computed)


def test_every_classifier_is_measured_and_nothing_else_changes(data_root: Path, tmp_path: Path) -> None:
    own(brier, "brier")
    config = small(methods={"byot": {}}, validation=6)
    plain = trained(config, tmp_path / "plain.pt", data_root)
    state = trained(config, tmp_path / "own.pt", data_root, own_metrics=["brier", "e_aurc"])
    for before, after in zip(plain.pop("results"), state.pop("results"), strict=True):
        assert len(after["evaluations"]) == 10
        for evaluation in after["evaluations"]:
            values = evaluation.pop("own_metrics")
            assert list(values) == ["brier", "e_aurc"] and 0 < values["brier"] < 2
        for evaluation in before["evaluations"]:
            assert evaluation.pop("own_metrics") == {}
        assert before == after
    assert_same(state, plain)


def test_a_resumed_training_keeps_and_goes_on_with_own_metrics(data_root: Path, tmp_path: Path) -> None:
    own(brier, "brier")
    whole = trained(small(), tmp_path / "whole.pt", data_root, own_metrics=["brier"])
    reported: list[EpochResult] = []
    for stop in (1, None):
        reported.clear()
        train(
            small(),
            reported.append,
            checkpoint=tmp_path / "cut.pt",
            data_root=data_root,
            stop_after=stop,
            own_metrics=["brier"],
        )
    assert [result.restored for result in reported] == [True, False]
    values = [[each["own_metrics"] for each in result["evaluations"]] for result in whole["results"]]
    assert [[each.own_metrics for each in result.evaluations] for result in reported] == values
    assert EpochResult.from_dict(reported[0].to_dict()) == reported[0]


def test_a_metric_that_fails_does_so_before_the_first_step(data_root: Path, tmp_path: Path) -> None:
    own(lambda probabilities, labels: [])
    reported: list[EpochResult] = []
    with pytest.raises(MetricError, match=r"returns a list, not a number, for probabilities \[16, 6\]"):
        train(small(), reported.append, checkpoint=tmp_path / "x.pt", data_root=data_root, own_metrics=["own"])
    assert not reported and not list(tmp_path.iterdir())
    with pytest.raises(MetricError):
        rehearse(small(), device="cpu", data_root=data_root, folder=tmp_path, own_metrics=["own"])
