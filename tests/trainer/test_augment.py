"""Methods that change images: against torchvision and slow loops, and what other methods make of mixed images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torchvision.transforms import v2

from tests.trainer.toy import CLASSES, SAMPLES, ToyNetwork, toy_labels, toy_objective, train_step
from tests.trainer.training import assert_same, small
from trainer.config import TrainConfig
from trainer.data import epoch_loader, load_splits
from trainer.losses import kl_divergence, log_softmax, one_hot
from trainer.method import Batch, Method, Requires
from trainer.methods.cutmix import rectangle
from trainer.objective import Objective, build_methods
from trainer.parts import METHODS

CPU = torch.device("cpu")
BATCH = 8


def batch_of(size: int = 6, *, pairs: bool = True, channels_last: bool = False) -> Batch:
    generator = torch.Generator().manual_seed(5)
    indices = torch.randperm(SAMPLES, generator=generator)[:BATCH]
    images = torch.randn(2, BATCH, 3, size, size, generator=generator, dtype=torch.float64)
    if channels_last:
        images = torch.stack([view.contiguous(memory_format=torch.channels_last) for view in images])
    return Batch(images[0], toy_labels()[indices], indices, images[1] if pairs else None)


def changed(methods: dict[str, Any], batch: Batch, seed: int = 0) -> Batch:
    objective = Objective(build_methods(methods), CLASSES)
    for method in objective.augmenting:
        batch = method.augment(batch, torch.Generator().manual_seed(seed))
    return batch


def mixed_labels(batch: Batch) -> Tensor:
    """The targets [B, K] of a batch whose labels nothing softens."""
    return sum(part.weights[:, None] * one_hot(part.labels, CLASSES).double() for part in batch.parts)


def share_of(batch: Batch) -> float:
    weights = batch.parts[0].weights
    assert (weights == weights[0]).all()
    return weights[0].item()


@pytest.mark.parametrize("seed", range(5))
def test_mixup_is_that_of_torchvision(seed: int):
    before = batch_of()
    after = changed({"mixup": {}}, before, seed)
    share = share_of(after)
    assert 0 < share < 1
    transform = v2.MixUp(num_classes=CLASSES)
    for mixed, plain in ((after.inputs, before.inputs), (after.pair_inputs, before.pair_inputs)):
        torch.testing.assert_close(
            mixed, transform.transform(plain, {"lam": share, "labels": None, "batch_size": BATCH})
        )
    expected = transform.transform(before.labels, {"lam": share, "labels": before.labels, "batch_size": BATCH})
    torch.testing.assert_close(mixed_labels(after), expected.double())


@pytest.mark.parametrize("seed", range(20))
def test_the_rectangle_of_cutmix_is_that_of_torchvision(seed: int):
    transform = v2.CutMix(num_classes=CLASSES)
    torch.manual_seed(seed)
    params = transform.make_params([torch.zeros(2, 3, 20, 32)])
    # As torchvision draws: the share, then the column and the row of the centre.
    torch.manual_seed(seed)
    share = transform._dist.sample(()).item()
    column, row = torch.randint(32, (1,)).item(), torch.randint(20, (1,)).item()
    rows, columns = rectangle(share, row, column, 20, 32)
    assert (columns.start, rows.start, columns.stop, rows.stop) == params["box"]


def test_cutmix_is_that_of_torchvision():
    before = batch_of(16)
    transform = v2.CutMix(num_classes=CLASSES)
    shares = []
    for seed in range(12):
        after = changed({"cutmix": {"probability": 1}}, before, seed)
        shares.append(share := share_of(after))
        rows, columns = ((after.inputs[0] != before.inputs[0]).any(0).any(axis).nonzero().flatten() for axis in (1, 0))
        box = (0, 0, 0, 0)
        if len(rows):
            box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        assert share == pytest.approx(1 - len(rows) * len(columns) / 256)
        given = {"box": tuple(map(int, box)), "lam_adjusted": share, "labels": before.labels, "batch_size": BATCH}
        assert torch.equal(after.inputs, transform.transform(before.inputs, given))
        assert torch.equal(after.pair_inputs, transform.transform(before.pair_inputs, given))
        torch.testing.assert_close(mixed_labels(after), transform.transform(before.labels, given).double())
    assert len(set(shares)) > 8


def test_cutmix_mixes_as_many_batches_as_it_says():
    method = build_methods({"cutmix": {}})[0]
    generator = torch.Generator().manual_seed(0)
    mixed = [share_of(method.augment(batch_of(32), generator)) < 1 for _ in range(400)]
    # A few rectangles are too small to have a pixel.
    assert 160 < sum(mixed) < 220
    unchanged = changed({"cutmix": {"probability": 0}}, batch_of(32))
    assert torch.equal(unchanged.inputs, batch_of(32).inputs)
    assert share_of(unchanged) == 1


@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
def test_shares_have_the_distribution_of_the_paper(alpha: float):
    method = build_methods({"mixup": {"alpha": alpha}})[0]
    generator = torch.Generator().manual_seed(0)
    shares = torch.tensor([share_of(method.augment(batch_of(1), generator)) for _ in range(3000)])
    assert shares.mean().item() == pytest.approx(0.5, abs=0.02)
    assert shares.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.08)


@pytest.mark.parametrize("length", [1, 3, 4, 20])
def test_cutout_hides_one_square_of_each_image(length: int):
    before = batch_of(9)
    centres = set()
    for seed in range(30):
        after = changed({"cutout": {"length": length}}, before, seed)
        # The draws, again, in the order of rows and columns of the images and then of their pairs.
        generator = torch.Generator().manual_seed(seed)
        for plain, cut in ((before.inputs, after.inputs), (before.pair_inputs, after.pair_inputs)):
            centre_rows, centre_columns = (torch.randint(9, (BATCH,), generator=generator).tolist() for _ in range(2))
            expected = plain.clone()
            for image, (row, column) in enumerate(zip(centre_rows, centre_columns, strict=True)):
                centres.add((row, column))
                top, left = row - length // 2, column - length // 2
                for y in range(top, top + length):
                    for x in range(left, left + length):
                        if 0 <= y < 9 and 0 <= x < 9:
                            expected[image, :, y, x] = 0
            assert torch.equal(cut, expected)
        assert after.parts == () and after.unmixed is None
    assert len(centres) == 81


def test_targets_are_mixed_by_shares_however_often():
    before = batch_of(16)
    after = changed({"cutmix": {"probability": 1}, "mixup": {}, "cutout": {}}, before, 3)
    assert len(after.parts) == 4
    torch.testing.assert_close(sum(part.weights for part in after.parts), torch.ones(BATCH, dtype=torch.float64))
    # Holes come first, whatever the methods' names.
    assert torch.equal(after.unmixed, changed({"cutout": {}}, before, 3).inputs)
    cut, pasted = changed({"cutmix": {"probability": 1}}, before, 3), changed({"mixup": {}}, before, 3)
    a, b = share_of(cut), share_of(pasted)
    hard = one_hot(before.labels, CLASSES).double()
    once = a * hard + (1 - a) * hard.roll(1, 0)
    torch.testing.assert_close(mixed_labels(after), b * once + (1 - b) * once.roll(1, 0))


def softened(pskd: Any, batch: Batch, weight: float) -> Tensor:
    """Return the targets that PS-KD makes of the labels of single images."""
    hard = one_hot(batch.labels, CLASSES).double()
    return hard + weight * (pskd.tables[0][batch.indices].double() - hard)


class Wide(ToyNetwork):
    """A toy network for images of any size."""

    def forward(self, inputs: Tensor, heads: bool = True):
        return super().forward(torch.nn.functional.adaptive_avg_pool2d(inputs, 2), heads)


def wide_objective(methods: dict[str, Any]) -> tuple[Objective, torch.nn.ModuleList]:
    objective, networks = toy_objective(methods)
    return objective, torch.nn.ModuleList(Wide(seed).double() for seed in range(len(networks)))


@pytest.mark.parametrize("mixing", ["mixup", "cutmix"])
def test_pskd_softens_the_label_of_each_image_of_a_mixture(mixing: str):
    given = {"probability": 1.0} if mixing == "cutmix" else {}
    objective, networks = wide_objective({mixing: given, "pskd": {"alpha": 1.0}})
    pskd = next(method for method in objective.methods if method.name == "pskd")
    pskd.tables[0] = torch.rand(SAMPLES, CLASSES, dtype=torch.float64).softmax(1)
    table = pskd.tables[0].clone()
    before = batch_of(16)
    after = changed({mixing: given}, before, 1)
    share, probabilities = share_of(after), networks[0](before.inputs).logits.softmax(1)
    # The second of four epochs.
    soft = softened(pskd, before, 0.5)
    expected = share * soft + (1 - share) * soft.roll(1, 0)
    outputs = networks[0](after.inputs).logits.log_softmax(1)
    terms = train_step(objective, networks, after)
    torch.testing.assert_close(terms["cross_entropy"], -(expected * outputs).sum(1).mean())
    # For the next epoch, the predictions of the unmixed images before the update are kept.
    table[before.indices] = probabilities
    torch.testing.assert_close(pskd.tables[0], table)


def test_pskd_keeps_what_was_said_of_images_with_holes():
    objective, networks = wide_objective({"cutout": {}, "pskd": {}})
    after = changed({"cutout": {"length": 2}}, batch_of(8))
    probabilities = networks[0](after.inputs).logits.softmax(1)
    train_step(objective, networks, after)
    torch.testing.assert_close(objective.methods[1].tables[0][after.indices], probabilities)


def test_the_virtual_teacher_is_mixed_like_the_labels():
    methods = {"tfkd": {"variant": "virtual"}}
    objective, networks = wide_objective(methods)
    before = batch_of(16)
    after = changed({"mixup": {}}, before)
    share = share_of(after)
    mixed = objective(networks, after)[0]["tfkd/teacher"]
    outputs = [networks[0](after.inputs)]
    first, second = (
        objective.terms(networks, outputs, batch)["tfkd/teacher"]
        for batch in (before, before._replace(labels=before.labels.roll(1)))
    )
    torch.testing.assert_close(mixed, share * first + (1 - share) * second)


def test_class_pairs_are_of_the_same_mixture_of_classes():
    objective, networks = wide_objective({"cskd": {}})
    before = batch_of(16)
    after = changed({"mixup": {}}, before)
    share = share_of(after)
    pairs = share * before.pair_inputs + (1 - share) * before.pair_inputs.roll(1, 0)
    own, other = (log_softmax(networks[0](inputs).logits, 4.0) for inputs in (after.inputs, pairs))
    torch.testing.assert_close(objective(networks, after)[0]["cskd/pairs"], 16 * kl_divergence(own, other))


def test_other_methods_see_the_same_numbers_in_any_company(data_root: Path):
    """And the order, crops and flips of an epoch are those that it has without."""

    def batches(methods: dict[str, Any]) -> list[Batch]:
        config = small(methods=methods, precision="float32", batch_size=8)
        objective = Objective(config.build_methods(), 6)
        splits = load_splits(config, data_root)
        return list(epoch_loader(splits, config, CPU, class_pairs=False, augmenting=objective.augmenting).epoch(1))

    plain, cut, both = batches({}), batches({"cutmix": {}}), batches({"cutmix": {}, "pskd": {}})
    assert_same([batch.map(lambda v: v) for batch in cut], both)
    assert any(share_of(batch) < 1 for batch in cut)
    for one, other in zip(plain, cut, strict=True):
        assert torch.equal(one.inputs, other.unmixed)
        assert torch.equal(one.indices, other.indices)
        assert other.inputs.is_contiguous(memory_format=torch.channels_last)
    assert len({round(share_of(batch), 6) for batch in batches({"mixup": {}})}) == len(plain)
    again = batches({"cutmix": {}})
    assert_same([batch.inputs for batch in cut], [batch.inputs for batch in again])


@dataclass
class Single(Method):
    """A method whose inputs must show one image."""

    name = "single"
    title = "Single"

    @property
    def requires(self) -> Requires:
        return Requires(single_images=True)


SINGLE = METHODS.remove("single")


def test_a_method_that_needs_single_images_is_refused_beside_one_that_mixes():
    with METHODS.apart():
        METHODS.add(SINGLE)
        assert TrainConfig(methods={"single": {}, "cutout": {}}).requires.single_images
        with pytest.raises(ValidationError, match="needs inputs that show one image, and cutmix mixes images"):
            TrainConfig(methods={"single": {}, "cutmix": {}})


@pytest.mark.parametrize(
    ("method", "wrong"),
    [("mixup", {"alpha": 0}), ("cutmix", {"alpha": -1}), ("cutmix", {"probability": 1.1}), ("cutout", {"length": 0})],
)
def test_wrong_hyperparameters_are_refused(method: str, wrong: dict[str, float]):
    with pytest.raises(ValidationError):
        build_methods({method: wrong})
