"""Reading the published formats and making splits of them."""

from __future__ import annotations

import gzip
import hashlib
import os
import pickle
import warnings
from collections import Counter
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat
from torchvision.datasets import CIFAR100

from tests.trainer.fake_datasets import (
    fake_cifar100,
    fake_folder,
    patch_facts,
    put_facts,
    write_cifar_pickle,
    write_image,
)
from tests.trainer.training import in_a_process
from trainer.config import TrainConfig
from trainer.data import Images, Splits, load_splits, published, read_dataset
from trainer.data.reading import ranks_within_class, stratified_split
from trainer.data.splits import DataError
from trainer.datasets import dataset_spec
from trainer.spec import IMAGENET_MEAN, IMAGENET_STD, DatasetSpec


def splits(root: Path = Path("nowhere"), **fields: object) -> Splits:
    return load_splits(TrainConfig(**fields), root)


def assert_published(name: str, train: Images, test: Images) -> None:
    spec: DatasetSpec = dataset_spec(name)
    assert train.num_classes == test.num_classes == spec.classes
    for images, count in ((train, spec.train_images), (test, spec.test_images)):
        assert images.pixels.shape == (count, spec.size, spec.size, 3)
        assert images.pixels.dtype == torch.uint8
        assert images.pixels.is_contiguous()
        assert images.labels.shape == (count,)
        assert images.labels.dtype == torch.int64
        assert images.labels.unique().tolist() == list(range(spec.classes))


def test_cifar100_is_read_as_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = fake_cifar100(tmp_path, monkeypatch)
    loaded = splits(tmp_path)
    assert_published("cifar100", loaded.train, loaded.test)
    assert np.array_equal(loaded.train.pixels, train)
    assert np.array_equal(loaded.test.pixels, test)
    assert loaded.train.labels.tolist() == [0, 1, 2, 3] * 3
    assert loaded.validation is None
    assert loaded.out_of_distribution is None


def test_cifar10_joins_its_five_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = []
    for number, file in enumerate(dataset_spec("cifar10").files):
        pixels.append(write_cifar_pickle(tmp_path / file.path, [number % 3, 1, 2], b"labels", number))
    patch_facts(monkeypatch, "cifar10", tmp_path, classes=3, train_images=15, test_images=3)
    loaded = splits(tmp_path, dataset="cifar10")
    assert np.array_equal(loaded.train.pixels, np.concatenate(pixels[:5]))
    assert np.array_equal(loaded.test.pixels, pixels[5])
    assert loaded.train.labels.tolist() == [0, 1, 2, 1, 1, 2, 2, 1, 2, 0, 1, 2, 1, 1, 2]


def test_svhn_counts_the_digit_zero_as_class_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.RandomState(0).randint(0, 256, (32, 32, 3, 20), dtype=np.uint8)
    digits = np.arange(20) % 10 + 1
    for name in ("train_32x32.mat", "test_32x32.mat"):
        savemat(tmp_path / name, {"X": pixels, "y": digits[:, None].astype(np.uint8)}, do_compression=True)
    patch_facts(monkeypatch, "svhn", tmp_path, train_images=20, test_images=20)
    loaded = splits(tmp_path, dataset="svhn")
    assert_published("svhn", loaded.train, loaded.test)
    assert loaded.train.labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0] * 2
    assert np.array_equal(loaded.test.pixels[7], pixels[..., 7])


def test_tiny_imagenet_takes_its_test_labels_from_the_annotations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "tiny-imagenet-200"
    for number, name in enumerate(("n02", "n01", "n03")):
        for i in range(2):
            write_image(base / "train" / name / "images" / f"{name}_{i}.JPEG", (64, 64), seed=10 * number + i)
        (base / "train" / name / f"{name}_boxes.txt").write_text(f"{name}_0.JPEG\t0\t0\t62\t62\n")
    images = [write_image(base / "val/images" / f"val_{i}.JPEG", (64, 64), seed=50 + i) for i in range(3)]
    grey = write_image(base / "val/images/val_3.JPEG", (64, 64), seed=60, mode="L")
    lines = [f"val_{i}.JPEG\t{name}\t0\t0\t62\t62\n" for i, name in enumerate(("n03", "n01", "n02", "n01"))]
    (base / "val/val_annotations.txt").write_text("".join(lines))
    put_facts(monkeypatch, "tinyimagenet", classes=3, train_images=6, test_images=4)
    loaded = splits(tmp_path, dataset="tinyimagenet")
    assert_published("tinyimagenet", loaded.train, loaded.test)
    assert loaded.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert loaded.test.labels.tolist() == [2, 0, 1, 0]
    # JPEG is lossy, but the first test image is still far nearer to its own original than to others.
    errors = [np.abs(np.asarray(image, float) - loaded.test.pixels[0].numpy()).mean() for image in images]
    assert errors[0] < 5 < min(errors[1:])
    assert torch.equal(loaded.test.pixels[3][..., 0], loaded.test.pixels[3][..., 2])
    assert np.abs(np.asarray(grey, float) - loaded.test.pixels[3][..., 1].numpy()).mean() < 5


def test_digits_are_blocks_of_grey_in_a_stratified_split() -> None:
    loaded = splits(dataset="digits")
    assert_published("digits", loaded.train, loaded.test)
    assert loaded.train.labels.bincount().max() == dataset_spec("digits").largest_class
    for images, per_class in ((loaded.train, (139, 147)), (loaded.test, (34, 38))):
        counts = Counter(images.labels.tolist())
        assert per_class[0] <= min(counts.values()) <= max(counts.values()) <= per_class[1]
        assert (images.pixels == images.pixels[:, ::4, ::4, :1].repeat_interleave(4, 1).repeat_interleave(4, 2)).all()
        assert images.pixels.amin() == 0
        assert images.pixels.amax() == 255
    # Grey level 8 of 16 stands in the middle.
    assert 128 in loaded.train.pixels


def test_the_digits_split_is_the_same_everywhere() -> None:
    digits = splits(dataset="digits")
    assert hashlib.sha256(digits.test.pixels.numpy().tobytes()).hexdigest()[:16] == "fa242e4b3381f5af"


def test_the_digits_are_those_that_scikit_learn_returns() -> None:
    # Here, because the import takes a second in every process of `pytest -n`.
    from sklearn.datasets import load_digits

    expected = load_digits()
    images, labels = published._published_digits()
    for read, returned in ((images, expected.images), (labels, expected.target)):
        assert read.dtype == returned.dtype
        assert read.shape == returned.shape
        assert read.tobytes() == returned.tobytes()


def test_reading_the_digits_does_not_import_scikit_learn() -> None:
    code = "import sys; from trainer.data.reading import read_dataset; read_dataset('digits', '.'); "
    assert in_a_process(exec, code + "sys.exit('sklearn' in sys.modules)", {}) == 0


def test_a_damaged_file_of_digits_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Path(find_spec("sklearn").origin).with_name("datasets").joinpath("data/digits.csv.gz").read_bytes()
    path = tmp_path / "sklearn/datasets/data/digits.csv.gz"
    path.parent.mkdir(parents=True)
    monkeypatch.setattr(published, "find_spec", lambda name: ModuleSpec(name, None, origin=f"{tmp_path}/{name}/x.py"))
    changed = bytearray(whole)
    changed[30000] ^= 1
    for content in (None, b"", whole[:20000], bytes(changed), gzip.compress(b"0,1\nx,2\n"), gzip.compress(b"1,2,3\n")):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(DataError, match=f"digits: {path} cannot be read .*install scikit-learn again"):
            published._published_digits()


def test_synthetic_images_are_the_same_everywhere() -> None:
    loaded = splits(dataset="synthetic")
    assert_published("synthetic", loaded.train, loaded.test)
    assert loaded.train.labels.bincount().max() == dataset_spec("synthetic").largest_class
    assert set(Counter(loaded.train.labels.tolist()).values()) == {100}
    digest = hashlib.sha256(loaded.train.pixels.numpy().tobytes() + loaded.test.pixels.numpy().tobytes())
    assert digest.hexdigest()[:16] == "47f02ddc1445eacf"


def test_synthetic_classes_can_be_learned_and_keep_their_label_when_mirrored() -> None:
    loaded = splits(dataset="synthetic")
    train, test = loaded.train.pixels.float(), loaded.test.pixels.float()
    means = torch.stack([train[loaded.train.labels == label].mean(0) for label in range(100)]).flatten(1)
    for seen in (test, test.flip(2)):
        nearest = torch.cdist(seen.flatten(1), means).argmin(1)
        assert (nearest == loaded.test.labels).float().mean() > 0.95
    # The noise is not a copy of the training images'.
    assert torch.cdist(test[:50].flatten(1), train.flatten(1)).amin() > 100


def test_the_real_cifar100_is_what_torchvision_reads() -> None:
    root = os.environ.get("ORCHESTRATE_DATA")
    if not root or not Path(root, "cifar-100-python/train").is_file():
        pytest.skip("ORCHESTRATE_DATA names no folder that holds cifar-100-python")
    loaded = splits(Path(root), validation=5000, subset=100)
    whole, test = read_dataset("cifar100", Path(root))
    assert_published("cifar100", whole, test)
    for images, per_class in ((whole, dataset_spec("cifar100").largest_class), (test, 100)):
        assert set(Counter(images.labels.tolist()).values()) == {per_class}
    with warnings.catch_warnings():
        # torchvision reads numpy 1 pickles in a way that numpy 2 warns about.
        warnings.simplefilter("ignore")
        published = CIFAR100(root, train=False)
    assert np.array_equal(published.data, test.pixels)
    assert published.targets == test.labels.tolist()
    mean = whole.pixels.view(-1, 3).sum(0) / (255 * 50_000 * 32 * 32)
    torch.testing.assert_close(mean, torch.tensor([0.5071, 0.4865, 0.4409]), atol=1e-4, rtol=0)
    assert set(Counter(loaded.train.labels.tolist()).values()) == {100}
    assert set(Counter(loaded.validation.labels.tolist()).values()) == {50}


# -- Splits


def test_a_subset_keeps_the_first_images_of_each_class_and_the_whole_test_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_cifar100(tmp_path, monkeypatch, per_class=5)
    whole = splits(tmp_path)
    for seed in (0, 1):
        loaded = splits(tmp_path, subset=2, seed=seed)
        assert torch.equal(loaded.train.pixels, whole.train.pixels[:8])
        assert loaded.train.labels.tolist() == [0, 1, 2, 3] * 2
        assert loaded.train.num_classes == 4
        assert torch.equal(loaded.test.pixels, whole.test.pixels)
    assert torch.equal(splits(tmp_path, subset=99).train.pixels, whole.train.pixels)


def test_validation_images_are_fixed_and_disjoint_from_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, _ = fake_cifar100(tmp_path, monkeypatch, per_class=10)
    loaded = splits(tmp_path, validation=8)
    assert len(loaded.train) == 32
    assert Counter(loaded.validation.labels.tolist()) == {0: 2, 1: 2, 2: 2, 3: 2}
    pieces = [images.tobytes() for part in (loaded.train, loaded.validation) for images in part.pixels.numpy()]
    assert sorted(pieces) == sorted(image.tobytes() for image in train)
    for other in (splits(tmp_path, validation=8, seed=5), splits(tmp_path, validation=8, subset=3)):
        assert torch.equal(other.validation.pixels, loaded.validation.pixels)
    assert Counter(other.train.labels.tolist()) == {0: 3, 1: 3, 2: 3, 3: 3}


def test_too_many_validation_images_of_a_folder_are_refused(tmp_path: Path) -> None:
    fake_folder(tmp_path / "insects")
    insects = {"dataset": "folder:insects"}
    assert len(splits(tmp_path, validation=6, **insects).train) == 3
    with pytest.raises(DataError, match=r"insects: validation: 7 of 9 images leave some class without any"):
        splits(tmp_path, validation=7, **insects)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 6), min_size=2, max_size=60), st.data())
def test_a_stratified_split_is_in_proportion(values: list[int], data: st.DataObject) -> None:
    labels = torch.tensor(values)
    counts = Counter(values)
    held_out = data.draw(st.integers(0, len(values) - len(counts)))
    first, second = stratified_split(labels, held_out)
    assert len(second) == held_out
    assert sorted(first.tolist() + second.tolist()) == list(range(len(values)))
    assert first.tolist() == sorted(first.tolist())
    assert set(labels[first].tolist()) == set(counts)
    taken = Counter(labels[second].tolist())
    quotas = {label: count * held_out / len(values) for label, count in counts.items()}
    if all(quota <= counts[label] - 1 for label, quota in quotas.items()):
        assert all(abs(taken[label] - quota) < 1 for label, quota in quotas.items())


def test_a_stratified_split_is_not_simply_the_first_or_last_images() -> None:
    _, second = stratified_split(torch.arange(1000) % 2, 100)
    assert 300 < second.float().mean() < 700
    assert len(second.diff().unique()) > 5
    assert torch.equal(second, stratified_split(torch.arange(1000) % 2, 100)[1])


def test_ranks_count_equal_labels_before() -> None:
    assert ranks_within_class(torch.tensor([3, 1, 3, 3, 0, 1])).tolist() == [0, 0, 1, 2, 0, 1]


def test_out_of_distribution_images_are_the_other_test_set_at_this_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, test = fake_cifar100(tmp_path, monkeypatch)
    assert np.array_equal(
        splits(tmp_path, dataset="synthetic", ood_dataset="cifar100").out_of_distribution.pixels, test
    )

    put_facts(monkeypatch, "synthetic", size=64, train_images=200, test_images=100)
    loaded = splits(tmp_path, ood_dataset="synthetic", dataset="cifar100")
    original = read_dataset("synthetic", tmp_path)[1].pixels.float()
    outside = loaded.out_of_distribution.pixels
    assert outside.shape == (100, 32, 32, 3)
    assert outside.dtype == torch.uint8
    # Far from the borders of its blocks, an antialiased half is close to a mean of neighbours.
    halves = original.unflatten(1, (32, 2)).unflatten(3, (32, 2)).mean((2, 4))
    assert (outside.float() - halves).abs().mean() < 12
    assert (outside.float().mean((1, 2)) - original.mean((1, 2))).abs().amax() < 2


def test_normalisation_is_the_data_sets_or_imagenets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cifar100(tmp_path, monkeypatch)
    assert splits(tmp_path).mean == (0.4914, 0.4822, 0.4465)
    assert splits(tmp_path).std == (0.2023, 0.1994, 0.2010)
    other = splits(tmp_path, normalization="imagenet")
    assert (other.mean, other.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert splits(dataset="digits").mean == (0.5, 0.5, 0.5)


def test_a_data_set_is_read_once_and_again_when_its_files_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_cifar100(tmp_path, monkeypatch)
    first = splits(tmp_path).train.pixels
    assert splits(tmp_path, seed=1).train.pixels is first
    train, _ = fake_cifar100(tmp_path, monkeypatch, per_class=2)
    assert np.array_equal(splits(tmp_path).train.pixels, train)


def test_an_image_added_to_a_folder_is_noticed(tmp_path: Path) -> None:
    fake_folder(tmp_path / "insects")
    assert len(splits(tmp_path, dataset="folder:insects").train) == 9
    write_image(tmp_path / "insects/train/bee/new.png")
    assert len(splits(tmp_path, dataset="folder:insects").train) == 10


# -- What can be wrong with published files


def test_a_missing_file_is_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cifar100(tmp_path, monkeypatch)
    (tmp_path / "cifar-100-python/test").unlink()
    with pytest.raises(DataError) as caught:
        splits(tmp_path)
    assert str(caught.value) == (
        f"cifar100: {tmp_path}/cifar-100-python/test is missing; download "
        f"https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz and unpack it into {tmp_path}, "
        "or choose another data root (--data-root)"
    )


def test_a_damaged_file_is_never_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cifar100(tmp_path, monkeypatch)
    path = tmp_path / "cifar-100-python/train"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"cifar-100-python/train is damaged \(its MD5 is not [0-9a-f]{32}\); download"):
        splits(tmp_path)


def test_a_pickle_may_hold_arrays_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Intruder:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "intruded"),)

    fake_cifar100(tmp_path, monkeypatch)
    (tmp_path / "cifar-100-python/train").write_bytes(pickle.dumps({b"data": Intruder()}))
    patch_facts(monkeypatch, "cifar100", tmp_path)
    with pytest.raises(DataError, match="mkdir does not belong in a data set"):
        splits(tmp_path)
    assert not (tmp_path / "intruded").exists()
