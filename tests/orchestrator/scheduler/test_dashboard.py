"""The dashboard of Ray during a run, asked as a browser, Prometheus and Grafana's board ask it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.docker import boards
from tests.orchestrator.runs import Workplace, ended, wait_for, workplace

pytestmark = pytest.mark.ray

# Enough epochs that the trial counts as long (a process and a name of its own) and is still there when it is looked at.
EPOCHS = 10_000
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
        values = {}
        for group in json.loads(self.text("/api/prometheus/sd")):
            for target in group["targets"]:
                with urlopen(f"http://{target}/metrics", timeout=60) as answer:
                    page = answer.read().decode()
                lines = re.findall(r'^ray_trial_(\w+)\{[^}]*trial="([^"]*)"[^}]*\} (\S+)$', page, re.MULTILINE)
                values |= {name: float(value) for name, trial, value in lines if trial == TRIAL}
        return values


def answered(ask: Callable[[], Any], wanted: Callable[[Any], object]) -> Any:
    """Repeat `ask` until its answer is as wanted, for Ray is late with everything; return the last answer."""
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


@pytest.fixture(scope="module")
def place() -> Iterator[Workplace]:
    """A workplace with a run of one trial, two of whose epochs are over and which goes on until the last test."""
    with workplace() as place:
        token = place.folder / "token"
        token.write_text("0123456789abcdef" * 2)
        grid = place.grid("shown", {"methods": [{"pskd": None}]}, epochs=EPOCHS)
        with ended(place.start("run", grid, "--no-canary", RAY_AUTH_TOKEN_PATH=str(token))) as run:
            assert wait_for(lambda: run.over() or place.epochs() >= 2) and not run.over(), run.text()
            yield place


@pytest.fixture(scope="module")
def dashboard(place: Workplace) -> Dashboard:
    output = (place.folder / "output.txt").read_text()
    printed = re.search(r"Ray dashboard: (http://\S+)", output)
    assert printed, output
    return Dashboard(printed[1], (place.folder / "token").read_text())


def test_the_dashboard_is_for_the_holder_of_the_token(dashboard: Dashboard):
    with pytest.raises(HTTPError, match="401"):
        urlopen(f"{dashboard.url}/api/v0/actors", timeout=60)


def test_the_dashboard_shows_a_trial_by_name_with_its_log_and_gauges(place: Workplace, dashboard: Dashboard):
    actors = answered(dashboard.actors, bool)
    assert [(actor["class_name"], actor["repr_name"]) for actor in actors] == [("Trial", TRIAL)]

    query = f"/api/v0/logs/file?actor_id={actors[0]['actor_id']}&suffix=out&lines=1000"
    log = answered(lambda: dashboard.text(query), lambda text: "epoch 2/" in text)
    (path,) = place.ask("SELECT log FROM attempts")[0]
    assert "epoch 2/" in str(log), log
    assert set(Path(path).read_text().splitlines()) & set(log.splitlines())

    gauges = answered(dashboard.gauges, lambda values: values.get("epoch", 0) >= 1)
    assert set(gauges) == {"epoch", "top1_error_percent", "seconds_per_epoch", "images_per_second"}
    query = """SELECT v.top1_error FROM epochs e JOIN evaluations v ON v.epoch_id = e.id AND v.classifier = 'main'
               WHERE e.epoch = ?"""
    recorded = place.ask(query, int(gauges["epoch"]) - 1)
    assert recorded and abs(recorded[0][0] - gauges["top1_error_percent"]) < 1e-6
    assert gauges["seconds_per_epoch"] > 0 and gauges["images_per_second"] > 0


def test_the_boards_queries_find_a_trial_that_trains(place: Workplace, dashboard: Dashboard):
    boards.program("prometheus")
    with boards.prometheus(place.folder, dashboard.url, place.folder / "token") as url:
        values: dict[str, dict[str, float]] = {}

        def all_answered() -> bool:
            values.update({query: boards.answer(url, query) for query in boards.queries()})
            return all(set(by_trial) == {TRIAL} for by_trial in values.values())

        assert wait_for(all_answered), (values, (place.folder / "prometheus.log").read_text()[-2000:])
        assert all(by_trial[TRIAL] > 0 for by_trial in values.values())
        nodes = boards.answer(url, 'count by (job) (up{job="ray"} == 1)')
        assert nodes and min(nodes.values()) >= 1
