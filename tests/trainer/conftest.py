"""What the trainer's tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.trainer.fake_datasets import write_image


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums of another number of threads have other last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with `folder:tiny`: six classes of five training and four test images, 32x32."""
    root = tmp_path_factory.mktemp("data")
    for split, count in (("train", 5), ("test", 4)):
        for label in range(6):
            for i in range(count):
                seed = 1000 * (split == "test") + 10 * label + i
                write_image(root / "tiny" / split / f"class{label}" / f"{i}.png", seed=seed)
    return root
