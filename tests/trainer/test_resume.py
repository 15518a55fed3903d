"""A training that was killed and resumed gives the bits of one that was not, wherever the kill came."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from tests.trainer.training import COMBINATIONS, assert_same, content, in_a_process, numbers, title, trained
from tests.trainer.training import small as of_four_stages
from trainer.config import TrainConfig
from trainer.results import EpochResult
from trainer.train import train

pytestmark = pytest.mark.usefixtures("one_thread")

THREE_METHODS = {"byot": {}, "dmfl": {}, "pskd": {}}


def small(**fields: Any) -> TrainConfig:
    """A network of two stages: one of each part whose state a checkpoint holds."""
    return of_four_stages(stages=2, **fields)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def train_until_reported(config: TrainConfig, checkpoint: Path, data_root: Path) -> None:
    """Die as soon as the first epoch is reported."""
    train(config, lambda result: die(), checkpoint=checkpoint, data_root=data_root)


@pytest.mark.parametrize("methods", COMBINATIONS, ids=title)
def test_one_epoch_and_sigkill_and_one_epoch_are_two_epochs(
    methods: dict[str, Any], data_root: Path, tmp_path: Path
) -> None:
    config = small(methods=methods)
    assert in_a_process(train_until_reported, config, tmp_path / "resumed.pt", data_root) == -signal.SIGKILL
    assert len(content(tmp_path / "resumed.pt")["results"]) == 1
    resumed = trained(config, tmp_path / "resumed.pt", data_root)
    assert_same(resumed, trained(config, tmp_path / "straight.pt", data_root))
    assert len(resumed["results"]) == 2


RECIPES = [
    {"optimizer": "adamw", "schedule": "cosine", "warmup": 1.5},
    {"optimizer": {"adamw": {"betas": [0.8, 0.95]}}, "schedule": "steps", "milestones": [1]},
    {"optimizer": "adamw", "schedule": {"linear": {"final": 0.2}}},
    {"schedule": "cosine"},
    {"schedule": "linear", "warmup": 0.5},
    {"schedule": "steps", "warmup": 1.5},
]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: "-".join(map(str, recipe.values())))
def test_every_recipe_goes_on_where_it_was_killed(recipe: dict[str, Any], data_root: Path, tmp_path: Path) -> None:
    config = small(methods={"pskd": {}}, **recipe)
    assert in_a_process(train_until_reported, config, tmp_path / "resumed.pt", data_root) == -signal.SIGKILL
    resumed = trained(config, tmp_path / "resumed.pt", data_root)
    assert_same(resumed, trained(config, tmp_path / "straight.pt", data_root))
    reported = [result["learning_rate"] for result in resumed["results"]]
    assert reported == [config.learning_rates(epoch, 2)[-1] for epoch in range(2)]


def train_until_call(
    config: TrainConfig, checkpoint: Path, data_root: Path, target: str, number: int, after: bool
) -> None:
    """Die before or after a certain call of a function."""
    module, _, name = target.rpartition(".")
    function = getattr(__import__(module, fromlist=[name]), name)
    calls = 0

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number and not after:
            die()
        result = function(*arguments, **options)
        if calls == number:
            die()
        return result

    with patch(target, counted):
        train(config, lambda result: None, checkpoint=checkpoint, data_root=data_root)


def train_until_half_written(config: TrainConfig, checkpoint: Path, data_root: Path, number: int) -> None:
    """Die when half of a certain checkpoint is in its file."""
    save, calls = torch.save, 0

    def halved(state: Any, file: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            whole = io.BytesIO()
            save(state, whole)
            file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
            file.flush()
            die()
        save(state, file)

    with patch("torch.save", halved):
        train(config, lambda result: None, checkpoint=checkpoint, data_root=data_root)


def call(target: str, number: int, after: bool = False) -> Callable[[TrainConfig, Path, Path], None]:
    return partial(train_until_call, target=target, number=number, after=after)


# A checkpoint is an fsync of the file, a replace (two where an earlier one is kept) and an fsync of the folder.
PLACES = {
    "in the first epoch": (call("trainer.step.autocast", 1), 0),
    "before the first checkpoint": (call("torch.save", 1), 0),
    "in the first checkpoint": (partial(train_until_half_written, number=1), 0),
    "before the first checkpoint has its name": (call("os.replace", 1), 0),
    "after the first checkpoint has its name": (call("os.replace", 1, after=True), 1),
    "in the second epoch": (call("trainer.step.autocast", 3), 1),
    "in the second evaluation": (call("trainer.train.evaluate", 2), 1),
    "in the second checkpoint": (partial(train_until_half_written, number=2), 1),
    "before the second checkpoint is flushed": (call("os.fsync", 3), 1),
    "before the first checkpoint is kept as the previous": (call("os.replace", 2), 1),
    "before the second checkpoint has its name": (call("os.replace", 3), 1),
    "after the second checkpoint has its name": (call("os.replace", 3, after=True), 2),
    "before the previous checkpoint is removed": (call("trainer.train.keep_newest", 1), 2),
}


@pytest.fixture(scope="module")
def undisturbed(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    state = trained(small(methods=THREE_METHODS), tmp_path_factory.mktemp("straight") / "run.pt", data_root)
    torch.set_num_threads(before)
    return state


@pytest.mark.parametrize("place", PLACES)
def test_the_moment_of_the_kill_does_not_matter(
    place: str, undisturbed: dict[str, Any], data_root: Path, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "run.pt"
    config = small(methods=THREE_METHODS)
    kill, survived = PLACES[place]
    assert in_a_process(kill, config, checkpoint, data_root) == -signal.SIGKILL

    reported: list[EpochResult] = []
    train(config, reported.append, checkpoint=checkpoint, data_root=data_root)
    assert [result.restored for result in reported] == [epoch < survived for epoch in range(2)]
    assert [numbers(result) for result in reported] == undisturbed["results"]
    assert_same(content(checkpoint), undisturbed)
    assert [path.name for path in tmp_path.iterdir()] == ["run.pt"], "nothing is left behind"


@pytest.mark.parametrize("number", [1, 2, 3, 5, 7], ids=lambda number: f"step {number}")
def test_a_teacher_survives_a_kill_too(number: int, data_root: Path, tmp_path: Path) -> None:
    # Two epochs of two steps for the teacher, then as many for the student.
    config = small(methods={"tfkd": {}})
    straight = trained(config, tmp_path / "straight.pt", data_root)
    kill = call("trainer.step.autocast", number)
    assert in_a_process(kill, config, tmp_path / "run.pt", data_root) == -signal.SIGKILL

    taught: list[EpochResult] = []
    assert_same(trained(config, tmp_path / "run.pt", data_root, report_teacher=taught.append), straight)
    survived = (number - 1) // 2
    if survived < 3:
        assert [result.restored for result in taught] == [epoch < survived for epoch in range(2)]
    else:
        assert not taught, "a student's checkpoint holds the teacher"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.pt", "straight.pt"]


def test_killed_again_and_again(data_root: Path, tmp_path: Path) -> None:
    config = small(methods={"pskd": {}, "dml": {}}, epochs=4, milestones=[1, 3], seed=5)
    for survived in range(3):
        assert in_a_process(call("torch.save", 2), config, tmp_path / "run.pt", data_root) == -signal.SIGKILL
        assert len(content(tmp_path / "run.pt")["results"]) == survived + 1
    assert_same(trained(config, tmp_path / "run.pt", data_root), trained(config, tmp_path / "straight.pt", data_root))
