"""The traffic between the host and a GPU in an epoch, on a GPU of FakeTensorMode."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.trainer.toy import GPU, fake_gpu, on_fake_gpu
from trainer.config import TrainConfig
from trainer.data import EvaluationSet, ImageFiles, epoch_loader, evaluation_sets, load_splits, streaming
from trainer.data.streaming import StreamingLoader
from trainer.device import without_search
from trainer.evaluation import evaluate
from trainer.state import build_networks

CPU = torch.device("cpu")


def config(**fields: object) -> TrainConfig:
    return TrainConfig(**{"dataset": "synthetic", "width": 4, "stages": 2, "batch_size": 128, **fields})


def test_traffic_is_counted() -> None:
    with fake_gpu() as traffic:
        for mode in (torch.no_grad(), torch.inference_mode()):
            with mode:
                values = torch.zeros(3).to(GPU)
                assert values.to(GPU) is values
                torch.zeros(3).to(GPU, non_blocking=True)
                values.copy_(torch.zeros(3))
                values.cpu()
                values.tolist()
    assert (traffic.uploads, traffic.blocking, traffic.waits) == (6, 4, 4)


@pytest.mark.parametrize("methods", [{}, {"byot": {}, "pskd": {}}])
@pytest.mark.parametrize("precision", ["bfloat16", "float32", "float64"])
def test_an_evaluation_uploads_nothing_and_waits_once(methods: dict[str, dict], precision: str) -> None:
    run = config(methods=methods, precision=precision, validation=500, ood_dataset="digits")
    splits = load_splits(run, Path("none"))
    networks = build_networks(run, 100, CPU)
    with fake_gpu() as traffic:
        networks = on_fake_gpu(networks)
        sets = evaluation_sets(splits, run, GPU)
        assert traffic.uploads > 0
        traffic.uploads = 0
        evaluations = evaluate(run, networks, sets, GPU)
    assert (traffic.uploads, traffic.waits) == (0, 1)
    assert len(evaluations) == 2 * (3 if methods else 1)
    assert [e.ood_auroc is None for e in evaluations] == [e.split != "test" for e in evaluations]


def test_weights_are_cast_once_for_all_batches() -> None:
    run = config()
    splits = load_splits(run, Path("none"))
    networks = build_networks(run, 100, CPU)
    casts = []

    class Casts(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            # In inference mode `to` stays whole.
            cast = function.overloadpacket in (torch.ops.aten.to, torch.ops.aten._to_copy)
            if cast and args[0].ndim == 4 and args[0].shape[2] == 3:
                casts.append(args[0].shape)
            return function(*args, **(kwargs or {}))

    convolutions = sum(p.ndim == 4 and p.shape[2] == 3 for p in networks.parameters())
    sets = evaluation_sets(splits, run, CPU)
    with Casts():
        evaluate(run, networks, sets, CPU)
    assert sets.test.count > 2 * sets.test.batch_size
    assert len(casts) == convolutions


@pytest.mark.parametrize(("size", "expected"), [(32, 2000), (64, 500)])
def test_small_images_are_evaluated_in_large_batches_on_a_gpu(size: int, expected: int) -> None:
    splits = load_splits(config(), Path("none"))
    pixels = torch.zeros(3, size, size, 3, dtype=torch.uint8)
    images = splits.test.take(torch.arange(3))
    images = type(images)(pixels, images.labels, 100)
    assert EvaluationSet(images, config(), CPU).batch_size == 500
    with fake_gpu():
        assert EvaluationSet(images, config(), GPU).batch_size == expected


@pytest.mark.parametrize("pairs", [False, True])
def test_an_epoch_of_images_in_memory_is_uploaded_once_without_waiting(pairs: bool) -> None:
    splits = load_splits(config(), Path("none"))
    with fake_gpu() as traffic:
        loader = epoch_loader(splits, config(), GPU, class_pairs=pairs)
        traffic.uploads = traffic.blocking = 0
        batches = loader.epoch(0)
        assert (traffic.uploads, traffic.blocking) == (1, 0)
        count = sum(len(batch.labels) for batch in batches)
    assert count == 10_000
    assert (traffic.uploads, traffic.blocking, traffic.waits) == (1, 0, 0)


def test_a_step_of_images_from_files_uploads_its_pixels_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    run = config(batch_size=4)
    files = ImageFiles(["x.png"] * 10, torch.arange(10) % 5, 5, 32)
    with fake_gpu() as traffic:
        # The workers' part, which has no device: pixels of the size asked for.
        monkeypatch.setattr(streaming, "_decoded", lambda loader: (torch.zeros(len(k[0]), 32, 32, 3) for k in loader))
        monkeypatch.setattr(streaming, "_loader", lambda decoder, keys, *args, **kwargs: keys)
        loader = StreamingLoader(files, run, GPU, class_pairs=False)
        traffic.uploads = traffic.blocking = 0
        batches = list(loader.epoch(0))
        assert [len(batch.labels) for batch in batches] == [4, 4, 2]
        assert {batch.labels.device for batch in batches} == {batch.indices.device for batch in batches} == {GPU}
        # The order, and the pixels of three steps.
        assert (traffic.uploads, traffic.blocking, traffic.waits) == (4, 0, 0)


@pytest.mark.parametrize("before", [False, True])
def test_evaluating_searches_for_no_plans(before: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = torch.backends.cudnn
    monkeypatch.setattr(flags, "benchmark", before)
    flags_before = flags.enabled, flags.deterministic, flags.allow_tf32
    with without_search():
        assert not flags.benchmark
        assert (flags.enabled, flags.deterministic, flags.allow_tf32) == flags_before
    assert flags.benchmark == before
    run, seen = config(), []
    networks = build_networks(run, 100, CPU)
    networks[0].register_forward_hook(lambda *_: seen.append(flags.benchmark))
    evaluate(run, networks, evaluation_sets(load_splits(run, Path("none")), run, CPU), CPU)
    assert seen and not any(seen)


@pytest.mark.parametrize(
    ("environment", "threads", "processors", "workers"),
    [
        ({}, 3, 64, 3),
        ({}, 40, 64, 16),
        ({"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "4"}, 1, 32, 8),
        ({"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "4"}, 10, 32, 10),
        ({"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "4"}, 1, 3, 1),
    ],
)
def test_decoding_takes_the_share_of_the_processors(
    environment: dict[str, str], threads: int, processors: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TORCHELASTIC_RUN_ID", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(processors)))
    assert streaming.decoding_workers() == workers
