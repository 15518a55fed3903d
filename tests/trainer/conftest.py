"""Fixtures that the trainer's tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainer.training import CLASSES, SIZE, TEST_IMAGES, TRAIN_IMAGES


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums of another number of threads have other last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with `npz:tiny.npz`, six classes of a colour pattern each, and `npz:other.npz`, which is noise."""
    root = tmp_path_factory.mktemp("data")
    random = np.random.RandomState(0)
    patterns = random.randint(0, 256, (CLASSES, 2, 2, 3)).repeat(SIZE // 2, 1).repeat(SIZE // 2, 2)
    tiny, other = {}, {}
    for split, count in (("train", TRAIN_IMAGES), ("test", TEST_IMAGES)):
        labels = np.arange(CLASSES).repeat(count)
        noise = random.randint(0, 256, (len(labels), SIZE, SIZE, 3))
        tiny |= {f"{split}_labels": labels, f"{split}_images": ((3 * patterns[labels] + noise) // 4).astype(np.uint8)}
        other |= {f"{split}_labels": labels[: 2 * count], f"{split}_images": noise[: 2 * count].astype(np.uint8)}
    np.savez(root / "tiny.npz", **tiny)
    np.savez(root / "other.npz", **other)
    return root
