"""Plug-ins of a grid file: their problems have its lines, their parts are recorded, and other code is said."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator import load_grid, open_database, run_grid
from orchestrator.failures import Failure
from orchestrator.grid import Grid, GridError
from orchestrator.grid_records import save_grid
from orchestrator.planning.parts import other_parts
from orchestrator.scheduler import Observer
from orchestrator.worker import Job, run_job
from orchestrator.worker.messages import EpochDone, Message
from tests.trainer.training import assert_same, content
from trainer.parts import METHODS, NETWORKS, network
from trainer.plugins import activate, load_plugins, stage
from trainer.registry import PartError

PARTS = """
from dataclasses import dataclass
from trainer import Method, network

@dataclass
class Penalty(Method):
    name = "penalty"
    title = "A penalty"
    weight: float = 0.1

@network("plain", title="Plain")
def plain(num_classes):
    from torch import nn
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))
"""
GRID = """
name: {name}
plugins: [{plugins}]
fixed: {{dataset: digits, epochs: 1, network: plain}}
grid: {{methods: [baseline, penalty]}}
resources: {{per_network: {{plain: {{cpu: 2}}}}}}
"""


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    yield
    load_plugins([], Path())


def grid_file(folder: Path, name: str = "mine", plugins: str = "my_parts.py", parts: str = PARTS) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / plugins.partition(",")[0]).write_text(parts)
    path = folder / f"{name}.yaml"
    path.write_text(GRID.format(name=name, plugins=plugins))
    return path


def test_a_grid_uses_the_parts_of_a_file_beside_it(tmp_path: Path):
    grid = load_grid(grid_file(tmp_path))
    assert [trial.name for trial in grid.trials] == ["plain/baseline/seed0", "plain/penalty/seed0"]
    assert grid.trials[0].resources.cpu == 2
    assert [plugin.name for plugin in grid.plugins] == ["my_parts.py"]
    # The next grid does not have them.
    other = tmp_path / "other.yaml"
    other.write_text("name: other\ngrid: {methods: [penalty]}\n")
    with pytest.raises(GridError, match="unknown method 'penalty'"):
        load_grid(other)
    activate(grid.plugins)
    assert "penalty" in METHODS


def test_unknown_names_list_what_plugins_brought(tmp_path: Path):
    path = grid_file(tmp_path)
    path.write_text(path.read_text().replace("baseline, penalty", "penality"))
    with pytest.raises(
        GridError, match=r"5: grid\.methods\[0\]\.penality: unknown method 'penality'; did you mean 'penalty'\?"
    ):
        load_grid(path)


@pytest.mark.parametrize(
    ("plugins", "parts", "words"),
    [
        ("my_parts.py, none.py", PARTS, r"3: plugins: .*none\.py: no such file"),
        ("my_parts.py, 3", PARTS, r"3: plugins: 3 is neither a file, such as my_parts\.py, nor a module"),
        ("my_parts.py, no_module_of_this_name", PARTS, r"3: plugins: no module named 'no_module_of_this_name'"),
        ("my_parts.py", "x = (\n", r"3: plugins: .*my_parts\.py:1: is not Python: '\(' was never closed"),
        ("my_parts.py", "\n1 / 0\n", r"3: plugins: .*my_parts\.py:2: running it raises ZeroDivisionError"),
    ],
)
def test_a_plugin_that_fails_is_a_problem_of_its_line(plugins: str, parts: str, words: str, tmp_path: Path):
    with pytest.raises(GridError, match=words):
        load_grid(grid_file(tmp_path, plugins=plugins, parts=parts))


def recorded(grid: Grid, database_file: Path) -> list[str]:
    heard: list[str] = []
    with open_database(database_file, create=True) as database:
        save_grid(database, grid, Observer(warning=heard.append))
    return heard


def test_titles_are_recorded_with_the_grid(tmp_path: Path):
    grid = load_grid(grid_file(tmp_path))
    assert recorded(grid, tmp_path / "r.db") == []
    with open_database(tmp_path / "r.db", readonly=True) as database:
        titles = {(row.kind, row.name): row.title for row in database.parts()}
    assert titles["method", "penalty"] == "A penalty" and titles["network", "plain"] == "Plain"


def test_other_code_of_one_name_and_version_is_said(tmp_path: Path):
    recorded(load_grid(grid_file(tmp_path / "a")), tmp_path / "r.db")
    # The same code in another file, with a remark more, is the same code.
    again = load_grid(grid_file(tmp_path / "b", "second", "others.py", PARTS + "# A remark.\n"))
    assert recorded(again, tmp_path / "r.db") == []
    edited = load_grid(grid_file(tmp_path / "c", "third", "edited.py", PARTS.replace("0.1", "0.2")))
    lines = recorded(edited, tmp_path / "r.db")
    assert len(lines) == 2 and all("edited.py:" in line and "others.py:" in line for line in lines)
    assert "the method 'penalty' of version 1 is other code in this database" in lines[1]
    raised = PARTS.replace("0.1", "0.3").replace('title = "A penalty"', "version = 2")
    grid = load_grid(grid_file(tmp_path / "d", "fourth", "raised.py", raised))
    with open_database(tmp_path / "r.db", readonly=True) as database:
        # The network, in the same file, has other code around it.
        assert [line.split("'")[1] for line in other_parts(grid, database.parts())] == ["plain"]


def test_plan_says_what_is_slow_and_what_is_other_code(tmp_path: Path):
    recorded(load_grid(grid_file(tmp_path)), tmp_path / "results.db")
    (tmp_path / "my_parts.py").write_text(PARTS.replace("0.1", "0.2").replace("\nfrom", "\nimport torch\nfrom", 1))
    code = "from orchestrator.cli import main; main()"
    command = [sys.executable, "-c", code, "plan", "mine.yaml", "--json"]
    environment = {"PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    planned = json.loads(done.stdout)
    assert len(planned["trials"]) == 2
    assert any("is other code in this database" in note for note in planned["notes"])
    assert "my_parts.py:2 imports torch at its top" in done.stderr
    assert "the method 'penalty' of version 1 is other code in this database" in done.stderr


def test_a_part_that_no_plugin_brings_is_refused_before_anything_runs(tmp_path: Path):
    path = tmp_path / "loose.yaml"
    path.write_text("name: loose\nfixed: {dataset: digits, network: loose}\ngrid: {methods: [baseline]}\n")
    with NETWORKS.apart():
        network("loose")(lambda num_classes: None)
        grid = load_grid(path)
        with pytest.raises(
            PartError, match=r"the network 'loose' is registered in .*test_plugins\.py:\d+, which no plug"
        ):
            run_grid(grid, tmp_path / "r.db")
    assert not (tmp_path / "r.db").exists()


def test_a_grid_whose_plugin_was_edited_since_is_not_run(tmp_path: Path):
    grid = load_grid(grid_file(tmp_path))
    (tmp_path / "my_parts.py").write_text(PARTS.replace("0.1", "0.2"))
    with pytest.raises(PartError, match="is other code here than where the trial was planned"):
        activate(replace(grid).plugins)


def job_of(grid: Grid, folder: Path, **more: Any) -> Job:
    """The grid's second trial, which has a method of the plug-in's."""
    job = Job(
        key="0" * 64,
        name="mine/trial",
        config=grid.trials[1].config.model_dump(mode="json"),
        cpus=1,
        gpus=0,
        data_root=str(folder),
        checkpoint=None,
        checkpoint_seconds=None,
        log_folder=str(folder / "logs"),
        code_digest="",
        plugins=tuple(plugin.to_dict() for plugin in grid.plugins),
    )
    return replace(job, **more)


STATE = """
    def setup(self, labels, num_classes, networks, teacher=None):
        self.share = labels.new_zeros(()).float() + 0.1

    def losses(self, networks, outputs, batch, targets):
        return {"penalty": self.share * outputs[0].logits.float().square().mean()}

    def after_step(self, outputs, batch):
        self.share *= 1.1

    def state_dict(self):
        return {"share": self.share}

    def load_state_dict(self, state):
        self.share = state["share"]
"""


def test_an_interrupted_trial_goes_on_with_the_state_of_a_plug_ins_method(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    sized = "nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, num_classes)"
    parts = PARTS.replace("nn.Flatten(), nn.LazyLinear(num_classes)", sized)
    parts = parts.replace("    weight: float = 0.1\n", f"    weight: float = 0.1\n{STATE}")
    grid = load_grid(grid_file(tmp_path, parts=parts))
    config = grid.trials[1].config.model_dump(mode="json") | {"epochs": 2, "subset": 6}
    # As in the copy of the code that workers run.
    stage(grid.plugins, tmp_path / "code/plugins")
    monkeypatch.setattr("orchestrator.worker.attempt.ROOT", tmp_path / "code")

    def train(name: str, report: Callable[[Message], None]) -> Failure | None:
        # A worker of its own begins without the grid's plug-ins.
        load_plugins([], Path())
        place = tmp_path / f"{name}.pt"
        return run_job(job_of(grid, tmp_path, config=config, checkpoint=str(place), checkpoint_seconds=0.0), report)

    def stop(message: Message) -> None:
        if isinstance(message, EpochDone):
            raise ConnectionError("the node is gone")

    assert train("straight", lambda message: None) is None
    assert "ConnectionError" in train("resumed", stop).message
    epochs: list[bool] = []
    assert (
        train(
            "resumed",
            lambda message: epochs.append(message.result.restored) if isinstance(message, EpochDone) else None,
        )
        is None
    )
    assert epochs == [True, False]
    straight, resumed = content(tmp_path / "straight.pt"), content(tmp_path / "resumed.pt")
    assert straight["methods"]["penalty"]["share"].item() == pytest.approx(0.121)
    assert_same(resumed, straight)


def test_a_worker_with_other_code_refuses_the_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(tmp_path)
    grid = load_grid(grid_file(tmp_path))
    (plugin,) = grid.plugins
    missing = replace(plugin, digest="0" * 64)
    for given, words in ((missing, "cannot be loaded"), (replace(missing, module="my_parts"), "is other code here")):
        failure = run_job(job_of(grid, tmp_path, plugins=(given.to_dict(),)), pytest.fail)
        assert failure is not None and failure.error_class == "code" and words in failure.message, failure
