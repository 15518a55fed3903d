"""Plug-ins on a cluster of two nodes, a process of each trial on either: what was loaded is what runs."""

from __future__ import annotations

import pytest

from tests.orchestrator.ray_nodes import ray_nodes
from tests.orchestrator.runs import differences, ended, wait_for, workplace

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

PARTS = """
from dataclasses import dataclass
from trainer import Method, network
import helping_layers

@dataclass
class Penalty(Method):
    name = "penalty"
    weight: float = 0.1

    def losses(self, networks, outputs, batch, targets):
        return {"penalty": self.weight * outputs[0].logits.float().square().mean()}

@network("plain")
def plain(num_classes):
    return helping_layers.build(num_classes)
"""
LAYERS = """
def build(num_classes):
    from torch import nn
    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, num_classes))
"""


def test_two_nodes_run_the_files_as_they_were_at_the_start():
    with workplace() as place:
        (place.folder / "my_parts.py").write_text(PARTS)
        (place.folder / "helping_layers.py").write_text(LAYERS)
        common = {
            "epochs": 3,
            "fixed": {"network": "plain", "width": None},
            "plugins": ["my_parts.py"],
            "resources": {"gpu": 0, "cpu": 1, "processes": 2},
        }
        # The second of the two trials, which starts after the edit.
        grid = place.grid("alone", {"methods": [{"penalty": {}}]}, **common)
        code, output = place.run("run", grid, "--no-dashboard", "--no-canary")
        assert code == 0, output
        (late,) = expected = place.results()
        place.clear()
        grid = place.grid("own", {"methods": [{}, {"penalty": {}}]}, **common)
        with ray_nodes(place) as nodes:
            nodes.add(1)
            nodes.add(1)
            with ended(place.start("run", grid, "--no-canary", "--address", nodes.address)) as run:
                assert wait_for(lambda: place.epochs() >= 1 or run.over()), run.text()
                # An edit during the run changes no trial.
                (place.folder / "my_parts.py").write_text("raise RuntimeError('edited')\n")
                (place.folder / "helping_layers.py").write_text("raise RuntimeError('edited')\n")
                assert run.code() == 0, run.text()
        results = place.results()
        assert len(results) == 2 and differences({late: results[late]}, expected) == []
        assert place.ask("SELECT count(*) FROM epochs") == [(6,)]
        assert place.ask("SELECT name FROM parts WHERE name IN ('penalty', 'plain') ORDER BY name") == [
            ("penalty",),
            ("plain",),
        ]
        # The edited file is refused, and no result is lost.
        code, output = place.run("plan", grid)
        assert code == 2 and "my_parts.py:1: running it raises RuntimeError: edited" in output, output
