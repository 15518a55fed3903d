"""`trainer.checks`: every fault of a part is found by its check, with what to do, and our own parts have none."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import nn

from trainer.checks import check_part, method
from trainer.checks import metric as metric_checks
from trainer.checks import network as network_checks
from trainer.checks.training import difference
from trainer.method import Method, Requires, predict
from trainer.parts import (
    DATASETS,
    METHODS,
    METRICS,
    NETWORKS,
    OPTIMIZERS,
    REGISTRIES,
    SCHEDULES,
    dataset,
    metric,
    network,
)
from trainer.plugins import load_plugins

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def registries_apart() -> Iterator[None]:
    with ExitStack() as stack:
        for registry in REGISTRIES:
            stack.enter_context(registry.apart())
        yield


def problems(part: Any) -> dict[str, str]:
    """Return what is wrong with a part, by promise."""
    return {finding.promise: finding.problem for finding in check_part(part, Path("data")) if finding.problem}


def problem(part: Any, promise: str, checks: dict[str, Any]) -> str:
    """Return how a part breaks one promise, empty if it keeps it; the other checks of its kind are left out."""
    with patch.dict(checks, {promise: checks[promise]}, clear=True):
        (checked,) = check_part(part, Path("data"))
    return checked.problem or ""


@pytest.mark.parametrize("name", sorted(METHODS))
def test_our_own_methods_keep_every_promise(name: str):
    assert problems(METHODS[name]) == {}


@pytest.mark.parametrize("name", ["resnet18", "mobilenet", "wrn28_10"])
def test_our_own_networks_keep_every_promise(name: str):
    assert problems(NETWORKS[name]) == {}


@pytest.mark.parametrize("name", sorted(METRICS))
def test_our_own_metrics_keep_every_promise(name: str):
    assert problems(METRICS[name]) == {}


def penalty(outputs: Any) -> torch.Tensor:
    logs = outputs[0].logits.float().log_softmax(-1)
    return (logs.exp() * logs).sum(-1).mean()


def no_gradient() -> None:
    @dataclass
    class Detached(Method):
        name = "faulty"
        title = "Faulty"

        def losses(self, networks, outputs, batch, targets):
            return {"faulty": 0.1 * penalty(outputs).detach()}


def not_a_scalar() -> None:
    @dataclass
    class PerImage(Method):
        name = "faulty"
        title = "Faulty"

        def losses(self, networks, outputs, batch, targets):
            return {"faulty": outputs[0].logits.float().square().mean(-1)}


def not_finite() -> None:
    @dataclass
    class Logarithm(Method):
        name = "faulty"
        title = "Faulty"

        def losses(self, networks, outputs, batch, targets):
            return {"faulty": (targets[0].log() * outputs[0].logits.float()).mean()}


def nameless_term() -> None:
    @dataclass
    class Nameless(Method):
        name = "faulty"
        title = "Faulty"

        def losses(self, networks, outputs, batch, targets):
            return {"penalty": 0.1 * penalty(outputs)}


def forgetful() -> None:
    @dataclass
    class Forgetful(Method):
        """Its weight grows with every step, and no checkpoint has it."""

        name = "faulty"
        title = "Faulty"

        def setup(self, labels, num_classes, networks, teacher=None):
            self.weight = labels.new_zeros((), dtype=torch.float32)

        def losses(self, networks, outputs, batch, targets):
            return {"faulty": self.weight * penalty(outputs)}

        def after_step(self, outputs, batch):
            self.weight += 0.01


def forgets_its_teacher() -> None:
    @dataclass
    class Taught(Method):
        """The teacher that it was given is not in its state."""

        name = "faulty"
        title = "Faulty"

        @property
        def requires(self):
            return Requires(teacher=True)

        def setup(self, labels, num_classes, networks, teacher=None):
            self.teacher = teacher.eval().requires_grad_(False)

        def losses(self, networks, outputs, batch, targets):
            taught = predict(self.teacher, batch.inputs).float()
            return {"faulty": 0.1 * (outputs[0].logits.float() - taught).square().mean()}


def of_the_class() -> None:
    @dataclass
    class Shared(Method):
        """Its state is that of the class, so that the next trial begins with it."""

        name = "faulty"
        title = "Faulty"
        seen: ClassVar[list[float]] = [0.1]

        def losses(self, networks, outputs, batch, targets):
            return {"faulty": self.seen[0] * penalty(outputs)}

        def after_step(self, outputs, batch):
            self.seen[0] += 0.01


def not_a_number_once() -> None:
    @dataclass
    class Undefined(Method):
        """Its mean of nothing is no number in the first trial of a process, and 0 in all others."""

        name = "faulty"
        title = "Faulty"
        trials: ClassVar[list[Any]] = []

        def setup(self, labels, num_classes, networks, teacher=None):
            self.mean = torch.tensor(0.0 if self.trials else math.nan)
            self.trials.append(self)

        def losses(self, networks, outputs, batch, targets):
            return {"faulty": 0.1 * penalty(outputs)}

        def state_dict(self):
            return {"mean": self.mean}

        def load_state_dict(self, state):
            self.mean = state["mean"]


def unloadable_state() -> None:
    @dataclass
    class Objects(Method):
        name = "faulty"
        title = "Faulty"

        def losses(self, networks, outputs, batch, targets):
            return {"faulty": 0.1 * penalty(outputs)}

        def state_dict(self):
            return {"source": random.Random(0)}


def state_not_restored() -> None:
    @dataclass
    class Unread(Method):
        name = "faulty"
        title = "Faulty"

        def setup(self, labels, num_classes, networks, teacher=None):
            self.weight = labels.new_zeros((), dtype=torch.float32)

        def losses(self, networks, outputs, batch, targets):
            return {"faulty": self.weight * penalty(outputs)}

        def after_step(self, outputs, batch):
            self.weight += 0.01

        def state_dict(self):
            return {"weight": self.weight}


def in_place() -> None:
    @dataclass
    class InPlace(Method):
        name = "faulty"
        title = "Faulty"

        def losses(self, networks, outputs, batch, targets):
            targets[0].mul_(0.9)
            return {"faulty": 0.1 * penalty(outputs)}


def by_company() -> None:
    @dataclass
    class ByCompany(Method):
        """Counts the losses of all methods of its kind in the process."""

        name = "faulty"
        title = "Faulty"
        seen: ClassVar[list[float]] = [0.1]

        def losses(self, networks, outputs, batch, targets):
            self.seen[0] += 0.01
            return {"faulty": self.seen[0] * penalty(outputs)}


def global_numbers() -> None:
    @dataclass
    class Noise(Method):
        name = "faulty"
        title = "Faulty"

        def augment(self, batch, generator):
            return batch._replace(inputs=batch.inputs + 0.1 * torch.randn(batch.inputs.shape))


def changes_its_batch() -> None:
    @dataclass
    class Darkens(Method):
        name = "faulty"
        title = "Faulty"

        def augment(self, batch, generator):
            batch.inputs.mul_(0.5)
            return batch


def drops_images() -> None:
    @dataclass
    class Half(Method):
        name = "faulty"
        title = "Faulty"

        def augment(self, batch, generator):
            return batch.map(lambda values: values[::2])


def mixes_silently() -> None:
    @dataclass
    class Mixes(Method):
        name = "faulty"
        title = "Faulty"

        def augment(self, batch, generator):
            return batch.mixed(batch.map(lambda values: values.flip(0)), 0.6, lambda a, b: 0.6 * a + 0.4 * b)


def no_op() -> None:
    @dataclass
    class Nothing(Method):
        name = "faulty"
        title = "Faulty"
        weight: float = 0.0

        def losses(self, networks, outputs, batch, targets):
            return {"faulty": self.weight * penalty(outputs)}


def no_op_with_heads() -> None:
    """Heads that are run and not trained gather statistics, and change nothing."""

    @dataclass
    class Nothing(Method):
        name = "faulty"
        title = "Faulty"
        weight: float = 0.0

        @property
        def requires(self):
            return Requires(heads=True)

        def losses(self, networks, outputs, batch, targets):
            return {"faulty": self.weight * penalty(outputs)}


def raises() -> None:
    @dataclass
    class Broken(Method):
        name = "faulty"
        title = "Faulty"

        def losses(self, networks, outputs, batch, targets):
            return {"faulty": outputs[0].head_logits[3].mean()}


METHOD_FAULTS: list[tuple[Callable[[], None], str, str]] = [
    (no_gradient, "every term of the loss moves a parameter", "'faulty' has no gradient"),
    (not_a_scalar, "every term of the loss moves a parameter", r"tensor of shape \[10\]"),
    (not_finite, "every term of the loss moves a parameter", "keep logarithms"),
    (nameless_term, "terms carry its name, the same in every step", "'penalty' does not say whose it is"),
    (forgetful, "1 + 1 epochs give the bits of 2", "put everything that changes in training into state_dict"),
    (forgets_its_teacher, "1 + 1 epochs give the bits of 2", "put everything that changes in training into state_dict"),
    (of_the_class, "a trial does not depend on those before it", "not in the class or the module"),
    (not_a_number_once, "a trial does not depend on those before it", r"\(methods/.*mean\): keep state in `self`"),
    (not_a_number_once, "1 + 1 epochs give the bits of 2", r"\(methods/.*mean\): put everything that changes"),
    (unloadable_state, "its state survives a checkpoint", "what a checkpoint cannot give back"),
    (state_not_restored, "its state survives a checkpoint", "state/weight is another after load_state_dict"),
    (in_place, "it leaves what other methods see alone", "in place"),
    (by_company, "it leaves what other methods see alone", "others beside other methods than alone"),
    (global_numbers, "augment draws from its generator alone", "draw every random number from the generator"),
    (changes_its_batch, "augment draws from its generator alone", "changes its batch in place"),
    (drops_images, "augment draws from its generator alone", "keep the number and the size"),
    (mixes_silently, "augment draws from its generator alone", "set mixes = True"),
    (no_op, "it changes what is learned", "changes nothing"),
    (no_op_with_heads, "it changes what is learned", "changes nothing"),
    (raises, "every term of the loss moves a parameter", rf"{Path(__file__).name}:\d+: raises IndexError"),
]


@pytest.mark.parametrize("fault, promise, message", METHOD_FAULTS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_faulty_method_is_found(fault: Callable[[], None], promise: str, message: str):
    fault()
    wrong = problem(METHODS["faulty"], promise, method.CHECKS)
    assert re.search(message, wrong), wrong


class Small(nn.Sequential):
    """Averages of 4 x 4 squares and a linear classifier."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, num_classes))


def sound_network(num_classes: int) -> nn.Module:
    return Small(num_classes)


def ten_classes(num_classes: int) -> nn.Module:
    return Small(10)


def no_seed(num_classes: int) -> nn.Module:
    built = Small(num_classes)
    nn.init.normal_(built[2].weight, generator=torch.Generator().manual_seed(random.randrange(2**40)))
    return built


def one_seed(num_classes: int) -> nn.Module:
    built = Small(num_classes)
    for parameter in built.parameters():
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    return built


class Frozen(Small):
    def forward(self, inputs):
        return super().forward(inputs).detach().requires_grad_()


class Counting(Small):
    """Its temperature, which every step changes, is no buffer."""

    temperature = 1.0

    def forward(self, inputs):
        self.temperature *= 1.1 if self.training else 1
        return super().forward(inputs) / self.temperature


class OfTheBatch(Small):
    def forward(self, inputs):
        return super().forward(inputs - inputs.mean(0))


NETWORK_FAULTS: list[tuple[Callable[[int], nn.Module], str, str]] = [
    (ten_classes, "it takes any number of classes", "does not use num_classes"),
    (no_seed, "its weights depend on the seed alone", "another in a second network of the same seed"),
    (one_seed, "its weights depend on the seed alone", "equal weights for two seeds"),
    (Frozen, "a gradient reaches its parameters", "no gradient reaches a parameter"),
    (Counting, "1 + 1 epochs give the bits of 2", "parameters or buffers"),
    (OfTheBatch, "an image's logits do not depend on others", "running statistics"),
]


@pytest.mark.parametrize("build, promise, message", NETWORK_FAULTS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_faulty_network_is_found(build: Callable[[int], nn.Module], promise: str, message: str):
    def made(num_classes: int) -> nn.Module:
        return build(num_classes)

    network("faulty")(made)
    assert message in problem(NETWORKS["faulty"], promise, network_checks.CHECKS)


def test_a_sound_network_that_gives_logits_alone_has_no_fault():
    network("sound")(sound_network)
    assert problems(NETWORKS["sound"]) == {}


def brier(probabilities: torch.Tensor, labels: torch.Tensor) -> float:
    right = nn.functional.one_hot(labels, probabilities.shape[1])
    return (probabilities - right).square().sum(1).mean().item()


def in_order(probabilities: torch.Tensor, labels: torch.Tensor) -> float:
    right = (probabilities.argmax(1) == labels).double()
    return (right * torch.arange(len(right), 0, -1)).sum().item()


def infinite(probabilities: torch.Tensor, labels: torch.Tensor) -> float:
    return -probabilities.gather(1, labels[:, None]).log().mean().item()


def per_image(probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return probabilities.amax(1)


def at_random(probabilities: torch.Tensor, labels: torch.Tensor) -> float:
    return brier(probabilities, labels) + 1e-3 * random.random()


METRIC_FAULTS: list[tuple[Callable[..., Any], str, str]] = [
    (in_order, "it does not depend on the order of images", "images have no order"),
    (infinite, "it is a finite number", "always sure and wrong"),
    (per_image, "it is a finite number", "gives Tensor and not a number"),
    (at_random, "it does not depend on the order of images", "draw no random numbers"),
]


@pytest.mark.parametrize("measure, promise, message", METRIC_FAULTS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_faulty_metric_is_found(measure: Callable[..., Any], promise: str, message: str):
    metric("faulty", direction="lower")(measure)
    assert message in problem(METRICS["faulty"], promise, metric_checks.CHECKS)


def test_a_sound_metric_has_no_fault_and_a_wrong_direction_is_one():
    metric("brier", direction="lower")(brier)
    assert problems(METRICS["brier"]) == {}
    metric("brier", direction="higher")(brier)
    assert "declare direction='lower'" in problems(METRICS["brier"])["its direction prefers a perfect classifier"]


@pytest.mark.parametrize("name", ["digits", "synthetic"])
def test_our_own_data_sets_keep_every_promise(name: str):
    assert problems(DATASETS[name]) == {}


def blobs(split: int, count: int) -> tuple[Any, Any]:
    """Random images [N, 16, 16, 3] and labels of three classes, the same in every call."""
    random_numbers = np.random.default_rng(split)
    return random_numbers.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8), np.arange(count) % 3


def sound_images(root: Path) -> Any:
    return blobs(0, 30), blobs(1, 12)


def float_pixels(root: Path) -> Any:
    pixels, labels = blobs(0, 30)
    return (pixels / 255, labels), blobs(1, 12)


def float_labels(root: Path) -> Any:
    pixels, labels = blobs(0, 30)
    return (pixels, labels.astype(np.float32)), blobs(1, 12)


def channels_first(root: Path) -> Any:
    pixels, labels = blobs(0, 30)
    return (pixels.transpose(0, 3, 1, 2), labels), blobs(1, 12)


def not_square(root: Path) -> Any:
    pixels, labels = blobs(0, 30)
    return (pixels[:, 2:], labels), blobs(1, 12)


def from_one(root: Path) -> Any:
    pixels, labels = blobs(0, 30)
    return (pixels, labels + 1), blobs(1, 12)


def one_label_too_few(root: Path) -> Any:
    pixels, labels = blobs(0, 30)
    return (pixels, labels[1:]), blobs(1, 12)


def random_pixels(root: Path) -> Any:
    return (np.random.default_rng().integers(0, 256, (30, 16, 16, 3), dtype=np.uint8), blobs(0, 30)[1]), blobs(1, 12)


def random_labels(root: Path) -> Any:
    return (blobs(0, 30)[0], torch.arange(30)[torch.randperm(30)] % 3), blobs(1, 12)


def other_seed(root: Path) -> Any:
    """Gives other images in a trial of another seed."""
    return blobs(torch.initial_seed() % 1000, 30), blobs(1, 12)


def broken_reading(root: Path) -> Any:
    return (root / "no_such_file.bin").read_bytes()


DECLARES, SAME = "it gives what it declares", "it gives the same images every time"
DATASET_FAULTS: list[tuple[Callable[[Path], Any], dict[str, int], str, str]] = [
    (sound_images, {"classes": 4}, DECLARES, "gives no training image of class 3 of 4; number classes from 0"),
    (sound_images, {"classes": 2}, DECLARES, "has the training label 2, .* mend the labels or the number of classes"),
    (sound_images, {"largest_class": 12}, DECLARES, "gives 10 training images of its largest class; .* mend one"),
    (sound_images, {"train_images": 31}, DECLARES, "gives 30 training images; declared are 31; mend one"),
    (sound_images, {"test_images": 11}, DECLARES, "gives 12 test images; declared are 11; mend one"),
    (sound_images, {"size": 32}, DECLARES, "images of 16 pixels, .* declared as 32; mend one"),
    (float_pixels, {}, DECLARES, "training pixels of type float64, not uint8 .*; multiply by 255 and round first"),
    (float_labels, {}, DECLARES, "training labels of type float32, not whole numbers .*; convert them"),
    (channels_first, {}, DECLARES, r"pixels of shape \[30, 3, 16, 16\], .*; move the channels last"),
    (not_square, {}, DECLARES, r"pixels of shape \[30, 14, 16, 3\], .*; cut or scale them"),
    (from_one, {}, DECLARES, "has the training label 3, and labels go from 0 to 2.* mend the labels"),
    (one_label_too_few, {}, DECLARES, r"labels of shape \[29\] .*; one label per image"),
    (broken_reading, {}, DECLARES, "raised FileNotFoundError: .*no_such_file.bin.*; mend this function"),
    (random_pixels, {}, SAME, "when it is read again, .* a generator with a fixed seed"),
    (random_labels, {}, SAME, "when it is read again, .* a generator with a fixed seed"),
    (other_seed, {}, SAME, "when it is read again, .* a generator with a fixed seed"),
]


@pytest.mark.parametrize(
    "read, facts, promise, message",
    DATASET_FAULTS,
    ids=[f"{one[0].__name__}-{'-'.join(one[1])}" for one in DATASET_FAULTS],
)
def test_a_faulty_data_set_is_found(read: Callable[[Path], Any], facts: dict[str, int], promise: str, message: str):
    dataset("faulty", **{"classes": 3, "size": 16, **facts})(read)
    wrong = problems(DATASETS["faulty"])
    assert re.fullmatch(rf"{re.escape(DATASETS['faulty'].source)} .*{message}.*", wrong.pop(promise, "")), wrong
    # No other promise is broken, except by a data set that cannot be read at all.
    assert not wrong or read is broken_reading


def test_a_sound_data_set_has_no_fault():
    dataset("sound", classes=3, size=16, train_images=30, test_images=12, largest_class=10)(sound_images)
    assert problems(DATASETS["sound"]) == {}


@pytest.mark.parametrize(
    ("one", "other", "where"),
    [
        (torch.ones(2), torch.ones(2), None),
        (torch.tensor(math.nan), torch.tensor(math.nan), None),
        (torch.tensor(math.nan), torch.tensor(0.0), "state"),
        (torch.tensor(0.0), torch.tensor(-0.0), "state"),
        (torch.ones(2), torch.tensor([1.0, 1.0000001]), "state"),
        (torch.ones(2), torch.ones(2, dtype=torch.float64), "state"),
        (torch.ones(2, 1), torch.ones(1, 2), "state"),
        (torch.ones(2), [1.0, 1.0], "state"),
        ([1.0, 1.0], torch.ones(2), "state"),
        (torch.ones(2, 3).T, torch.ones(3, 2), None),
        ({"a": [1, (2.0, "x")]}, {"a": [1, (2.0, "x")]}, None),
        ({"a": [1, (2.0, "x")]}, {"a": [1, (2.5, "x")]}, "state/a/1/0"),
        ({"a": math.nan}, {"a": math.nan}, None),
        ({"a": math.nan}, {"a": 0.0}, "state/a"),
        ({"a": 1}, {"b": 1}, "state"),
        ([1, 2], [1], "state"),
        (None, 0, "state"),
    ],
)
def test_the_place_of_a_difference_is_named(one: Any, other: Any, where: str | None):
    assert difference({"state": one}, {"state": other}) == where
    assert difference(one, other, "state") == where


RECIPES = """
from dataclasses import dataclass
from trainer import Optimizer, Schedule

@dataclass(frozen=True)
class Idle(Optimizer):
    name = "idle"

    def build(self, config, parameters):
        import torch
        return torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=0.1)

SEEN = []

@dataclass(frozen=True)
class Counting(Schedule):
    name = "counting"

    def factor(self, config, epochs):
        SEEN.append(epochs)
        return 1 / len(SEEN)

@dataclass(frozen=True)
class Falling(Schedule):
    name = "falling"

    def factor(self, config, epochs):
        return 1 - 2 * epochs
"""


def test_recipes_are_checked(tmp_path):
    file = tmp_path / "recipes.py"
    file.write_text(RECIPES)
    load_plugins([str(file)], tmp_path)
    try:
        problems = {
            name: [checked.problem for checked in check_part(registry[name], tmp_path) if checked.problem]
            for registry, names in (
                (OPTIMIZERS, ("sgd", "adamw", "idle")),
                (SCHEDULES, ("cosine", "counting", "falling")),
            )
            for name in names
        }
    finally:
        load_plugins([], tmp_path)
    assert problems["sgd"] == problems["adamw"] == problems["cosine"] == []
    assert "changes no parameter" in problems["idle"][0]
    assert "compute a schedule from the epochs alone" in problems["counting"][0]
    assert "return a factor of 0 or more" in problems["falling"][0]
