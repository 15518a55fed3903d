"""Several trials on one GPU. The GPU is a number that Ray is told, and CUDA and NVML are fakes: this runs anywhere."""

from __future__ import annotations

import json
import re
import shutil
import signal
from pathlib import Path

import pytest

from tests.orchestrator.fake_gpu import GPU
from tests.orchestrator.runs import Workplace, ended, wait_for


@pytest.fixture
def workplace(workplace: Workplace) -> Workplace:
    """A program on a machine of four processors and one GPU for Ray: a trial does on cuda:0 all but the training."""
    workplace.edit(
        "orchestrator/scheduler/cluster.py", '"include_dashboard": options.dashboard', '"include_dashboard": False'
    )
    workplace.edit("orchestrator/scheduler/cluster.py", '"num_cpus": processors()', '"num_cpus": 4, "num_gpus": 1')
    workplace.edit("orchestrator/scheduler/preflight.py", "gpus = gpus_here()", "gpus = 1")
    shutil.copy(Path(__file__).parents[1] / "fake_gpu.py", workplace.code / "orchestrator")
    first = "    failure = None\n    try:\n        if rank is None:"
    fake = "    from orchestrator.fake_gpu import train_on_the_cpu_instead\n\n    train_on_the_cpu_instead()\n"
    workplace.edit("orchestrator/worker/attempt.py", first, fake + first)
    return workplace


def running(workplace: Workplace) -> list[str]:
    return [name for name, state in workplace.states().items() if state == "running"]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_half_of_a_gpu_runs_two_at_once(workplace: Workplace):
    grid = workplace.grid("halves", {"seed": [0, 1, 2]}, epochs=10_000, resources={"gpu": 0.5, "cpu": 1})
    process = workplace.start("run", grid, "--no-canary")
    with ended(process):
        assert wait_for(lambda: len(running(workplace)) == 2)
        # Each trains beside the others.
        labels = "SELECT DISTINCT trial_id FROM epochs WHERE timing_quality IN ('packed', 'foreign load')"
        assert wait_for(lambda: len(workplace.ask(labels)) == 2)
        assert len(running(workplace)) == 2
        assert workplace.ask("SELECT DISTINCT device, device_uuid FROM attempts") == [("cuda:0 (NVIDIA H200)", GPU)]
        process.send_signal(signal.SIGINT)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_short_trials_on_a_gpu_have_a_process_each(workplace: Workplace):
    grid = workplace.grid("short", {"seed": [0, 1]}, epochs=1, resources={"gpu": 1, "cpu": 1})
    code, output = workplace.run("run", grid, "--no-canary")
    assert code == 0, output
    assert len(workplace.ask("SELECT DISTINCT pid FROM attempts")) == 2


@pytest.mark.ray
def test_auto_packs_as_the_canaries_suggest(workplace: Workplace):
    # A canary that found a small trial on a large GPU.
    workplace.edit("orchestrator/planning/canary.py", "LEAST_IMAGES = 200_000", "LEAST_IMAGES = 1")
    measured = 'measured.to_dict() | {"reserved_memory_bytes": 2**30, "launch_share": 0.9}'
    workplace.edit("orchestrator/worker/attempt.py", "measured.to_dict()", measured)
    grid = workplace.grid("auto", {"seed": [0, 1]}, epochs=10_000, resources={"gpu": 1, "cpu": 1})
    process = workplace.start("run", grid, "--pack", "auto")
    with ended(process):
        assert wait_for(lambda: process.poll() is not None or len(running(workplace)) == 2)
        process.send_signal(signal.SIGINT)
    output = (workplace.folder / "output.txt").read_text()
    assert "packing: 2 trials share a GPU by 4" in output, output
    code, plan = workplace.run("plan", grid)
    assert code == 0 and "2 to continue" in plan
    assert re.search(r"^resnet18: .* s per epoch \(measured on .*1 canary run\)$", plan, re.MULTILINE), plan
    assert re.search(r"^about .*; .* device-hours, .* of checkpoints$", plan, re.MULTILINE), plan
    (environment,) = workplace.ask("SELECT environment FROM attempts WHERE purpose = 'canary'")[0]
    assert json.loads(environment)["canary"]["launch_share"] == 0.9
