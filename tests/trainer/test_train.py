"""The training loop: what it computes, reports and refuses, and that none of it depends on what went before."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from tests.trainer.training import (
    CLASSES,
    TEST_IMAGES,
    TRAIN_IMAGES,
    assert_same,
    content,
    in_a_process,
    numbers,
    small,
    title,
    trained,
)
from trainer.config import TrainConfig
from trainer.data import epoch_loader, load_splits
from trainer.data.splits import DataError
from trainer.method import Method
from trainer.metrics import compute_metrics, ood_auroc
from trainer.objective import Objective
from trainer.parts import METHODS
from trainer.results import EpochResult
from trainer.state import build_networks
from trainer.train import Diverged, train

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
IMAGES = CLASSES * TRAIN_IMAGES
THREE_METHODS: dict[str, dict[str, Any]] = {"byot": {}, "dmfl": {}, "pskd": {}}


def results_of(config: TrainConfig, data_root: Path, **options: Any) -> list[EpochResult]:
    reported: list[EpochResult] = []
    last = train(config, reported.append, data_root=data_root, **options)
    assert last is reported[-1]
    return reported


# What is computed


@pytest.mark.parametrize("methods", [{}, {"label_smoothing": {}, "byot": {}}], ids=title)
def test_training_is_stochastic_gradient_descent_by_the_recipe(
    methods: dict[str, Any], data_root: Path, tmp_path: Path
) -> None:
    config = small(methods=methods, precision="float64", epochs=3, milestones=[1], learning_rate=0.02, seed=3)
    state = trained(config, tmp_path / "run.pt", data_root)

    splits = load_splits(config, data_root)
    networks = build_networks(config, CLASSES, CPU)
    loss_of = Objective(config.build_methods(), CLASSES)
    loader = epoch_loader(splits, config, CPU, class_pairs=False)
    velocity = [torch.zeros_like(weights) for weights in networks.parameters()]
    for epoch, rate in enumerate([0.02, 0.002, 0.002]):
        networks.train()
        total: dict[str, float] = {}
        for batch in loader.epoch(epoch):
            terms, _ = loss_of(networks, batch)
            networks.zero_grad()
            sum(terms.values()).backward()
            with torch.no_grad():
                for weights, v in zip(networks.parameters(), velocity, strict=True):
                    gradient = weights.grad + 5e-4 * weights
                    v.mul_(0.9).add_(gradient)
                    weights -= rate * (gradient + 0.9 * v)
            for name, value in terms.items():
                total[name] = total.get(name, 0.0) + value.item() * len(batch.labels) / IMAGES
        reported = state["results"][epoch]
        assert reported["losses"] == pytest.approx(total, rel=1e-9)
        assert reported["learning_rate"] == pytest.approx(rate, rel=1e-12)
        assert (reported["epoch"], reported["images"]) == (epoch, IMAGES)
    for name, weights in networks.state_dict().items():
        torch.testing.assert_close(state["networks"][name], weights, rtol=1e-9, atol=1e-12)


def test_adamw_decays_the_weights_apart_from_the_gradient_at_the_rate_of_the_step(
    data_root: Path, tmp_path: Path
) -> None:
    fields = {"optimizer": {"adamw": {"betas": [0.8, 0.9], "eps": 1e-6}}, "learning_rate": 0.02, "weight_decay": 0.3}
    config = small(**fields, schedule="linear", warmup=0.5, precision="float64", seed=3)
    state = trained(config, tmp_path / "run.pt", data_root)

    networks = build_networks(config, CLASSES, CPU)
    loss_of = Objective(config.build_methods(), CLASSES)
    loader = epoch_loader(load_splits(config, data_root), config, CPU, class_pairs=False)
    mean, square = ([torch.zeros_like(weights) for weights in networks.parameters()] for _ in range(2))
    # Two epochs of two steps: the full rate with the last step of the warmup, then down to 0 in the three steps left.
    for step, rate in enumerate([0.02, 0.02, 0.02 * 2 / 3, 0.02 / 3]):
        networks.train()
        if step % 2 == 0:
            batches = loader.epoch(step // 2)
        terms, _ = loss_of(networks, next(batches))
        networks.zero_grad()
        sum(terms.values()).backward()
        with torch.no_grad():
            for weights, m, v in zip(networks.parameters(), mean, square, strict=True):
                m.mul_(0.8).add_(0.2 * weights.grad)
                v.mul_(0.9).add_(0.1 * weights.grad**2)
                weights -= rate * 0.3 * weights
                weights -= rate * (m / (1 - 0.8 ** (step + 1))) / ((v / (1 - 0.9 ** (step + 1))).sqrt() + 1e-6)
    for name, weights in networks.state_dict().items():
        torch.testing.assert_close(state["networks"][name], weights, rtol=1e-9, atol=1e-12)
    assert [result["learning_rate"] for result in state["results"]] == pytest.approx([0.02, 0.02 / 3])


@pytest.mark.parametrize("methods", [{}, THREE_METHODS | {"dml": {}}], ids=title)
@pytest.mark.parametrize("precision", ["bfloat16", "float32", "float64"])
def test_every_precision_learns(precision: str, methods: dict[str, Any], data_root: Path, tmp_path: Path) -> None:
    recipe = {"epochs": 6, "batch_size": 6, "learning_rate": 0.05, "milestones": [], "padding": 0}
    config = small(methods=methods, precision=precision, width=8, stages=2, **recipe)
    state = trained(config, tmp_path / "run.pt", data_root)
    wide = torch.float64 if precision == "float64" else torch.float32
    kept = [
        *state["networks"].values(),
        *(buffers["momentum_buffer"] for buffers in state["optimizer"]["state"].values()),
    ]
    kept += state["methods"].get("pskd", {}).get("tables", [])
    assert {values.dtype for values in kept if values.is_floating_point()} == {wide}
    first, last = (state["results"][epoch]["losses"]["cross_entropy"] for epoch in (0, -1))
    assert last < 0.93 * first


def test_precisions_agree_but_for_rounding(data_root: Path) -> None:
    losses = {
        precision: results_of(small(precision=precision, epochs=1), data_root)[0].losses["cross_entropy"]
        for precision in ("bfloat16", "float32", "float64")
    }
    assert losses["float32"] == pytest.approx(losses["float64"], rel=1e-4)
    assert losses["bfloat16"] == pytest.approx(losses["float64"], rel=0.1)
    assert len(set(losses.values())) == 3


@pytest.mark.parametrize(
    ("fields", "classifiers"),
    [
        ({}, ["main"]),
        ({"width": 2, "stages": 2, "methods": {"byot": {}}}, ["main", "head1", "ensemble"]),
        (
            {"width": 6, "stages": 3, "heads": "attention", "methods": THREE_METHODS},
            ["main", "head1", "head2", "ensemble"],
        ),
        ({"heads": "native"}, ["main", "head1", "head2", "head3", "ensemble"]),
        ({"network": "mobilenet", "methods": {"dcm": {}}}, 2 * ["main", "head1", "head2", "ensemble"]),
        ({"methods": {"dml": {}}, "peer": "preact_resnet18"}, ["main", "main"]),
        ({"methods": {"byot": {}, "dcm": {}}, "heads": "attention", "stages": 2}, 2 * ["main", "head1", "ensemble"]),
    ],
    ids=["baseline", "byot", "three methods", "native", "mobilenet", "dml", "byot+dcm"],
)
def test_every_classifier_of_every_network_is_evaluated(
    fields: dict[str, Any], classifiers: list[str], data_root: Path
) -> None:
    config = small(**fields, epochs=1)
    (result,) = results_of(config, data_root)
    assert [evaluation.classifier for evaluation in result.evaluations] == classifiers
    assert [evaluation.network for evaluation in result.evaluations] == sorted(
        index % len(config.network_names) for index in range(len(classifiers))
    )
    networks = build_networks(config, CLASSES, CPU)
    assert result.parameters == sum(weights.numel() for weights in networks.parameters())
    assert {evaluation.images for evaluation in result.evaluations} == {CLASSES * TEST_IMAGES}
    assert result.peak_memory_bytes is None
    assert min(result.train_seconds, result.eval_seconds, result.data_seconds) > 0


def test_evaluations_are_those_of_one_image_at_a_time(data_root: Path, tmp_path: Path) -> None:
    config = small(
        precision="float64", methods={"dcm": {}}, stages=3, validation=6, ood_dataset="npz:other.npz", epochs=1
    )
    state = trained(config, tmp_path / "run.pt", data_root)
    splits = load_splits(config, data_root)
    networks = build_networks(config, CLASSES, CPU)
    networks.load_state_dict(state["networks"])
    mean, std = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (splits.mean, splits.std))

    def said_of(images: Any, network: int) -> dict[str, Tensor]:
        logits_of: dict[str, list[Tensor]] = {}
        for pixels in images.pixels:
            with torch.no_grad():
                output = networks.eval()[network](((pixels.permute(2, 0, 1).double() / 255 - mean) / std)[None])
            logits = {"main": output.logits, "head1": output.head_logits[0], "head2": output.head_logits[1]}
            for name, values in logits.items():
                logits_of.setdefault(name, []).append(values[0].softmax(0))
            logits_of.setdefault("ensemble", []).append(sum(values[0].softmax(0) for values in logits.values()) / 3)
        return {name: torch.stack(values) for name, values in logits_of.items()}

    evaluations = state["results"][0]["evaluations"]
    assert len(evaluations) == 2 * 2 * 4
    for evaluation in evaluations:
        images = splits.test if evaluation["split"] == "test" else splits.validation
        probabilities = said_of(images, evaluation["network"])[evaluation["classifier"]]
        expected = compute_metrics(probabilities, images.labels)
        assert evaluation["metrics"] == pytest.approx(vars(expected), rel=1e-6)
        assert evaluation["images"] == len(images)
        if evaluation["split"] == "test":
            outside = said_of(splits.out_of_distribution, evaluation["network"])[evaluation["classifier"]]
            assert evaluation["ood_auroc"] == pytest.approx(ood_auroc(probabilities.amax(1), outside.amax(1)))
        else:
            assert evaluation["ood_auroc"] is None


def test_evaluating_more_changes_nothing_that_is_learned(data_root: Path, tmp_path: Path) -> None:
    plain = trained(small(methods=THREE_METHODS), tmp_path / "plain.pt", data_root)
    watched = trained(small(methods=THREE_METHODS, ood_dataset="npz:other.npz"), tmp_path / "watched.pt", data_root)
    assert_same(plain["networks"], watched["networks"])
    assert_same(plain["optimizer"], watched["optimizer"])


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_heads_that_nothing_trains_leave_the_trunk_as_it_is(precision: str, data_root: Path, tmp_path: Path) -> None:
    without = trained(small(precision=precision), tmp_path / "without.pt", data_root)
    config = small(precision=precision, heads="native")
    carrying = trained(config, tmp_path / "with.pt", data_root)
    trunk = {name: values for name, values in carrying["networks"].items() if ".heads." not in name}
    assert_same(trunk, without["networks"])
    initial = build_networks(config, CLASSES, CPU).state_dict()
    heads = [name for name in initial if ".heads." in name]
    assert heads
    assert_same({name: carrying["networks"][name] for name in heads}, {name: initial[name] for name in heads})
    assert carrying["results"][-1]["evaluations"][0] == without["results"][-1]["evaluations"][0]


# Seeds


def test_the_same_seed_gives_the_same_numbers_twice(data_root: Path, tmp_path: Path) -> None:
    config = small(methods={"cskd": {}, "pskd": {}}, seed=11)
    torch.manual_seed(1)
    first = trained(config, tmp_path / "first.pt", data_root)
    torch.manual_seed(2)
    assert_same(trained(config, tmp_path / "second.pt", data_root), first)


def test_seeds_differ_in_the_initial_weights() -> None:
    first, again, other = (
        build_networks(small(seed=seed, methods={"dcm": {}}), CLASSES, CPU).state_dict() for seed in (0, 0, 1)
    )
    assert_same(first, again)
    random = [name for name in first if name.endswith("weight") and first[name].std() > 0]
    assert any("heads" in name for name in random)
    assert all(not torch.equal(first[name], other[name]) for name in random)
    assert all(not torch.equal(first[name], first[name.replace("0.", "1.", 1)]) for name in random if name[0] == "0")


def views(seed: int, data_root: Path) -> tuple[Tensor, Tensor]:
    """The order of an epoch, and its inputs in the order of the data set."""
    config = small(seed=seed, batch_size=IMAGES)
    (batch,) = epoch_loader(load_splits(config, data_root), config, CPU, class_pairs=False).epoch(0)
    return batch.indices, batch.inputs[batch.indices.argsort()]


def test_seeds_differ_in_the_order(data_root: Path) -> None:
    first, again, other = (views(seed, data_root)[0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert (first != other).double().mean() > 0.8
    assert torch.equal(first.sort().values, other.sort().values)


def test_seeds_differ_in_the_augmentation(data_root: Path) -> None:
    first, again, other = (views(seed, data_root)[1] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    # Two views of an image are the same with probability 1 / (9 * 9 * 2).
    assert sum(not torch.equal(a, b) for a, b in zip(first, other, strict=True)) > 0.8 * IMAGES


# Independence of what went before


def train_to(checkpoint: Path, config: TrainConfig, data_root: Path) -> None:
    train(config, lambda result: None, checkpoint=checkpoint, data_root=data_root)


def test_a_reused_process_gives_the_bits_of_a_fresh_one(data_root: Path, tmp_path: Path) -> None:
    config = small(methods=THREE_METHODS, precision="bfloat16")
    assert in_a_process(train_to, tmp_path / "fresh.pt", config, data_root) == 0
    fresh = content(tmp_path / "fresh.pt")
    further = [
        small(methods={"dml": {}, "pskd": {}}, precision="float64", seed=4),
        small(methods={"tfkd": {}}, stages=2, epochs=1),
        small(methods={"cskd": {}}, ood_dataset="npz:other.npz", validation=6, heads="attention", epochs=1),
    ]
    for number, other in enumerate(further):
        trained(other, tmp_path / f"{number}.pt", data_root)
    with pytest.raises(Diverged):
        train(small(learning_rate=1e30), lambda result: None, data_root=data_root)
    assert_same(trained(config, tmp_path / "reused.pt", data_root), fresh)


@pytest.mark.parametrize("stop", [1, 2, 3])
@pytest.mark.parametrize("seconds", [0.0, 1e9], ids=["every epoch", "at the end"])
def test_stopping_after_any_epoch_and_going_on_is_training_straight(
    stop: int, seconds: float, data_root: Path, tmp_path: Path
) -> None:
    config = small(methods=THREE_METHODS, epochs=4, milestones=[2], stages=2)
    straight = results_of(config, data_root)
    options = {"checkpoint": tmp_path / "run.pt", "checkpoint_seconds": seconds}
    begun = results_of(config, data_root, stop_after=stop, **options)
    assert list(map(numbers, begun)) == list(map(numbers, straight[:stop]))
    ended = results_of(config, data_root, **options)
    assert list(map(numbers, ended)) == list(map(numbers, straight))
    assert [result.restored for result in ended] == [True] * stop + [False] * (4 - stop)
    # The clocks of an epoch are those of when it was trained.
    assert [result.train_seconds for result in ended[:stop]] == [result.train_seconds for result in begun]


def test_a_finished_training_is_only_reported_again(data_root: Path, tmp_path: Path) -> None:
    config, path = small(), tmp_path / "run.pt"
    first = results_of(config, data_root, checkpoint=path)
    written = path.stat().st_mtime_ns
    again = results_of(config, data_root, checkpoint=path)
    assert list(map(numbers, again)) == list(map(numbers, first))
    assert all(result.restored for result in again)
    assert path.stat().st_mtime_ns == written
    assert [file.name for file in tmp_path.iterdir()] == ["run.pt"]


def test_checkpoints_are_as_frequent_as_asked(data_root: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    seen: list[bool] = []
    train(small(), lambda r: seen.append(path.exists()), data_root=data_root, checkpoint=path, checkpoint_seconds=1e9)
    assert seen == [False, True]
    path.unlink()
    train(small(), lambda r: seen.append(path.exists()), data_root=data_root, checkpoint=path)
    assert seen[2:] == [True, True], "an epoch is written before it is reported"


# Teachers


def test_the_teacher_is_the_baseline_of_the_same_seed(data_root: Path, tmp_path: Path) -> None:
    config = small(methods={"tfkd": {}, "byot": {}}, ood_dataset="npz:other.npz", seed=2)
    taught: list[EpochResult] = []
    student = trained(config, tmp_path / "student.pt", data_root, report_teacher=taught.append)
    baseline = trained(small(seed=2), tmp_path / "baseline.pt", data_root)
    assert list(map(numbers, taught)) == baseline["results"]
    teacher = {f"0.{name}": values for name, values in student["methods"]["tfkd"]["teacher"].items()}
    assert_same(teacher, baseline["networks"])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["baseline.pt", "student.pt"]


def test_a_virtual_teacher_is_not_trained(data_root: Path) -> None:
    config = small(methods={"tfkd": {"variant": "virtual"}}, epochs=1)
    assert results_of(config, data_root, report_teacher=lambda result: pytest.fail("a teacher was trained"))


def test_measuring_speed_does_not_wait_for_a_whole_teacher(data_root: Path) -> None:
    taught: list[EpochResult] = []
    config = small(methods={"tfkd": {}}, epochs=50, stages=2)
    assert len(results_of(config, data_root, stop_after=1, report_teacher=taught.append)) == 1
    assert len(taught) == 1


def test_a_teacher_is_trained_whole_before_its_student_is_interrupted(data_root: Path, tmp_path: Path) -> None:
    taught: list[EpochResult] = []
    config, path = small(methods={"tfkd": {}}, stages=2), tmp_path / "run.pt"
    results_of(config, data_root, stop_after=1, report_teacher=taught.append, checkpoint=path)
    assert len(taught) == 2


# Divergence


@pytest.mark.parametrize("methods", [{}, THREE_METHODS, {"dml": {}}], ids=title)
def test_a_learning_rate_that_is_too_high_is_told_as_divergence(methods: dict[str, Any], data_root: Path) -> None:
    with pytest.raises(Diverged, match=r"the loss term '.+' is not finite at step 2 of 2 in epoch 1 of 2"):
        train(small(methods=methods, learning_rate=1e30), pytest.fail, data_root=data_root)


def test_a_teacher_can_diverge(data_root: Path) -> None:
    with pytest.raises(Diverged, match=r"the teacher: the loss term 'cross_entropy' is not finite at step 2"):
        train(small(methods={"tfkd": {}}, learning_rate=1e30), pytest.fail, data_root=data_root)


@pytest.fixture
def use_method(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[], Method]], None]]:
    """Train with a method that is not in the registry."""

    def use(build: Callable[[], Method]) -> None:
        monkeypatch.setattr(TrainConfig, "build_methods", lambda config: [build()])

    with METHODS.apart():
        yield use


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_term_and_the_first_bad_step_are_named(
    value: float, data_root: Path, tmp_path: Path, use_method: Callable[..., None]
) -> None:
    @dataclass
    class Breaking(Method):
        """Its second term is bad from the third of four steps on."""

        name: ClassVar[str] = "breaking"
        steps: int = 0

        def losses(self, networks: Any, outputs: Any, batch: Any, targets: Any) -> dict[str, Tensor]:
            self.steps += 1
            zero = 0 * outputs[0].logits.sum().detach()
            return {"breaking/sound": zero, "breaking/bad": zero + (value if self.steps >= 7 else 0)}

    use_method(Breaking)
    path, reported = tmp_path / "run.pt", []
    config = small(batch_size=8, epochs=3)
    with pytest.raises(Diverged, match=r"the loss term 'breaking/bad' is not finite at step 3 of 4 in epoch 2 of 3"):
        train(config, reported.append, checkpoint=path, data_root=data_root)
    assert [result.epoch for result in reported] == [0]
    assert len(content(path)["results"]) == 1, "the checkpoint holds what was good"


def scaling(factor: float) -> type[Method]:
    @dataclass
    class Scaling(Method):
        """Multiplies the weights of the classifier after the last of two steps."""

        name: ClassVar[str] = "scaling"
        steps: int = 0

        def losses(self, networks: Any, outputs: Any, batch: Any, targets: Any) -> dict[str, Tensor]:
            self.steps, self.networks = self.steps + 1, networks
            return {}

        @torch.no_grad()
        def after_step(self, outputs: Any, batch: Any) -> None:
            if self.steps == 2:
                self.networks[0].classifier.weight *= factor

    return Scaling


@pytest.mark.parametrize("precision", ["bfloat16", "float32", "float64"])
def test_an_overconfident_mistake_is_not_taken_for_divergence(
    precision: str, data_root: Path, use_method: Callable[..., None]
) -> None:
    use_method(scaling(1e12))
    (result,) = results_of(small(epochs=1, precision=precision), data_root)
    metrics = result.evaluations[0].metrics
    assert metrics.top1_error > 20
    # The probability of the right class is 0 in this precision.
    assert 20 < metrics.nll < (709 if precision == "float64" else 88)


@pytest.mark.parametrize("factor", [math.inf, math.nan])
def test_a_classifier_that_is_not_finite_is_divergence(
    factor: float, data_root: Path, use_method: Callable[..., None]
) -> None:
    use_method(scaling(factor))
    with pytest.raises(Diverged, match="output of classifier 'main' of resnet18 is not finite after epoch 1 of 1"):
        train(small(epochs=1), pytest.fail, data_root=data_root)


def test_missing_data_is_told_before_training(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="tiny"):
        train(small(), pytest.fail, data_root=tmp_path)
