"""Images that stay in files: the same interface, decoded by worker processes."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp
from torchvision import transforms

from tests.trainer.fake_datasets import fake_cifar100, fake_folder, put_spec, write_image
from trainer.config import TrainConfig
from trainer.data import EvaluationSet, ImageFiles, epoch_loader, load_splits
from trainer.data.augmentation import draw_epoch
from trainer.data.splits import DataError
from trainer.data.streaming import StreamingLoader, random_box
from trainer.datasets import dataset_spec
from trainer.method import Batch
from trainer.spec import IMAGENET_MEAN, IMAGENET_STD

CPU = torch.device("cpu")
SIZE = 14


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fake ImageNet of three classes with three images of 24 x 20 pixels each."""
    fake_folder(tmp_path / "imagenet", split="val", size=(24, 20))
    spec = replace(dataset_spec("imagenet"), classes=3, train_images=9, test_images=3, size=SIZE)
    put_spec(monkeypatch, "imagenet", spec)
    return tmp_path


def settings(**fields: object) -> TrainConfig:
    return TrainConfig(**{"dataset": "imagenet", "batch_size": 4, "precision": "float32"} | fields)


def loaded(root: Path, epoch: int = 0, workers: int = 0, class_pairs: bool = False, **fields: object) -> list[Batch]:
    config = settings(**fields)
    files = load_splits(config, root).train
    return list(StreamingLoader(files, config, CPU, class_pairs=class_pairs, workers=workers).epoch(epoch))


def equal(first: list[Batch], second: list[Batch]) -> bool:
    return all(
        torch.equal(a, b)
        for one, two in zip(first, second, strict=True)
        for a, b in zip(one, two, strict=True)
        if isinstance(a, torch.Tensor)
    )


def test_imagenet_stays_in_files(root: Path) -> None:
    data = load_splits(settings(validation=3, subset=1), root)
    for files, labels in ((data.train, [0, 1, 2]), (data.validation, [0, 1, 2]), (data.test, [0, 1, 2])):
        assert isinstance(files, ImageFiles)
        assert files.labels.tolist() == labels
        assert files.num_classes == 3
        assert [Path(path).parent.name for path in files.paths] == ["ant", "bee", "cat"]
    assert not {*data.train.paths} & {*data.validation.paths}
    assert isinstance(epoch_loader(data, settings(), CPU, class_pairs=False), StreamingLoader)


def test_evaluation_is_the_published_centre_crop(root: Path) -> None:
    write_image(root / "imagenet/val/bee/0.png", (40, 33), seed=7, mode="L")
    data = load_splits(settings(), root)
    batches = list(EvaluationSet(data.test, settings(), CPU).batches(2))
    assert [labels.tolist() for _, labels in batches] == [[0, 1], [2]]
    published = transforms.Compose([transforms.Resize(16), transforms.CenterCrop(SIZE), transforms.ToTensor()])
    for inputs, path in zip(torch.cat([inputs for inputs, _ in batches]), data.test.paths, strict=True):
        with Image.open(path) as image:
            expected = published(image.convert("RGB"))
        torch.testing.assert_close(
            inputs, transforms.functional.normalize(expected, IMAGENET_MEAN, IMAGENET_STD), atol=2e-6, rtol=0
        )
    assert batches[0][0].is_contiguous(memory_format=torch.channels_last)


def test_every_image_comes_once_in_the_order_of_the_draw(root: Path) -> None:
    config = settings()
    files = load_splits(config, root).train
    loader = StreamingLoader(files, config, CPU, class_pairs=False, workers=0)
    for epoch in (0, 1):
        parts = list(loader.epoch(epoch))
        assert [len(part.labels) for part in parts] == [4, 4, 1]
        assert len(loader) == 3
        indices = torch.cat([part.indices for part in parts])
        assert torch.equal(indices, draw_epoch(files.labels, config, epoch, class_pairs=False)[0].indices)
        assert torch.equal(torch.cat([part.labels for part in parts]), files.labels[indices])
        assert all(part.inputs.shape[1:] == (3, SIZE, SIZE) and part.pair_inputs is None for part in parts)


def test_workers_change_nothing_and_epochs_and_seeds_everything(root: Path) -> None:
    config = settings()
    files = load_splits(config, root).train
    loader = StreamingLoader(files, config, CPU, class_pairs=True, workers=2)
    first, second = list(loader.epoch(0)), list(loader.epoch(1))
    assert equal(first, loaded(root, 0, class_pairs=True))
    assert equal(second, loaded(root, 1, class_pairs=True))
    assert equal(list(loader.epoch(0)), first)
    inputs = [
        torch.cat([part.inputs for part in parts])[torch.cat([part.indices for part in parts]).argsort()]
        for parts in (first, second, loaded(root, 0, seed=1))
    ]
    assert (inputs[0] - inputs[1]).abs().amax((1, 2, 3)).gt(0.01).float().mean() > 0.5
    assert (inputs[0] - inputs[2]).abs().amax((1, 2, 3)).gt(0.01).float().mean() > 0.5


def test_batch_sizes_change_nothing_about_an_image(root: Path) -> None:
    four, nine = loaded(root, 3), loaded(root, 3, batch_size=9)
    assert torch.equal(torch.cat([part.inputs for part in four]), nine[0].inputs)


def test_partners_are_augmented_images_of_the_same_class(root: Path) -> None:
    # Each training image becomes one colour that tells its index.
    for number, path in enumerate(sorted((root / "imagenet/train").glob("*/*.png"))):
        Image.new("RGB", (24, 20), (number * 20, 0, 0)).save(path)
    first, second = draw_epoch(torch.arange(9) // 3, settings(), 0, class_pairs=True)
    parts = loaded(root, class_pairs=True)
    for view, inputs in ((first, [part.inputs for part in parts]), (second, [part.pair_inputs for part in parts])):
        red = (torch.cat(inputs)[:, 0] * IMAGENET_STD[0] + IMAGENET_MEAN[0]) * 255
        assert torch.equal((red / 20).round().long(), view.indices[:, None, None].expand(-1, SIZE, SIZE))
    assert torch.equal(first.indices // 3, second.indices // 3)
    assert (first.indices != second.indices).all()
    assert equal([part._replace(pair_inputs=None) for part in parts], loaded(root))


def test_training_cuts_out_parts_and_mirrors_half(root: Path) -> None:
    ramp = Image.fromarray(np.tile(np.arange(24, dtype=np.uint8) * 10, (20, 1)))
    for path in (root / "imagenet/train").glob("*/*.png"):
        ramp.save(path)
    spans, rising = [], 0
    for epoch in range(12):
        for part in loaded(root, epoch, batch_size=9):
            line = (part.inputs[:, 0, 0] * IMAGENET_STD[0] + IMAGENET_MEAN[0]) * 255
            rising += int((line[:, -1] > line[:, 0]).sum())
            spans += (line[:, -1] - line[:, 0]).abs().tolist()
    assert 30 < rising < 78
    assert min(spans) < 100
    assert max(spans) > 180
    assert len(set(spans)) > 20


def test_without_padding_and_flip_training_sees_the_evaluation_image(root: Path) -> None:
    config = settings(padding=0, flip=False)
    files = load_splits(config, root).train
    plain = torch.cat([inputs for inputs, _ in EvaluationSet(files, config, CPU).batches(4)])
    for part in loaded(root, padding=0, flip=False):
        assert torch.equal(part.inputs, plain[part.indices])


@pytest.mark.parametrize(("height", "width"), [(100, 150), (300, 40)])
def test_boxes_are_distributed_as_torchvisions(height: int, width: int) -> None:
    generator = random.Random(1)
    boxes = np.array([random_box(height, width, generator) for _ in range(3000)])
    image = torch.empty(3, height, width)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        get_params = transforms.RandomResizedCrop.get_params
        expected = np.array([get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(3000)])
    assert (boxes[:, 0] + boxes[:, 2]).max() <= height
    assert (boxes[:, 1] + boxes[:, 3]).max() <= width
    for column in range(4):
        assert ks_2samp(boxes[:, column], expected[:, column]).pvalue > 0.001


@pytest.mark.parametrize(("height", "width"), [(1000, 10), (10, 1000)])
def test_a_box_of_a_very_long_image_is_its_centre(height: int, width: int) -> None:
    top, left, box_height, box_width = random_box(height, width, random.Random(0))
    assert (box_height, box_width) == ((13, 10) if height > width else (10, 13))
    assert (top, left) == ((height - box_height) // 2, (width - box_width) // 2)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_file_is_named_in_one_sentence(root: Path, workers: int) -> None:
    path = root / "imagenet/train/bee/1.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=rf"^{path}: cannot be read as an image \([^\n]+\); replace or delete it$"):
        loaded(root, workers=workers)


def test_global_generators_are_left_alone(root: Path) -> None:
    before = torch.get_rng_state(), random.getstate()
    loaded(root, workers=1)
    list(EvaluationSet(load_splits(settings(), root).test, settings(), CPU).batches(2))
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()


def test_files_and_memory_meet_in_out_of_distribution_detection(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cifar100(root, monkeypatch)
    config = TrainConfig(dataset="cifar100", ood_dataset="imagenet")
    outside = load_splits(config, root)
    (inputs, labels), *rest = EvaluationSet(outside.out_of_distribution, config, CPU).batches(10)
    assert not rest
    assert inputs.shape == (3, 3, 32, 32)
    assert len(labels) == 3
    other = settings(ood_dataset="cifar100")
    (inputs, _), *_ = EvaluationSet(load_splits(other, root).out_of_distribution, other, CPU).batches(10)
    assert inputs.shape == (4, 3, SIZE, SIZE)
