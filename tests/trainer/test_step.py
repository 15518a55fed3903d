"""The engines of a training step: replayed steps give the bits of launched ones, compiled ones the same losses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from tests.trainer import tape
from tests.trainer.training import COMBINATIONS, assert_same, title
from trainer.config import TrainConfig
from trainer.method import Batch, Method
from trainer.parts import METHODS
from trainer.results import COMPILED, LAUNCHED, REPLAYED
from trainer.state import build_networks, checkpoint_state, load_state, teacher_config
from trainer.step import Replayed, Step, choose_engine, hold_rate
from trainer.train import Diverged, Training

pytestmark = pytest.mark.usefixtures("one_thread")

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")


def config_of(methods: dict[str, Any], **fields: Any) -> TrainConfig:
    """Four full batches of 7 images and one of 2 in an epoch; the rate falls after the first epoch."""
    defaults = {"dataset": "npz:tiny.npz", "width": 4, "stages": 2, "batch_size": 7, "epochs": 2, "milestones": (1,)}
    return TrainConfig(**defaults | {"methods": methods} | fields)


def ready(config: TrainConfig, data_root: Path, *, replayed: bool) -> Training:
    """A training whose steps are launched, or recorded on a tape and replayed."""
    training = Training(config, CPU, data_root, LAUNCHED)
    needed = training.objective.requires.teacher
    training.set_up(build_networks(teacher_config(config), training.num_classes, CPU)[0] if needed else None)
    training.evaluated = training.evaluated._replace(test=training.evaluated.test.first(2))
    # As on a GPU, where the rate is always there.
    hold_rate(training.optimizer)
    step = Step(config, training.networks, training.objective, training.optimizer)
    training.step = Replayed(step, tape.record) if replayed else step
    return training


def epochs(training: Training, loader: Any = None) -> list[dict[str, float]]:
    """Train all epochs; return the losses of each."""
    losses = []
    for epoch in range(training.config.epochs):
        training.loader = loader or training.loader
        losses.append(training.epoch(epoch).losses)
    return losses


def learned(training: Training) -> dict[str, Any]:
    return checkpoint_state(training.networks, training.optimizer, training.objective, [])


# A method is tested here by being registered.
REGISTERED = [*COMBINATIONS, *({name: {}} for name in METHODS if not any(name in methods for methods in COMBINATIONS))]


@pytest.mark.parametrize("methods", REGISTERED, ids=title)
def test_replaying_gives_the_bits_of_launching(methods: dict[str, Any], data_root: Path):
    launched, replayed = (ready(config_of(methods), data_root, replayed=replayed) for replayed in (False, True))
    assert epochs(launched) == epochs(replayed)
    assert replayed.step.replay is not None
    assert_same(learned(launched), learned(replayed))


RECIPES: list[dict[str, Any]] = [
    {"optimizer": "sgd", "schedule": "cosine", "milestones": None, "warmup": 1.2},
    {"optimizer": "sgd", "schedule": {"linear": {"final": 0.5}}, "milestones": None},
    {"optimizer": {"adamw": {"betas": [0.8, 0.9]}}, "schedule": "cosine", "milestones": None},
    {"optimizer": "adamw", "schedule": "steps", "warmup": 1.2},
]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: "-".join(map(str, recipe.values())))
def test_replaying_gives_the_bits_of_launching_with_every_recipe(recipe: dict[str, Any], data_root: Path):
    config = config_of({}, **recipe)
    launched, replayed = (ready(config, data_root, replayed=replayed) for replayed in (False, True))
    assert epochs(launched) == epochs(replayed)
    assert replayed.step.replay is not None
    assert_same(learned(launched), learned(replayed))
    # A recorded step would go on with the rate of its recording, if it did not read it from the device.
    assert float(replayed.optimizer.param_groups[0]["lr"]) == pytest.approx(config.learning_rates(1, 5)[-1])


def test_a_fused_optimizer_lets_itself_be_recorded_only_while_it_is(data_root: Path):
    seen = []
    training = ready(config_of({}, optimizer="adamw"), data_root, replayed=True)
    (group,) = training.optimizer.param_groups

    def record(work):
        seen.append(group["capturable"])
        return tape.record(work)

    training.step.record = record
    epochs(training)
    assert (seen, group["capturable"]) == ([True], False)


@dataclass
class Rebinding(Method):
    """A method that puts a new tensor in the place of its state: a recorded step goes on reading the old one."""

    name = "rebinding"
    title = "Rebinding"

    def setup(self, labels, num_classes, networks, teacher=None):
        self.count = labels.new_zeros((), dtype=torch.float32)

    def losses(self, networks, outputs, batch, targets):
        return {"rebinding": self.count * outputs[0].logits.float().square().mean()}

    def after_step(self, outputs, batch):
        self.count = self.count + 1


REBINDING = METHODS.remove("rebinding")


def test_a_method_that_rebinds_its_state_is_found_out(data_root: Path):
    with METHODS.apart():
        METHODS.add(REBINDING)
        launched, replayed = (
            ready(config_of({"rebinding": {}}), data_root, replayed=replayed) for replayed in (False, True)
        )
        assert epochs(launched) != epochs(replayed)


MIXED: list[bool] = []


@dataclass
class SometimesMixing(Method):
    """A method that mixes every second batch: its batches have other tensors than those before."""

    name = "sometimes"
    title = "Sometimes"

    def augment(self, batch, generator):
        MIXED.append(bool(torch.rand((), generator=generator) < 0.5))
        if not MIXED[-1]:
            return batch
        return batch.mixed(batch.map(lambda values: values.flip(0)), 0.7, lambda own, other: 0.7 * own + 0.3 * other)


SOMETIMES = METHODS.remove("sometimes")


def test_batches_that_do_not_fit_a_recorded_step_are_launched(data_root: Path):
    with METHODS.apart():
        METHODS.add(SOMETIMES)
        config = config_of({"pskd": {}, "sometimes": {}}, seed=2)
        launched, replayed = (ready(config, data_root, replayed=replayed) for replayed in (False, True))
        assert epochs(launched) == epochs(replayed)
    # The full batches of the second epoch, when a step was recorded.
    assert set(MIXED[-5:-1]) == {True, False}
    assert replayed.step.replay is not None
    assert_same(learned(launched), learned(replayed))


@dataclass
class Poisoned:
    """A loader whose batch number `step` (from 1) of the epoch `epoch` is not finite."""

    loader: Any
    step: int
    poisoned: int = 1

    def __len__(self) -> int:
        return len(self.loader)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        for number, batch in enumerate(self.loader.epoch(epoch), start=1):
            bad = number >= self.step and epoch == self.poisoned
            yield batch._replace(inputs=batch.inputs * float("nan")) if bad else batch


@pytest.mark.parametrize("step", [1, 3, 5])
def test_a_loss_that_diverges_is_told_with_its_step(step: int, data_root: Path):
    messages = []
    for replayed in (False, True):
        training = ready(config_of({"pskd": {}}), data_root, replayed=replayed)
        with pytest.raises(Diverged) as raised:
            epochs(training, Poisoned(training.loader, step))
        messages.append(str(raised.value))
    assert messages == [f"the loss term 'cross_entropy' is not finite at step {step} of 5 in epoch 2 of 2"] * 2


def test_a_recording_that_fails_is_said_and_training_goes_on_launched(
    caplog: pytest.LogCaptureFixture, data_root: Path
):
    def refuse(work):
        try:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        finally:
            # What CUDA says when the recording is ended.
            raise RuntimeError("operation failed due to a previous error during capture")

    launched, replayed = ready(config_of({}), data_root, replayed=False), ready(config_of({}), data_root, replayed=True)
    replayed.step.record = refuse
    replayed.chosen = REPLAYED
    assert replayed.engine == REPLAYED
    assert epochs(launched) == epochs(replayed)
    assert replayed.engine == LAUNCHED
    (record,) = caplog.records
    assert record.message.endswith("(operation not permitted when stream is capturing)")


def test_a_checkpoint_does_not_say_where_the_rate_was(data_root: Path):
    launched, replayed = (
        ready(config_of({"pskd": {}}), data_root, replayed=False),
        ready(config_of({"pskd": {}}), data_root, replayed=True),
    )
    epochs(replayed)
    state = learned(replayed)
    assert all(type(group["lr"]) is float for group in state["optimizer"]["param_groups"])
    rate = launched.optimizer.param_groups[0]["lr"]
    load_state(state, launched.networks, launched.optimizer, launched.objective)
    assert launched.optimizer.param_groups[0]["lr"] is rate
    assert_same(state, learned(launched) | {"optimizer": state["optimizer"]})


@pytest.mark.parametrize(
    "asked, device, fields, in_memory, used",
    [
        ("auto", CUDA, {}, True, REPLAYED),
        ("auto", CUDA, {"precision": "float64"}, True, LAUNCHED),
        ("auto", CUDA, {}, False, LAUNCHED),
        ("auto", CPU, {}, True, LAUNCHED),
        (REPLAYED, CPU, {}, True, LAUNCHED),
        (REPLAYED, CUDA, {"precision": "float64"}, True, LAUNCHED),
        (LAUNCHED, CUDA, {}, True, LAUNCHED),
        (COMPILED, CPU, {}, True, COMPILED),
        (COMPILED, CUDA, {}, False, COMPILED),
    ],
)
def test_the_engine_is_one_that_can_be_used(asked, device, fields, in_memory, used):
    assert choose_engine(asked, config_of({}, **fields), device, in_memory=in_memory) == used


def test_compiled_networks_are_one_graph_each_and_nothing_else_is_compiled(data_root: Path):
    """Not the last batch, nor the evaluation, nor a second training."""
    counter = CompileCounterWithBackend("aot_eager")
    config = config_of({"byot": {}, "pskd": {}}, precision="float32", epochs=1)
    losses = []
    for _ in range(2):
        training = ready(config, data_root, replayed=False)
        training.chosen = COMPILED
        training.step.compile(backend=counter)
        losses.append(training.epoch(0).losses)
        assert counter.frame_count == 1
    eager = ready(config, data_root, replayed=False).epoch(0).losses
    assert losses[0] == losses[1] == pytest.approx(eager, rel=1e-5)
    assert not any("_orig_mod" in name for name in training.networks.state_dict())
