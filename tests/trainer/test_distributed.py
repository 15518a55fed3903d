"""Several processes train what one would: the same networks, tables, losses and metrics, up to rounding."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch._dynamo.utils
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, batch_norm
from torchvision.models.resnet import BasicBlock

from tests.trainer.fake_datasets import fake_folder
from tests.trainer.training import (
    COMBINATIONS,
    Ended,
    assert_same,
    content,
    forking,
    numbers,
    run_program,
    small,
    title,
)
from trainer.config import TrainConfig
from trainer.data import epoch_loader, load_splits
from trainer.distributed import RankLost, all_gather, broadcast_state, process_group, rank, shard
from trainer.method import Batch, Output
from trainer.objective import Objective
from trainer.parts import DATASETS
from trainer.results import EpochResult
from trainer.step import Step, training_step
from trainer.train import Diverged, train

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]
# Heads whose classifiers, or all of whose parameters, no loss reads.
UNREAD_HEADS: list[dict[str, dict[str, Any]]] = [{"byot": {"blocks": [2]}}, {"dmfl": {"variant": "released"}}]


def in_processes(count: int, folder: Path, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Run a function in each of `count` processes that train together; return their results."""
    folder.mkdir(exist_ok=True)
    processes = [
        forking().Process(target=_member, args=(number, count, folder, function, arguments)) for number in range(count)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * count
    return [torch.load(folder / f"{number}.pt", weights_only=True) for number in range(count)]


def _member(number: int, count: int, folder: Path, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    # As under torchrun and Ray: else each worker that reads files asks a server of its own to import torch.
    multiprocessing.set_start_method("fork", force=True)
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(str(folder / "store"), count)
    with process_group(CPU, number=number, count=count, store=store):
        result = function(*arguments)
        torch.save(result, folder / f"{number}.pt")
    assert not [name for name in thread_names() if "gloo" in name], "threads that may abort the process at its end"


def thread_names() -> list[str]:
    return [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]


class Plain(nn.Module):
    """Linear stages on averaged colours, with a head on each but the last: no image changes another's outputs."""

    def __init__(self, num_classes: int, heads: int, width: int = 6) -> None:
        super().__init__()
        self.stages = nn.ModuleList(nn.Linear(12 if i == 0 else width, width) for i in range(4))
        self.heads = nn.ModuleList(nn.Linear(width, width) for _ in range(heads))
        self.classifiers = nn.ModuleList(nn.Linear(width, num_classes) for _ in range(heads))
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, inputs: Tensor, heads: bool = True) -> Output:
        features, exits = adaptive_avg_pool2d(inputs, 2).flatten(1), []
        for depth, stage in enumerate(self.stages):
            features = stage(features).relu()
            if heads and depth < len(self.heads):
                exits.append(self.heads[depth](features))
        logits = tuple(classifier(each) for classifier, each in zip(self.classifiers, exits, strict=False))
        return Output(self.classifier(features), features, logits, tuple(exits))


def plain_network(name: str, *, num_classes: int, heads: str | None, **_: Any) -> Plain:
    return Plain(num_classes, 3 if heads else 0)


def uneven(**fields: Any) -> TrainConfig:
    """Batches of 9, 9, 9 and 3 images: two processes get 5 and 4, and both work on the last one."""
    return small(**{"batch_size": 9, "precision": "float64", "learning_rate": 0.05} | fields)


def plainly_trained(config: TrainConfig, data_root: Path, checkpoint: Path | None = None, **options: Any) -> Any:
    """As `learned`, with a network without batch norm."""
    with patch("trainer.state.build_network", plain_network):
        return learned(config, data_root, checkpoint, **options)


def learned(config: TrainConfig, data_root: Path, checkpoint: Path | None = None, **options: Any) -> Any:
    """Train, and return everything that was learned and measured in this process."""
    seen: list[tuple[nn.ModuleList, Objective]] = []
    reported: list[EpochResult] = []

    def watched(networks: nn.ModuleList, objective: Objective) -> Any:
        seen.append((networks, objective))
        return training_step(networks, objective)

    with patch("trainer.step.training_step", watched):
        train(config, reported.append, data_root=data_root, checkpoint=checkpoint, **options)
    networks, objective = seen[-1]
    return {
        "networks": dict(networks.state_dict()),
        "methods": {method.name: method.state_dict() for method in objective.methods},
        "results": [numbers(result) for result in reported],
    }


def all_trained(configs: list[TrainConfig], data_root: Path) -> list[Any]:
    return [plainly_trained(config, data_root) for config in configs]


def assert_close(one: Any, other: Any, path: str = "") -> None:
    """As `assert_same`, up to rounding in float64."""
    if isinstance(one, Tensor):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11, msg=lambda text: f"{path}: {text}")
    elif isinstance(one, dict):
        assert list(one) == list(other), path
        for name in one:
            assert_close(one[name], other[name], f"{path}/{name}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), path
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_close(a, b, f"{path}/{i}")
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-9, abs=1e-9), path
    else:
        assert one == other, path


def test_every_method_gives_what_one_process_gives(data_root: Path, tmp_path: Path) -> None:
    configs = [uneven(methods=methods) for methods in (*COMBINATIONS, *UNREAD_HEADS)]
    # Heads that nothing trains at all.
    configs.append(uneven(heads="bottleneck"))
    recipe = {"optimizer": "adamw", "schedule": "cosine", "warmup": 1.2}
    configs.append(uneven(methods={"pskd": {}}, learning_rate=0.001, **recipe))
    configs.append(uneven(methods={"pskd": {}, "byot": {}}, validation=6, ood_dataset="npz:other.npz"))
    one = all_trained(configs, data_root)
    first, second = in_processes(2, tmp_path / "two", all_trained, configs, data_root)
    for config, alone, a, b in zip(configs, one, first, second, strict=True):
        name = title(config.methods)
        assert_close(a, alone, name)
        assert_same(a, b, name)


def measured(config: TrainConfig, data_root: Path) -> Any:
    return plainly_trained(config, data_root, own_metrics=["e_aurc"])


def test_the_first_process_alone_measures_own_metrics_on_all_images(data_root: Path, tmp_path: Path) -> None:
    config = uneven(methods={"byot": {}}, validation=6, epochs=1)
    alone = measured(config, data_root)
    first, second = in_processes(2, tmp_path / "two", measured, config, data_root)
    assert_close(first, alone)
    own = [
        [evaluation["own_metrics"] for evaluation in trained["results"][0]["evaluations"]]
        for trained in (alone, second)
    ]
    assert all(values.keys() == {"e_aurc"} for values in own[0]) and not any(own[1])


def of_halves(norm: nn.BatchNorm2d, inputs: Tensor) -> Tensor:
    """Batch norm in training, as two processes do it: each half of a batch by its own mean and variance."""
    if not norm.training:
        return ORIGINAL_BATCH_NORM(norm, inputs)
    before, after, outputs = [norm.running_mean.clone(), norm.running_var.clone()], [], []
    for half in inputs.tensor_split(2) if len(inputs) >= 4 else [inputs]:
        statistics = [values.clone() for values in before]
        outputs.append(batch_norm(half, *statistics, norm.weight, norm.bias, True, norm.momentum, norm.eps))
        after.append(torch.stack(statistics))
    norm.running_mean[:], norm.running_var[:] = torch.stack(after).mean(0)
    norm.num_batches_tracked += 1
    return torch.cat(outputs)


ORIGINAL_BATCH_NORM = nn.BatchNorm2d.forward


def test_batch_norm_of_the_parts_is_all_that_differs(data_root: Path, tmp_path: Path) -> None:
    config = uneven(methods={"pskd": {}, "cskd": {}, "dml": {}}, stages=2, learning_rate=0.01)
    with patch("torch.nn.BatchNorm2d.forward", of_halves):
        halves = learned(config, data_root)
    for each in in_processes(2, tmp_path / "two", learned, config, data_root):
        assert_close(each, halves)
    whole = learned(config, data_root)
    assert whole["results"][0]["losses"] != pytest.approx(halves["results"][0]["losses"], rel=1e-3)


def test_more_processes_than_images_of_a_batch(data_root: Path, tmp_path: Path) -> None:
    # Three batches of 13, 13 and 4 images; the last is worked on as a whole by each of three processes.
    configs = [uneven(methods={"pskd": {}, "byot": {}, "cskd": {}}, batch_size=13)]
    one = all_trained(configs, data_root)
    for each in in_processes(3, tmp_path / "three", all_trained, configs, data_root):
        assert_close(each, one)


@given(st.integers(1, 400), st.integers(1, 9))
def test_parts_make_up_the_batch(count: int, processes: int) -> None:
    with patch("trainer.distributed.process_count", lambda: processes):
        parts = [shard(count, number) for number in range(processes)]
        images = [list(range(count)[part.images]) for part in parts]
    if count < 2 * processes:
        assert images == [list(range(count))] * processes
    else:
        assert list(chain(*images)) == list(range(count))
        assert max(map(len, images)) - min(map(len, images)) <= 1
        assert min(map(len, images)) >= 2
    # The average over the processes of the weighted means is the mean.
    values = torch.arange(count, dtype=torch.float64).square()
    mean = sum(part.weight * values[part.images].mean() for part in parts) / processes
    torch.testing.assert_close(mean, values.mean())


def batches(config: TrainConfig, data_root: Path, imagenet: Any) -> list[list[Any]]:
    with patch.dict(DATASETS._parts, imagenet=replace(DATASETS["imagenet"], facts=imagenet)):
        loader = epoch_loader(load_splits(config, data_root), config, CPU, class_pairs=True)
        return [[*batch[:4], batch.images] for epoch in (0, 1) for batch in loader.epoch(epoch)]


def parts_and_wholes(config: TrainConfig, data_root: Path, imagenet: Any) -> tuple[list[int], list[list[Any]]]:
    own = batches(config, data_root, imagenet)
    wholes = [[*(all_gather(values, images) for values in values), images] for *values, images in own]
    return [len(batch[1]) for batch in own], wholes


@pytest.fixture
def imagenet(tmp_path: Path) -> Iterator[Any]:
    """The specification of a fake ImageNet of nine images below `tmp_path`."""
    fake_folder(tmp_path / "imagenet", split="val", size=(24, 20))
    yield replace(DATASETS["imagenet"].facts, classes=3, train_images=9, test_images=3, size=14)


@pytest.mark.parametrize("streamed", [False, True], ids=["in memory", "streamed"])
def test_the_parts_of_a_batch_are_the_batch(streamed: bool, data_root: Path, tmp_path: Path, imagenet: Any) -> None:
    config = small(dataset="imagenet", batch_size=5) if streamed else uneven()
    root = tmp_path if streamed else data_root
    alone = batches(config, root, imagenet)
    for number, (sizes, wholes) in enumerate(
        in_processes(2, tmp_path / "parts", parts_and_wholes, config, root, imagenet)
    ):
        assert sizes[:2] == ([[3, 2], [2, 2]] if streamed else [[5, 5], [4, 4]])[number]
        for whole, batch in zip(wholes, alone, strict=True):
            assert_same([values.contiguous() for values in whole[:4]], [values.contiguous() for values in batch[:4]])
            assert whole[4] == batch[4]


def streamed_training(data_root: Path, imagenet: Any, **options: Any) -> Any:
    config = uneven(dataset="imagenet", methods={"pskd": {}, "cskd": {}}, batch_size=5)
    with patch.dict(DATASETS._parts, imagenet=replace(DATASETS["imagenet"], facts=imagenet)):
        return plainly_trained(config, data_root, **options)


def test_images_that_stay_in_files(tmp_path: Path, imagenet: Any) -> None:
    alone = streamed_training(tmp_path, imagenet)
    for each in in_processes(2, tmp_path / "two", streamed_training, tmp_path, imagenet):
        assert_close(each, alone)


def compiled(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Return the result of a training function with compiled networks; the backend leaves out what takes the time."""
    frames = torch._dynamo.utils.counters["frames"]
    before = frames["ok"]
    with patch.object(Step.compile, "__defaults__", ("aot_eager",)):
        result = function(*arguments, engine="compiled", **options)
    assert frames["ok"] > before, "nothing was compiled"
    return result


def learned_by_few_blocks(config: TrainConfig, data_root: Path, **options: Any) -> Any:
    """As `learned`: compiling takes all the time, and one block in each of two stages has all kinds of modules."""
    with patch.dict("trainer.networks.resnet._BLOCKS", resnet18=(BasicBlock, (1, 1), 1, 64)):
        return learned(config, data_root, **options)


def both_compiled(config: TrainConfig, data_root: Path, files: Path, imagenet: Any) -> list[Any]:
    # One after the other, because the first compilation of a process imports for seconds.
    return [
        compiled(learned_by_few_blocks, config, data_root),
        compiled(streamed_training, files, imagenet),
    ]


@pytest.mark.parametrize(
    "methods", [{"byot": {}, "pskd": {}}, pytest.param({"dcm": {}}, marks=pytest.mark.slow)], ids=title
)
def test_compiled_networks_train_together_on_images_in_memory_and_in_files(
    methods: dict[str, Any], data_root: Path, tmp_path: Path, imagenet: Any
) -> None:
    config = uneven(methods=methods, stages=2, learning_rate=0.01)
    first, _ = in_processes(2, tmp_path / "launched", learned_by_few_blocks, config, data_root)
    streamed = streamed_training(tmp_path, imagenet)
    for each in in_processes(2, tmp_path / "compiled", both_compiled, config, data_root, tmp_path, imagenet):
        assert_close(each, [first, streamed])


@pytest.mark.slow
def test_a_compiled_network_trains_alone_on_images_that_stay_in_files(tmp_path: Path, imagenet: Any) -> None:
    alone = streamed_training(tmp_path, imagenet)
    (of_compiled,) = in_processes(1, tmp_path / "one", compiled, streamed_training, tmp_path, imagenet)
    assert_close(of_compiled, alone)


def trained_with_batch_norm(config: TrainConfig, checkpoint: Path, data_root: Path, **options: Any) -> None:
    train(config, lambda result: None, checkpoint=checkpoint, data_root=data_root, **options)


def one_epoch(config: TrainConfig, checkpoint: Path, data_root: Path) -> None:
    trained_with_batch_norm(config, checkpoint, data_root, stop_after=1)


def test_one_epoch_and_one_more_are_two(data_root: Path, tmp_path: Path) -> None:
    config = small(methods={"pskd": {}, "byot": {}, "dml": {}}, stages=2)
    in_processes(2, tmp_path / "a", one_epoch, config, tmp_path / "run.pt", data_root)
    assert len(content(tmp_path / "run.pt")["results"]) == 1
    in_processes(2, tmp_path / "b", trained_with_batch_norm, config, tmp_path / "run.pt", data_root)
    in_processes(2, tmp_path / "c", trained_with_batch_norm, config, tmp_path / "straight.pt", data_root)
    assert_same(content(tmp_path / "run.pt"), content(tmp_path / "straight.pt"))
    assert sorted(path.name for path in tmp_path.glob("*.pt*")) == ["run.pt", "straight.pt"]


def plain_from_checkpoint(config: TrainConfig, checkpoint: Path, data_root: Path, stop_after: int | None) -> Any:
    return plainly_trained(config, data_root, checkpoint, stop_after=stop_after)


def test_a_training_goes_on_with_another_number_of_processes(data_root: Path, tmp_path: Path) -> None:
    # A teacher of its own, which is in the student's checkpoint.
    config = uneven(methods={"pskd": {}, "tfkd": {}}, epochs=3)
    straight = plainly_trained(config, data_root)
    checkpoint = tmp_path / "run.pt"
    plain_from_checkpoint(config, checkpoint, data_root, 1)
    in_processes(2, tmp_path / "two", plain_from_checkpoint, config, checkpoint, data_root, 2)
    assert len(content(checkpoint)["results"]) == 2
    assert_close(plain_from_checkpoint(config, checkpoint, data_root, None), straight)


class SpoiledAtTheEnd(Plain):
    """Gives NaN to the second process in the fourth step alone."""

    calls = 0

    def forward(self, inputs: Tensor, heads: bool = True) -> Output:
        output = super().forward(inputs, heads)
        self.calls += self.training
        if self.calls == 4 and rank() == 1:
            output = output._replace(logits=output.logits * float("nan"))
        return output


def spoiled(config: TrainConfig, data_root: Path) -> str:
    def network(name: str, *, num_classes: int, **_: Any) -> Plain:
        return SpoiledAtTheEnd(num_classes, 0)

    with patch("trainer.state.build_network", network), pytest.raises(Diverged) as raised:
        train(config, lambda result: None, data_root=data_root)
    return str(raised.value)


def test_all_diverge_where_one_does(data_root: Path, tmp_path: Path) -> None:
    first, second = in_processes(2, tmp_path / "two", spoiled, uneven(), data_root)
    assert first == second == "the loss term 'cross_entropy' is not finite at step 4 of 4 in epoch 1 of 2"


def left_alone(config: TrainConfig, folder: Path, data_root: Path) -> str:
    def report(result: EpochResult) -> None:
        if rank() == 1:
            # `in_processes` expects a result of this process, which then is gone.
            torch.save("", folder / "1.pt")
            os._exit(0)

    with pytest.raises(RankLost) as raised:
        train(config, report, data_root=data_root)
    torch.save(str(raised.value), folder / "0.pt")
    os._exit(0)


def test_a_lost_process_is_no_riddle(data_root: Path, tmp_path: Path) -> None:
    message, _ = in_processes(2, tmp_path / "two", left_alone, uneven(), tmp_path / "two", data_root)
    assert message.startswith("another process of this training has ended")


def handed_over(sent: Any) -> Any:
    with patch("trainer.distributed.CHUNK_BYTES", 1000):
        assert broadcast_state(None, CPU) is None
        return broadcast_state(sent if rank() == 0 else None, CPU)


def test_the_first_process_hands_a_checkpoint_to_all(tmp_path: Path) -> None:
    sent = {"state": {0: {"momentum": torch.arange(5000.0)}}, "results": [{"a": None, "b": [1, 2.5]}], "none": {}}
    for received in in_processes(2, tmp_path / "two", handed_over, sent):
        assert_same(received, sent)


def test_a_single_process_is_left_alone() -> None:
    values = torch.ones(3)
    assert all_gather(values, 3) is values
    assert broadcast_state({"a": values}, CPU) == {"a": values}
    objective = Objective([], 3)
    with patch.object(Objective, "__call__", lambda self, networks, batch: (networks, batch)):
        batch = Batch(values, values.long(), values.long())
        assert training_step(nn.ModuleList(), objective)(batch)[1] is batch
    assert batch.images == 3


def torchrun(*arguments: str, folder: Path) -> Ended:
    command = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "trainer"]
    return run_program(*command, *arguments, folder=folder)


def test_torchrun_trains_in_two_processes_and_prints_once(data_root: Path, tmp_path: Path) -> None:
    options = ("--data-root", str(data_root), "--dataset", "npz:tiny.npz", "--width", "4", "--batch-size", "16")
    done = torchrun(*options, "--epochs", "2", "--methods", "pskd", "--json", "--checkpoint", "run.pt", folder=tmp_path)
    assert done.code == 0, done.err
    assert [json.loads(line)["epoch"] for line in done.out.splitlines()] == [1, 2]
    assert [result["images"] for result in content(tmp_path / "run.pt")["results"]] == [30, 30]


def test_torchrun_says_what_is_wrong(tmp_path: Path) -> None:
    done = torchrun("--dataset", "digits", "--width", "many", folder=tmp_path)
    assert done.code != 0
    assert done.out == ""
    assert re.search(r"^error in process [01]: --width: ", done.err, re.MULTILINE)
    assert 'Traceback (most recent call last):\n  File "' + str(ROOT) not in done.err
