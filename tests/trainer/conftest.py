"""What the trainer's tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.trainer.training import CLASSES, TEST_IMAGES, TRAIN_IMAGES


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums of another number of threads have other last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with `folder:tiny`, six classes of a colour pattern each, and `folder:other`, which is noise."""
    root = tmp_path_factory.mktemp("data")
    random = np.random.RandomState(0)
    patterns = random.randint(0, 256, (CLASSES, 2, 2, 3))
    for split, count in (("train", TRAIN_IMAGES), ("test", TEST_IMAGES)):
        for label in range(CLASSES):
            pattern = patterns[label].repeat(16, 0).repeat(16, 1)
            for i in range(count):
                noise = random.randint(0, 256, (32, 32, 3))
                _write(root / "tiny" / split / f"class{label}" / f"{i}.png", (3 * pattern + noise) // 4)
                if label < 2:
                    _write(root / "other" / split / f"class{label}" / f"{i}.png", noise)
    return root


def _write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
