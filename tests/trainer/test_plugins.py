"""Plug-ins: files and modules of parts are loaded, refused with one sentence, shipped, and run as they were."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.trainer.training import in_a_process, run_program, small
from trainer.config import TrainConfig
from trainer.method import Output
from trainer.networks import build_network
from trainer.parts import METHODS, NETWORKS, network
from trainer.plugin_files import Plugin
from trainer.plugins import activate, load_plugins, stage
from trainer.registry import PartError
from trainer.train import train

METHOD = """
from dataclasses import dataclass
from trainer import Method

@dataclass
class Penalty(Method):
    name = "penalty"
    version = {version}
    weight: float = 0.1

    def losses(self, networks, outputs, batch, targets):
        logs = outputs[0].logits.float().log_softmax(-1)
        return {{"penalty": self.weight * (logs.exp() * logs).sum(-1).mean()}}
"""
NETWORK = """
from trainer import network
import helping_layers

@network("pooled", title="Pooled")
def pooled(num_classes):
    return helping_layers.build(num_classes)
"""
LAYERS = """
def build(num_classes):
    from torch import nn
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, {outputs}))
"""


RECIPE = """
from dataclasses import dataclass
from trainer import Optimizer, Schedule

@dataclass(frozen=True)
class Signs(Optimizer):
    name = "signs"
    title = "SignSGD"
    defaults = {{"learning_rate": 0.01}}
    share: float = 1.0

    def build(self, config, parameters):
        import torch
        return torch.optim.Rprop(parameters, lr=config.learning_rate * self.share)

@dataclass(frozen=True)
class Halving(Schedule):
    name = "halving"
    version = {version}
    every: int = 1

    def factor(self, config, epochs):
        return 0.5 ** (epochs // self.every)
"""


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    before = list(sys.path), set(METHODS), set(NETWORKS)
    yield
    load_plugins([], Path())
    assert (sys.path, set(METHODS), set(NETWORKS)) == before


def written(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path.name


def test_a_file_registers_its_parts_until_another_list_is_loaded(tmp_path: Path):
    name = written(tmp_path / "mine.py", METHOD.format(version=1))
    (plugin,) = load_plugins([name], tmp_path)
    assert (plugin.name, plugin.files, plugin.notes) == ("mine.py", ("mine.py",), ())
    # The line of the decorator or of the class, depending on the version of Python.
    assert METHODS["penalty"].source in [f"{tmp_path / 'mine.py'}:{line}" for line in (5, 6)]
    kept = METHODS["penalty"].make
    load_plugins([], tmp_path)
    assert "penalty" not in METHODS
    load_plugins([name], tmp_path)
    # It has not changed, so that it is not run again.
    assert METHODS["penalty"].make is kept


def test_an_edited_file_is_run_again(tmp_path: Path):
    name = written(tmp_path / "mine.py", METHOD.format(version=1))
    load_plugins([name], tmp_path)
    assert small(methods={"penalty": {}}).build_methods()[0].weight == 0.1
    written(tmp_path / "mine.py", METHOD.format(version=1).replace("0.1", "0.3"))
    load_plugins([name], tmp_path)
    assert small(methods={"penalty": {}}).build_methods()[0].weight == 0.3


def test_two_grids_may_import_helpers_of_one_name(tmp_path: Path):
    """Import a helper inside of a part's function, thus later: it is the part's own as well."""
    for folder, outputs in (("a", "num_classes"), ("b", "2")):
        written(
            tmp_path / folder / "nets.py",
            NETWORK.replace("import helping_layers\n", "").replace(
                "    return", "    import helping_layers\n    return"
            ),
        )
        written(tmp_path / folder / "helping_layers.py", LAYERS.format(outputs=outputs))
    for folder, outputs in (("a", 7), ("b", 2), ("a", 7)):
        load_plugins(["nets.py"], tmp_path / folder)
        assert NETWORKS["pooled"].make(num_classes=7)[-1].out_features == outputs


def test_the_version_counts_in_the_key_where_the_part_is_used(tmp_path: Path):
    keys = []
    plain = TrainConfig().key()
    for version in (1, 2):
        load_plugins([written(tmp_path / f"v{version}.py", METHOD.format(version=version))], tmp_path)
        keys.append(TrainConfig(methods={"penalty": {}}).key())
        assert TrainConfig().key() == plain
        names = [part.name for part in TrainConfig(methods={"penalty": {}}).parts()]
        assert names == ["penalty", "resnet18", "cifar100", "sgd", "steps"]
    assert keys[0] != keys[1]


def test_the_file_name_does_not_count_in_the_key(tmp_path: Path):
    keys = set()
    for name in ("one.py", "two.py"):
        load_plugins([written(tmp_path / name, METHOD.format(version=2))], tmp_path)
        keys.add(TrainConfig(methods={"penalty": {}}).key())
    assert len(keys) == 1


def test_two_plugins_with_one_name_clash_with_both_places(tmp_path: Path):
    names = [written(tmp_path / name, METHOD.format(version=1)) for name in ("one.py", "two.py")]
    with pytest.raises(
        PartError, match=r"two methods are named 'penalty': one in .*one\.py:[56], one in .*two\.py:[56]"
    ):
        load_plugins(names, tmp_path)
    load_plugins(names[1:], tmp_path)
    assert METHODS["penalty"].file.name == "two.py"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import os\nx = = 1\n", r"bad\.py:2: is not Python: invalid syntax"),
        ("x = 1\n\ny = undefined + 1\n", r"bad\.py:3: running it raises NameError: name 'undefined' is not defined"),
        ("def f():\n    raise SystemExit(3)\nf()\n", r"bad\.py:2: running it raises SystemExit: 3"),
        ("import no_such_module_anywhere\n", r"bad\.py:1: running it raises ModuleNotFoundError"),
        (METHOD.format(version=1).replace("@dataclass\n", ""), r"'penalty' is no dataclass, so that weight cannot be"),
        (METHOD.format(version=1).replace('"penalty"\n', '"byot"\n'), r"two methods are named 'byot'"),
    ],
)
def test_a_file_that_cannot_be_run_is_one_sentence_with_its_line(text: str, reason: str, tmp_path: Path):
    before = set(METHODS)
    with pytest.raises(PartError, match=reason):
        load_plugins([written(tmp_path / "bad.py", text)], tmp_path)
    load_plugins([], tmp_path)
    assert set(METHODS) == before


def test_what_is_not_there_is_named_with_its_neighbour(tmp_path: Path):
    written(tmp_path / "my_parts.py", "")
    with pytest.raises(PartError, match=r"my_part\.py: no such file; did you mean .*my_parts\.py\?"):
        load_plugins(["my_part.py"], tmp_path)
    with pytest.raises(PartError, match=r"no module named 'no_such_thing\.parts' can be imported"):
        load_plugins(["no_such_thing.parts"], tmp_path)
    with pytest.raises(PartError, match="neither a file"):
        load_plugins(["my parts"], tmp_path)


def test_notes_say_what_is_slow_and_what_registers_nothing(tmp_path: Path):
    text = "import sys\nimport torch.nn as nn\n"
    (plugin,) = load_plugins([written(tmp_path / "slow.py", text)], tmp_path)
    slow, silent = plugin.notes
    assert f"{tmp_path / 'slow.py'}:2 imports torch.nn at its top" in slow
    assert "registers no method" in silent


def test_a_package_is_imported_from_beside_and_follows_its_modules(tmp_path: Path):
    written(tmp_path / "lab_of_ours" / "__init__.py", "")
    written(tmp_path / "lab_of_ours" / "kd.py", METHOD.format(version=1) + "from . import more\n")
    written(tmp_path / "lab_of_ours" / "more.py", "")
    written(tmp_path / "lab_of_ours" / "unused.py", "")
    (plugin,) = load_plugins(["lab_of_ours.kd"], tmp_path)
    assert plugin.files == ("lab_of_ours/kd.py", "lab_of_ours/__init__.py", "lab_of_ours/more.py")
    assert plugin.module is None and "penalty" in METHODS


def test_an_installed_package_offers_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    written(tmp_path / "lab_installed.py", METHOD.format(version=1))
    written(tmp_path / "lab_installed-1.0.dist-info" / "METADATA", "Metadata-Version: 2.1\nName: lab-installed\n")
    offered = "[orchestrate.plugins]\nour_lab = lab_installed\n"
    written(tmp_path / "lab_installed-1.0.dist-info" / "entry_points.txt", offered)
    monkeypatch.syspath_prepend(tmp_path)
    load_plugins(["our_lab"], Path())
    assert METHODS["penalty"].file.name == "lab_installed.py"
    load_plugins([], Path())


def build_staged(plugin: Plugin, staged: Path, shown: Path) -> None:
    """Build a network of a plug-in's copy and write down what it is; the driver's folder is on the path as well."""
    sys.path.append(plugin.root)
    activate([plugin.shipped(staged)])
    shown.write_text(str(build_network("pooled", num_classes=7)))


def test_other_processes_run_exactly_the_bytes_that_were_loaded(tmp_path: Path):
    name = written(tmp_path / "mine" / "nets.py", NETWORK)
    written(tmp_path / "mine" / "helping_layers.py", LAYERS.format(outputs="num_classes"))
    (plugin,) = load_plugins([name], tmp_path / "mine")
    stage([plugin], tmp_path / "staged")
    written(tmp_path / "mine" / "helping_layers.py", "raise RuntimeError('edited')\n")
    shown = tmp_path / "shown"
    assert in_a_process(build_staged, plugin, tmp_path / "staged", shown) == 0
    assert "out_features=7" in shown.read_text()
    with pytest.raises(PartError, match="has changed while the run started"):
        stage([plugin], tmp_path / "again")


def test_other_code_than_was_planned_is_refused(tmp_path: Path):
    (plugin,) = load_plugins([written(tmp_path / "mine.py", METHOD.format(version=1))], tmp_path)
    written(tmp_path / "mine.py", METHOD.format(version=1) + "\n# A remark.\n")
    with pytest.raises(PartError, match=r"mine\.py is other code here .* has the digest [0-9a-f]{12}, not"):
        activate([plugin])
    with pytest.raises(PartError, match="cannot be loaded"):
        activate([Plugin(**{**plugin.to_dict(), "root": str(tmp_path / "nowhere")})])


def test_a_network_of_logits_alone_trains(tmp_path: Path, data_root: Path):
    written(tmp_path / "helping_layers.py", LAYERS.format(outputs="num_classes"))
    load_plugins([written(tmp_path / "nets.py", NETWORK)], tmp_path)
    results = []
    config = small(network="pooled", width=64, methods={"dml": {}, "cskd": {}}, epochs=1)
    train(config, results.append, data_root=data_root)
    assert len(results) == 1 and any("dml" in name for name in results[0].losses)


def test_a_network_that_ignores_num_classes_is_refused_with_shapes(tmp_path: Path, data_root: Path):
    written(tmp_path / "helping_layers.py", LAYERS.format(outputs=2))
    load_plugins([written(tmp_path / "nets.py", NETWORK)], tmp_path)
    with pytest.raises(PartError, match=r"pooled, built with num_classes=\d+: .* has the shape \[\d+, 2\], and has to"):
        train(small(network="pooled", width=64, epochs=1), print, data_root=data_root)


class Headed(torch.nn.Module):
    def __init__(self, num_classes: int, count: int) -> None:
        super().__init__()
        self.layer, self.count = torch.nn.Linear(3, num_classes), count

    def forward(self, inputs: torch.Tensor, heads: bool = True) -> Output:
        features = inputs.mean((2, 3))
        logits = self.layer(features)
        listed = self.count if heads else 0
        return Output(logits, features, (logits,) * listed, (features,) * listed)


def test_a_network_of_ones_own_may_have_heads(data_root: Path):
    with NETWORKS.apart():
        network("headed", heads=("mine",), stages=3)(lambda num_classes, heads: Headed(num_classes, 2 if heads else 0))
        network("short", heads=("mine",), stages=4)(lambda num_classes, heads: Headed(num_classes, 2))
        config = small(network="headed", width=64, methods={"byot": {}}, epochs=1)
        assert config.heads == "mine"
        results = []
        train(config, results.append, data_root=data_root)
        assert {row.classifier for row in results[0].evaluations} == {"main", "head1", "head2", "ensemble"}
        with pytest.raises(PartError, match=r"gives 2 head_logits; .* it has to give 3"):
            build_network("short", num_classes=4, heads="mine")(torch.zeros(2, 3, 8, 8))


@pytest.mark.parametrize("given", [torch.zeros(2, 4), (torch.zeros(2, 4),), None])
def test_what_is_no_network_or_gives_no_logits_is_refused(given):
    class Odd(torch.nn.Module):
        def forward(self, inputs):
            return given

    with NETWORKS.apart():
        network("odd", features=True)(lambda num_classes: Odd())
        network("none")(lambda num_classes: given)
        with pytest.raises(PartError, match=r"odd gives a (Tensor|tuple|NoneType); it has to give an Output"):
            build_network("odd", num_classes=4)(torch.zeros(2, 3, 8, 8))
        with pytest.raises(PartError, match="not a torch module"):
            build_network("none", num_classes=4)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"width": 32}, "plain takes no width, so that 32 is not used"),
        ({"stages": 2}, "plain takes no stages, so that 2 is not used"),
        ({"heads": "bottleneck"}, "plain cannot carry 'bottleneck' heads"),
        ({"methods": {"byot": {}}}, r"plain gives logits alone, and byot reads features: .*heads=\(KIND,\)"),
        ({"methods": {"byot": {"feature_weight": 0}}}, "an Output with head_logits"),
    ],
)
def test_what_a_network_does_not_take_is_refused_in_words(fields: dict, words: str):
    with NETWORKS.apart():
        network("plain")(lambda num_classes: None)
        with pytest.raises(ValueError, match=words):
            TrainConfig(network="plain", **fields)


def test_networks_of_libraries():
    part = NETWORKS["torchvision:shufflenet_v2_x0_5"]
    assert part.file.name == "shufflenetv2.py" and len(part.digest) == 64
    logits = build_network(part.name, num_classes=7)(torch.zeros(2, 3, 32, 32)).logits
    assert logits.shape == (2, 7)
    with pytest.raises(ValueError, match=r"no network 'resnet19' .* did you mean torchvision:resnet18"):
        TrainConfig(network="torchvision:resnet19")


def test_a_library_that_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch):
    from trainer.networks import library

    library.library_network.cache_clear(), library._models.cache_clear()
    monkeypatch.setattr(library, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"timm is not installed here; `pip install '.*\[timm\]'`"):
        TrainConfig(network="timm:resnet18")


def test_the_trainers_command_takes_plugins(tmp_path: Path):
    name = written(tmp_path / "mine.py", METHOD.format(version=1))
    given = ["--dataset", "digits", "--subset", "2", "--epochs", "1", "--width", "4", "--methods", "penalty", "--json"]
    # As a person starts the program: modules that another process has imported hide what its own start leaves out.
    command = [sys.executable, "-m", "trainer", "--plugin", name, *given]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and '"penalty":' in done.stdout, done.stderr
    shown = run_program("trainer", "--plugin", name, "--help", folder=tmp_path)
    assert "penalty" in shown.out
    refused = run_program("trainer", "--plugin", "min.py", folder=tmp_path)
    assert refused.code == 2 and "did you mean" in refused.err and "Traceback" not in refused.err


def test_a_recipe_of_ones_own_trains_and_counts(tmp_path: Path):
    load_plugins([written(tmp_path / "recipe.py", RECIPE.format(version=1))], tmp_path)
    recipe = {"optimizer": {"signs": {"share": 0.5}}, "schedule": "halving"}
    config = small(dataset="digits", subset=4, epochs=2, **recipe)
    assert config.learning_rate == 0.01
    assert [config.learning_rates(epoch, 2) for epoch in (0, 1)] == [[0.01, 0.01], [0.005, 0.005]]
    rates: list[float] = []
    train(config, lambda result: rates.append(result.learning_rate))
    assert rates == [0.01, 0.005]
    first = config.key()
    assert small(dataset="digits", subset=4, epochs=2, optimizer="signs", schedule="halving").key() != first
    load_plugins([written(tmp_path / "later.py", RECIPE.format(version=2))], tmp_path)
    assert small(dataset="digits", subset=4, epochs=2, **recipe).key() != first
    with pytest.raises(ValueError, match="did you mean 'halving'"):
        small(schedule="halvin")
