"""What the dashboard of Ray shows of a run, asked as a browser and Prometheus ask it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.orchestrator.runs import Workplace, ended, wait_for

# Enough epochs that the trial counts as long (a process and a name of its own) and is still there when it is looked at.
EPOCHS = 400
TRIAL = "shown/resnet18/pskd/seed0"


class Dashboard:
    """The dashboard at `url` for the holder of `token`."""

    def __init__(self, url: str, token: str) -> None:
        self.url, self.token = url, token

    def text(self, path: str) -> str:
        request = Request(self.url + path, headers={"Authorization": f"Bearer {self.token}"})
        with urlopen(request, timeout=60) as answer:
            return answer.read().decode()

    def actors(self) -> list[dict[str, Any]]:
        """The living actors."""
        listed = json.loads(self.text("/api/v0/actors?detail=true"))["data"]["result"]["result"]
        return [actor for actor in listed if actor["state"] == "ALIVE"]

    def gauges(self) -> dict[str, float]:
        """The gauges of the trial by name, from every endpoint that Prometheus would ask; they need no token."""
        found = {}
        for group in json.loads(self.text("/api/prometheus/sd")):
            for target in group["targets"]:
                with urlopen(f"http://{target}/metrics", timeout=60) as answer:
                    page = answer.read().decode()
                lines = re.findall(r'^ray_trial_(\w+)\{[^}]*trial="([^"]*)"[^}]*\} (\S+)$', page, re.MULTILINE)
                found |= {name: float(value) for name, trial, value in lines if trial == TRIAL}
        return found


def answered(ask: Callable[[], Any], wanted: Callable[[Any], object]) -> Any:
    """What `ask` answers once it is as wanted; whatever it says in the end otherwise. Ray is late with everything."""
    last: list[Any] = [None]

    def settled() -> object:
        try:
            last[0] = ask()
        except OSError as error:
            last[0] = error
            return False
        return wanted(last[0])

    wait_for(settled)
    return last[0]


@pytest.mark.ray
def test_the_dashboard_shows_a_trial_by_name_with_its_log_and_gauges(workplace: Workplace):
    grid = workplace.grid("shown", {"methods": [{"pskd": None}]}, epochs=EPOCHS)
    token = workplace.folder / "token"
    token.write_text("0123456789abcdef" * 2)
    process = workplace.start("run", grid, RAY_AUTH_TOKEN_PATH=str(token))
    output = workplace.folder / "output.txt"
    with ended(process):
        assert wait_for(lambda: process.poll() is not None or workplace.epochs() >= 2)
        printed = re.search(r"Ray dashboard: (http://\S+)", output.read_text())
        assert printed, output.read_text()
        dashboard = Dashboard(printed[1], token.read_text())

        with pytest.raises(HTTPError, match="401"):
            urlopen(f"{dashboard.url}/api/v0/actors", timeout=60)
        actors = answered(dashboard.actors, bool)
        assert [(actor["class_name"], actor["repr_name"]) for actor in actors] == [("Trial", TRIAL)]

        query = f"/api/v0/logs/file?actor_id={actors[0]['actor_id']}&suffix=out&lines=1000"
        log = answered(lambda: dashboard.text(query), lambda text: "epoch 2/" in text)
        (path,) = workplace.ask("SELECT log FROM attempts")[0]
        assert "epoch 2/" in str(log), log
        assert set(Path(path).read_text().splitlines()) & set(log.splitlines())

        gauges = answered(dashboard.gauges, lambda values: values.get("epoch", 0) >= 1)
        assert set(gauges) == {"epoch", "top1_error_percent", "seconds_per_epoch", "images_per_second"}
        query = """SELECT v.top1_error FROM epochs e JOIN evaluations v ON v.epoch_id = e.id AND v.classifier = 'main'
                   WHERE e.epoch = ?"""
        recorded = workplace.ask(query, int(gauges["epoch"]) - 1)
        assert recorded and abs(recorded[0][0] - gauges["top1_error_percent"]) < 1e-6
        assert gauges["seconds_per_epoch"] > 0 and gauges["images_per_second"] > 0
