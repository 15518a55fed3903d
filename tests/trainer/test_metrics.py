"""The metrics against loops over samples, torchmetrics, scikit-learn and the released code's values."""

import json
import math
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainer.toy import RefuseWaiting
from trainer.metrics import compute_metrics, excess_aurc, ood_auroc
from trainer.results import Metrics

CASES = json.loads((Path(__file__).parent / "golden" / "golden_metrics.json").read_text())


@pytest.fixture(params=CASES, ids=lambda case: f"seed{case['seed']}")
def case(request):
    inputs = request.param["inputs"]
    probabilities = torch.tensor(inputs["probabilities"], dtype=torch.float64)
    return probabilities, torch.tensor(inputs["targets"]), request.param["expected"]


def sample(count=200, classes=10, seed=0, scale=2.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(count, classes, generator=generator, dtype=dtype)
    return logits.softmax(1), torch.randint(classes, (count,), generator=generator)


def slow_ece(probabilities, labels, bins):
    rows = [(max(row), row.index(max(row)) == label) for row, label in zip(probabilities, labels, strict=True)]
    total = 0.0
    for number in range(bins):
        low, high = number / bins, (number + 1) / bins
        inside = [(c, r) for c, r in rows if low < c <= high or (number == 0 and c == 0)]
        if inside:
            accuracy = sum(right for _, right in inside) / len(inside)
            confidence = sum(c for c, _ in inside) / len(inside)
            total += len(inside) / len(rows) * abs(accuracy - confidence)
    return 100 * total


def slow_aurc(probabilities, labels):
    rows = [(max(row), row.index(max(row)) != label) for row, label in zip(probabilities, labels, strict=True)]
    rows.sort(key=lambda row: -row[0])
    rates, errors = [], 0
    for count, (_, wrong) in enumerate(rows, start=1):
        errors += wrong
        rates.append(errors / count)
    return 1000 * sum(rates) / len(rates)


def test_the_values_of_the_released_code(case):
    probabilities, labels, expected = case
    metrics = compute_metrics(probabilities, labels)
    assert metrics.top1_error == pytest.approx(expected["top1_error_pct"], abs=1e-9)
    assert metrics.top5_error == pytest.approx(expected["top5_error_pct"], abs=1e-9)
    assert metrics.nll == pytest.approx(expected["nll"], abs=1e-9)
    assert metrics.ece == pytest.approx(expected["ece_pct_10_bins"], abs=1e-9)
    assert metrics.aurc == pytest.approx(expected["aurc_x1000"], abs=1e-9)
    assert excess_aurc(probabilities, labels) == pytest.approx(expected["e_aurc_x1000"], abs=1e-9)


@pytest.mark.parametrize(("count", "classes", "scale"), [(1, 2, 1.0), (7, 3, 0.1), (300, 100, 3.0), (500, 10, 8.0)])
def test_loops_over_the_samples(count, classes, scale):
    probabilities, labels = sample(count, classes, seed=count, scale=scale)
    rows, truth = probabilities.tolist(), labels.tolist()
    ranks = [
        sorted(range(classes), key=lambda k, row=row: -row[k]).index(y) for row, y in zip(rows, truth, strict=True)
    ]
    assert compute_metrics(probabilities, labels) == Metrics(
        top1_error=pytest.approx(100 * sum(rank >= 1 for rank in ranks) / count),
        top5_error=pytest.approx(100 * sum(rank >= 5 for rank in ranks) / count),
        nll=pytest.approx(-sum(math.log(row[y]) for row, y in zip(rows, truth, strict=True)) / count),
        ece=pytest.approx(slow_ece(rows, truth, 10), abs=1e-10),
        aurc=pytest.approx(slow_aurc(rows, truth)),
    )


@pytest.mark.parametrize("bins", [1, 5, 10, 15])
def test_ece_of_torchmetrics(bins):
    # Here, as all that takes a second to import: every process of `pytest -n` imports all modules of tests.
    from torchmetrics.functional.classification import multiclass_calibration_error

    probabilities, labels = sample(400, 6, dtype=torch.float32)
    expected = multiclass_calibration_error(probabilities, labels, num_classes=6, n_bins=bins, norm="l1")
    assert compute_metrics(probabilities, labels, bins).ece == pytest.approx(100 * expected.item(), rel=1e-4)


def test_errors_of_scikit_learn():
    from sklearn.metrics import top_k_accuracy_score

    probabilities, labels = sample(400, 12)
    metrics = compute_metrics(probabilities, labels)
    for k, error in ((1, metrics.top1_error), (5, metrics.top5_error)):
        accuracy = top_k_accuracy_score(labels.numpy(), probabilities.numpy(), k=k, labels=range(12))
        assert error == pytest.approx(100 * (1 - accuracy))


def test_bins_are_closed_on_the_right():
    """Two images, confidences 0.5 (right) and 0.51 (wrong): in bins of width 1/2, (0, 0.5] and (0.5, 1]."""
    probabilities = torch.tensor([[0.5, 0.3, 0.2], [0.51, 0.29, 0.2]], dtype=torch.float64)
    assert compute_metrics(probabilities, torch.tensor([0, 1]), bins=2).ece == pytest.approx(100 * (0.5 + 0.51) / 2)
    # In one bin: the gaps of opposite sign cancel.
    assert compute_metrics(probabilities, torch.tensor([0, 1]), bins=1).ece == pytest.approx(100 * (0.51 - 0.5) / 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_edge_belongs_to_the_bin_below_it(dtype):
    for number in range(1, 10):
        edge = torch.tensor(number, dtype=dtype) / 10
        below, above = edge, torch.nextafter(edge, torch.ones((), dtype=dtype))
        rest = [1 - value for value in (below, above)]
        probabilities = torch.stack([torch.stack([below, rest[0] / 10]), torch.stack([above, rest[1] / 10])])
        probabilities = torch.cat([probabilities, torch.zeros(2, 1, dtype=dtype)], 1)
        # One right, one wrong: their gaps add up only where they are in different bins.
        ece = compute_metrics(probabilities, torch.tensor([0, 1])).ece
        assert ece == pytest.approx(100 * ((1 - number / 10) + number / 10) / 2, rel=1e-5)


def test_fewer_than_five_classes():
    probabilities, labels = sample(50, 3)
    assert compute_metrics(probabilities, labels).top5_error == 0
    assert compute_metrics(torch.ones(4, 1), torch.zeros(4, dtype=torch.int64)) == Metrics(0, 0, 0, 0, 0)


def test_perfect_and_hopeless():
    perfect = torch.eye(6, dtype=torch.float64)
    labels = torch.arange(6)
    assert compute_metrics(perfect, labels) == Metrics(0, 0, 0, 0, 0)
    assert excess_aurc(perfect, labels) == 0
    hopeless = compute_metrics(perfect, (labels + 1) % 6)
    assert (hopeless.top1_error, hopeless.ece, hopeless.aurc) == (100, 100, 1000)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_probability_of_zero_leaves_the_nll_finite(dtype):
    nll = compute_metrics(torch.tensor([[1.0, 0.0]], dtype=dtype), torch.tensor([1])).nll
    assert nll == pytest.approx(-math.log(torch.finfo(dtype).tiny))


def test_equal_probabilities_rank_by_class():
    """As argmax: a network that says the same of everything is right for class 0 alone."""
    classes = 8
    labels = torch.arange(classes)
    metrics = compute_metrics(torch.full((classes, classes), 1 / classes), labels)
    assert metrics.top1_error == pytest.approx(100 * 7 / 8)
    assert metrics.top5_error == pytest.approx(100 * 3 / 8)


def test_equal_confidences_in_the_sources_order():
    count = 40
    probabilities = torch.tensor([[0.7, 0.3]] * count, dtype=torch.float64)
    labels = torch.arange(count)
    first_wrong = compute_metrics(probabilities, (labels == 0).long(), ties="ordered").aurc
    last_wrong = compute_metrics(probabilities, (labels == count - 1).long(), ties="ordered").aurc
    assert first_wrong == pytest.approx(1000 * sum(1 / k for k in range(1, count + 1)) / count)
    assert last_wrong == pytest.approx(1000 * (1 / count) / count)


def test_equal_confidences_count_as_the_mean_of_their_orders():
    """Five images in groups of one confidence: 2, 1 and 2. All orders within the groups are tried."""
    confidence, wrong = (0.9, 0.9, 0.8, 0.6, 0.6), (True, False, False, True, True)

    def aurc(order):
        rates = [sum(wrong[i] for i in order[:k]) / k for k in range(1, 6)]
        return 1000 * sum(rates) / 5

    orders = [(*first, 2, *last) for first in permutations((0, 1)) for last in permutations((3, 4))]
    probabilities = torch.tensor([[value, 1 - value] for value in confidence], dtype=torch.float64)
    metrics = compute_metrics(probabilities, torch.tensor(wrong).long())
    assert metrics.aurc == pytest.approx(sum(map(aurc, orders)) / len(orders), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_order_of_the_images_changes_nothing(dtype):
    probabilities, labels = sample(400, 3, dtype=dtype)
    # One decimal of three classes: many images of each confidence.
    probabilities = probabilities.mul(10).round() / 10
    first = compute_metrics(probabilities, labels)
    excess = excess_aurc(probabilities, labels)
    assert first.aurc != pytest.approx(compute_metrics(probabilities, labels, ties="ordered").aurc, rel=1e-6)
    for seed in range(5):
        order = torch.randperm(400, generator=torch.Generator().manual_seed(seed))
        shuffled = compute_metrics(probabilities[order], labels[order])
        assert vars(shuffled) == pytest.approx(vars(first), rel=1e-12)
        assert shuffled.aurc == first.aurc
        assert excess_aurc(probabilities[order], labels[order]) == excess


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_value_that_is_not_finite_spoils_everything(bad):
    probabilities, labels = sample(20, 4)
    probabilities[3] = bad
    metrics = compute_metrics(probabilities, labels)
    assert all(math.isnan(value) for value in vars(metrics).values())
    assert math.isnan(excess_aurc(probabilities, labels))
    confidence = probabilities.amax(1)
    assert math.isnan(ood_auroc(confidence, confidence[:3]))
    assert math.isnan(ood_auroc(confidence[:3], confidence))


@pytest.mark.parametrize(
    ("probabilities", "labels"),
    [(torch.ones(3), torch.zeros(3)), (torch.ones(3, 2), torch.zeros(2)), (torch.ones(0, 2), torch.zeros(0))],
)
def test_wrong_shapes_are_refused(probabilities, labels):
    with pytest.raises(ValueError, match="metrics need probabilities"):
        compute_metrics(probabilities, labels.long())


def test_excess_aurc_compares_with_the_errors_ranked_last():
    probabilities, labels = sample(300, 5)
    wrong = int((probabilities.argmax(1) != labels).sum())
    best = sum(max(0, k - (300 - wrong)) / k for k in range(1, 301)) / 300
    expected = compute_metrics(probabilities, labels).aurc - 1000 * best
    assert excess_aurc(probabilities, labels) == pytest.approx(expected)


@pytest.mark.parametrize("rounded", [False, True])
def test_ood_auroc_of_scikit_learn_and_torchmetrics(rounded):
    from sklearn.metrics import roc_auc_score
    from torchmetrics.functional.classification.auroc import binary_auroc

    inside = torch.rand(300, generator=torch.Generator().manual_seed(0)).sqrt()
    outside = torch.rand(170, generator=torch.Generator().manual_seed(1))
    if rounded:  # many ties
        inside, outside = (10 * inside).round() / 10, (10 * outside).round() / 10
    truth = np.r_[np.ones(300), np.zeros(170)]
    scores = torch.cat([inside, outside])
    value = ood_auroc(inside, outside)
    assert value == pytest.approx(100 * roc_auc_score(truth, scores.numpy()))
    assert value == pytest.approx(100 * binary_auroc(scores, torch.from_numpy(truth).long()).item(), rel=1e-5)


def test_ood_auroc_at_its_ends():
    low, high = torch.tensor([0.1, 0.2]), torch.tensor([0.8, 0.9, 1.0])
    assert (ood_auroc(high, low), ood_auroc(low, high), ood_auroc(low, low)) == (100, 0, 50)
    with pytest.raises(ValueError, match="AUROC needs images of both kinds, got 2 and 0"):
        ood_auroc(low, low[:0])


def test_the_device_is_read_once(monkeypatch):
    """`tolist` of the five numbers is the only thing that waits."""
    read = []
    original = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: read.append(tensor.shape) or original(tensor))
    with RefuseWaiting():
        compute_metrics(*sample())
    assert read == [(5,)]
