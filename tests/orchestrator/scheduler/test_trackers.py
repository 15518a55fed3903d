"""Experiment trackers: what they are told, and what is said where one is missing or fails."""

from __future__ import annotations

import math
import struct
from dataclasses import replace

import pytest

from orchestrator.scheduler import TrackerError, check_trackers
from orchestrator.scheduler.trackers import MODULES, flat_metrics
from tests.orchestrator.databases.samples import result
from tests.orchestrator.runs import Workplace


def test_an_epoch_as_flat_numbers():
    numbers = flat_metrics(result(3, error=20.0, losses={"cross_entropy": 1.5, "byot/kl": math.nan}))
    assert numbers["learning_rate"] == 0.1
    assert numbers["loss/cross_entropy"] == 1.5
    assert (numbers["test/main/top1_error"], numbers["test/head1/top1_error"]) == (20.0, 20.5)
    assert "loss/byot/kl" not in numbers and "test/main/ood_auroc" not in numbers
    assert all(type(value) is float for value in numbers.values())


def test_the_second_network_has_a_name_of_its_own():
    one = result(0)
    both = replace(one, evaluations=[*one.evaluations, replace(one.evaluations[0], network=1)])
    assert {"test/main/nll", "test/1/main/nll"} <= flat_metrics(both).keys()


@pytest.mark.parametrize("name", MODULES)
def test_a_tracker_that_is_not_installed(name, monkeypatch):
    monkeypatch.setattr("orchestrator.scheduler.trackers.find_spec", lambda module: None)
    with pytest.raises(TrackerError, match=rf"--log-to {name} needs the package {MODULES[name]}, .*\[{name}\]"):
        check_trackers([name])
    monkeypatch.setattr("orchestrator.scheduler.trackers.find_spec", lambda module: object())
    check_trackers([name])


def test_an_unknown_tracker_is_bad_input(workplace: Workplace):
    code, output = workplace.run("run", workplace.grid("one", {"seed": [0]}), "--log-to", "tensorbord")
    assert code == 2
    assert output.strip() == (
        "error: --log-to tensorbord: there is no such tracker (allowed: tensorboard, mlflow, wandb)"
    )


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_tensorboard_gets_every_epoch_and_another_tracker_that_fails_stops_nothing(workplace: Workplace):
    pytest.importorskip("tensorboardX")
    workplace.keep_to_one_processor()
    # A package of that name that cannot be reached, as a tracking server that is down.
    package = workplace.code / "mlflow"
    package.mkdir()
    (package / "__init__.py").write_text("def __getattr__(name):\n    raise ConnectionError('no tracking server')\n")
    grid = workplace.grid("one", {"seed": [0, 1]}, epochs=2)
    code, output = workplace.run("run", grid, "--log-to", "tensorboard", "--log-to", "mlflow", "--no-dashboard")
    assert code == 0, output
    assert output.count("mlflow gets nothing more: ") == 1
    for seed in (0, 1):
        (file,) = (workplace.folder / f"tensorboard/one/resnet18/baseline/seed{seed}").glob("events.out.tfevents.*")
        events = scalars(file.read_bytes())
        query = """SELECT e.epoch + 1, v.top1_error FROM epochs e JOIN evaluations v ON v.epoch_id = e.id
                   JOIN grid_trials n ON n.trial_id = e.trial_id WHERE n.name = ? AND v.classifier = 'main'"""
        wanted = workplace.ask(query, f"resnet18/baseline/seed{seed}")
        assert len(wanted) == 2
        assert events["ray/tune/test/main/top1_error"] == [(step, pytest.approx(value)) for step, value in wanted]
        assert len(events["ray/tune/loss/cross_entropy"]) == 2


def scalars(data: bytes) -> dict[str, list[tuple[int, float]]]:
    """The scalars of a file of TensorBoard events by tag."""
    from tensorboardX.proto.event_pb2 import Event

    by_tag: dict[str, list[tuple[int, float]]] = {}
    while data:
        # Length, its checksum, the event, its checksum.
        (length,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]
        for value in event.summary.value:
            by_tag.setdefault(value.tag, []).append((event.step, value.simple_value))
    return by_tag
