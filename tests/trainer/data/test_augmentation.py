"""Order, crops, flips and normalisation, against torchvision applied to one image at a time."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor
from torchvision.transforms import functional

from trainer.config import TrainConfig
from trainer.data import EvaluationSet, Images
from trainer.data.augmentation import EpochLoader, draw_epoch
from trainer.method import Batch
from trainer.spec import CIFAR_MEAN, CIFAR_STD, IMAGENET_MEAN, IMAGENET_STD

CPU = torch.device("cpu")


def some_images(count: int = 23, size: int = 8, classes: int = 4) -> Images:
    pixels = torch.randint(256, (count, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    return Images(pixels, torch.arange(count) % classes, classes)


def batches(images: Images, epoch: int = 0, class_pairs: bool = False, **fields: object) -> list[Batch]:
    config = TrainConfig(**{"batch_size": 10, "precision": "float32"} | fields)
    return list(EpochLoader(images, config, CPU, class_pairs=class_pairs).epoch(epoch))


def joined(parts: list[Batch]) -> Batch:
    return Batch(*(torch.cat([part[i] for part in parts]) if parts[0][i] is not None else None for i in range(4)))


def torchvision_input(pixels: Tensor, padding: int, mode: str, top: int, left: int, mirrored: bool) -> Tensor:
    image = functional.to_pil_image(pixels.permute(2, 0, 1))
    image = functional.pad(image, padding, padding_mode={"zeros": "constant"}.get(mode, mode))
    image = functional.crop(image, top, left, *pixels.shape[:2])
    if mirrored:
        image = functional.hflip(image)
    return functional.normalize(functional.to_tensor(image), CIFAR_MEAN, CIFAR_STD)


@pytest.mark.parametrize(
    ("padding", "mode"), [(4, "zeros"), (4, "reflect"), (1, "zeros"), (9, "reflect"), (0, "zeros")]
)
def test_every_input_equals_torchvisions(padding: int, mode: str) -> None:
    images = some_images()
    config = TrainConfig(padding=padding, padding_mode=mode, seed=3)
    for class_pairs in (False, True):
        views = draw_epoch(images.labels, config, 2, class_pairs=class_pairs)
        batch = joined(batches(images, 2, class_pairs, padding=padding, padding_mode=mode, seed=3))
        for view, inputs in zip(views, (batch.inputs, batch.pair_inputs), strict=False):
            assert {True, False} == set(view.mirrored.tolist())
            for i, (index, top, left, mirrored) in enumerate(zip(*(part.tolist() for part in view), strict=True)):
                expected = torchvision_input(images.pixels[index], padding, mode, top, left, mirrored)
                torch.testing.assert_close(inputs[i], expected, atol=2e-6, rtol=0)


def test_a_line_of_one_pixel_is_reflected() -> None:
    images = Images(torch.full((2, 1, 1, 3), 100, dtype=torch.uint8), torch.tensor([0, 1]), 2)
    plain = batches(images, padding=0)
    reflected = batches(images, padding=2, padding_mode="reflect")
    assert torch.equal(plain[0].inputs, reflected[0].inputs)


def test_without_padding_and_flip_only_the_order_is_random() -> None:
    images = some_images()
    batch = joined(batches(images, padding=0, flip=False))
    plain = torch.cat([inputs for inputs, _ in EvaluationSet(images, TrainConfig(), CPU).batches(100)])
    assert torch.equal(batch.inputs, plain[batch.indices])


@pytest.mark.parametrize(("dataset", "flip", "mirrors"), [("digits", None, False), ("digits", True, True)])
def test_flips_follow_the_data_set_unless_configured(dataset: str, flip: bool | None, mirrors: bool) -> None:
    ramp = torch.arange(8, dtype=torch.uint8)[None, None, :, None].expand(40, 8, 8, 3)
    batch = joined(batches(Images(ramp, torch.zeros(40).long(), 1), dataset=dataset, flip=flip, padding=0))
    falling = batch.inputs[:, 0, 0, 0] > batch.inputs[:, 0, 0, -1]
    assert falling.any() == mirrors
    assert not falling.all()


def test_crops_are_uniform_over_all_places_and_half_are_mirrored() -> None:
    labels = torch.zeros(30_000, dtype=torch.int64)
    for view in draw_epoch(labels, TrainConfig(padding=4), 0, class_pairs=True):
        places = torch.stack([view.top, view.left, view.mirrored.long()]).T.unique(dim=0, return_counts=True)
        assert places[0].amin(0).tolist() == [0, 0, 0]
        assert places[0].amax(0).tolist() == [8, 8, 1]
        assert len(places[1]) == 9 * 9 * 2
        assert chisquare(places[1].numpy()).pvalue > 0.001


def test_neighbouring_epochs_and_seeds_are_unrelated() -> None:
    labels = torch.zeros(20_000, dtype=torch.int64)
    first, *neighbours = (
        draw_epoch(labels, TrainConfig(seed=seed), epoch, class_pairs=False)[0]
        for seed, epoch in ((0, 0), (0, 1), (1, 0), (2**32, 0))
    )
    for other in neighbours:
        together = torch.stack([first.mirrored.long(), other.mirrored.long()]).T.unique(dim=0, return_counts=True)[1]
        assert chisquare(together.numpy()).pvalue > 0.001
        assert (first.indices == other.indices).float().mean() < 0.01


@pytest.mark.parametrize("batch_size", [1, 5, 10, 23, 64])
def test_every_image_comes_once_and_the_last_batch_is_kept(batch_size: int) -> None:
    images = some_images()
    loader = EpochLoader(images, TrainConfig(batch_size=batch_size), CPU, class_pairs=False)
    parts = list(loader.epoch(0))
    assert len(parts) == len(loader) == -(-23 // batch_size)
    assert [len(part.labels) for part in parts[:-1]] == [batch_size] * (len(parts) - 1)
    batch = joined(parts)
    assert batch.indices.sort().values.tolist() == list(range(23))
    assert torch.equal(batch.labels, images.labels[batch.indices])
    assert batch.pair_inputs is None


def test_an_epoch_depends_on_seed_and_epoch_alone() -> None:
    images = some_images()
    config = TrainConfig(batch_size=10, seed=1)
    loader = EpochLoader(images, config, CPU, class_pairs=True)
    expected = joined(list(loader.epoch(2)))
    half_read = loader.epoch(1)
    next(half_read)
    for again in (loader, EpochLoader(images, config, CPU, class_pairs=True)):
        assert all(map(torch.equal, expected[:4], joined(list(again.epoch(2)))))
    assert all(map(torch.equal, expected[:4], joined(batches(images, 2, True, seed=1, batch_size=7))))
    for epoch, seed in ((1, 1), (2, 2)):
        assert not torch.equal(expected.indices, joined(batches(images, epoch, seed=seed)).indices)


def test_interleaved_epochs_do_not_disturb_each_other() -> None:
    loader = EpochLoader(some_images(), TrainConfig(batch_size=10), CPU, class_pairs=False)
    alone = [batch.inputs for batch in loader.epoch(0)]
    for (first, _), expected in zip(zip(loader.epoch(0), loader.epoch(1), strict=True), alone, strict=True):
        assert torch.equal(first.inputs, expected)


def test_class_pairs_leave_the_images_themselves_as_they_are() -> None:
    images = some_images()
    without, paired = joined(batches(images, 4)), joined(batches(images, 4, class_pairs=True))
    assert torch.equal(without.inputs, paired.inputs)
    assert torch.equal(without.indices, paired.indices)


def test_partners_are_the_others_of_the_class_with_equal_chances() -> None:
    # Class 0 is alone, class 1 has two images, class 2 five, class 3 is absent, class 4 has four.
    labels = torch.tensor([2, 1, 4, 2, 0, 2, 4, 1, 4, 2, 4, 2])
    counts = torch.zeros(12, 12, dtype=torch.int64)
    for epoch in range(2000):
        first, second = draw_epoch(labels, TrainConfig(), epoch, class_pairs=True)
        counts[first.indices, second.indices] += 1
    for i in range(12):
        same_class = [j for j in range(12) if labels[j] == labels[i] and j != i] or [i]
        assert counts[i].nonzero().flatten().tolist() == same_class
        assert chisquare(counts[i][same_class].numpy()).pvalue > 0.001 or len(same_class) == 1


def test_a_partner_is_augmented_on_its_own() -> None:
    first, second = draw_epoch(torch.zeros(5000, dtype=torch.int64), TrainConfig(), 0, class_pairs=True)
    assert chisquare((9 * first.top + second.top).bincount(minlength=81).numpy()).pvalue > 0.001
    assert 0.45 < (first.mirrored == second.mirrored).float().mean() < 0.55


def test_no_global_generator_is_touched() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    batches(some_images(), class_pairs=True)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])
    assert before[2] == random.getstate()


@pytest.mark.parametrize("padding", [0, 2])
def test_the_shared_pixels_are_never_changed(padding: int) -> None:
    images = some_images()
    pixels, labels = images.pixels.clone(), images.labels.clone()
    for batch in batches(images, class_pairs=True, padding=padding):
        batch.inputs.zero_()
        batch.labels.zero_()
    for inputs, _ in EvaluationSet(images, TrainConfig(), CPU).batches(10):
        inputs.zero_()
    assert torch.equal(images.pixels, pixels)
    assert torch.equal(images.labels, labels)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("bfloat16", torch.float32), ("float32", torch.float32), ("float64", torch.float64)]
)
def test_inputs_are_channels_last_in_the_precision_asked_for(precision: str, dtype: torch.dtype) -> None:
    images = some_images(size=8)
    config = TrainConfig(precision=precision, batch_size=10)
    evaluated = [inputs for inputs, _ in EvaluationSet(images, config, CPU).batches(10)]
    for batch in batches(images, class_pairs=True, precision=precision):
        for inputs in (batch.inputs, batch.pair_inputs, evaluated[0]):
            assert inputs.dtype == dtype
            assert inputs.shape[1:] == (3, 8, 8)
            assert inputs.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("normalization", "mean", "std"), [("dataset", CIFAR_MEAN, CIFAR_STD), ("imagenet", IMAGENET_MEAN, IMAGENET_STD)]
)
def test_evaluation_is_the_plain_normalised_image_in_order(
    normalization: str, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    images = some_images()
    config = TrainConfig(normalization=normalization, precision="float64")
    parts = list(EvaluationSet(images, config, CPU).batches(10))
    assert [len(labels) for _, labels in parts] == [10, 10, 3]
    expected = (images.pixels.double() / 255 - torch.tensor(mean).double()) / torch.tensor(std).double()
    torch.testing.assert_close(
        torch.cat([inputs for inputs, _ in parts]), expected.permute(0, 3, 1, 2), rtol=1e-6, atol=1e-6
    )
    assert torch.equal(torch.cat([labels for _, labels in parts]), images.labels)
