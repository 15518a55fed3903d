"""Prometheus and Grafana as they are set up here: they find the gauges that the program exports, and no others."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
from ruamel.yaml import YAML

from orchestrator.scheduler.trainable import GAUGES
from tests.orchestrator.runs import ended, wait_for, workplace

FOLDER = Path(__file__).parents[2] / "docker"
PROMETHEUS = FOLDER / "prometheus/prometheus.yaml"
BOARD = json.loads((FOLDER / "grafana/boards/trials.json").read_text())
COMPOSE = YAML(typ="safe").load(FOLDER / "compose.yaml")
TRIAL = "shown/resnet18/pskd/seed0"


def provisioned(kind: str) -> list[dict[str, Any]]:
    """The entries of Grafana's provisioning files of a kind."""
    files = (FOLDER / "grafana/provisioning" / kind).glob("*.yaml")
    return [entry for file in files for entry in YAML(typ="safe").load(file)[kind.replace("dashboards", "providers")]]


def queries() -> list[str]:
    """What the board asks Prometheus, for all grids."""
    asked = [target["expr"] for panel in BOARD["panels"] for target in panel["targets"]]
    assert asked
    return [query.replace("$grid", ".*") for query in asked]


def mounted(service: str, path: str) -> bool:
    """Whether a service has a volume at a path, or above it."""
    targets = [mount.split(":")[1] for mount in COMPOSE["services"][service]["volumes"]]
    return any(path == target or path.startswith(f"{target}/") for target in targets)


def test_the_board_shows_the_gauges_of_the_program():
    named = {name for query in queries() for name in re.findall(r"\bray_trial_(\w+)", query)}
    assert named == set(GAUGES)


def test_the_board_asks_the_data_source_that_is_there():
    (source,) = provisioned("datasources")
    assert (source["uid"], source["name"]) == ("prometheus", "Prometheus")
    assert source["url"] == COMPOSE["services"]["head"]["environment"]["RAY_PROMETHEUS_HOST"]
    asked = re.findall(r'"datasource": \{[^}]*"uid": "([^"]+)"', json.dumps(BOARD))
    assert set(asked) == {source["uid"]} and len(asked) > len(BOARD["panels"])


def test_grafana_reads_boards_where_they_are_mounted():
    paths = [provider["options"]["path"] for provider in provisioned("dashboards")]
    head = COMPOSE["services"]["head"]
    assert sorted(paths) == [
        "/etc/grafana/boards",
        f"{head['environment']['RAY_METRICS_OUTPUT_ROOT']}/grafana/dashboards",
    ]
    assert all(mounted("grafana", path) for path in paths)
    home = COMPOSE["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert mounted("grafana", home) and (FOLDER / "grafana/boards" / Path(home).name).is_file()


def test_the_panels_have_places_of_their_own():
    taken = set()
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])}
        assert max(x for x, _ in cells) < 24 and not cells & taken
        taken |= cells
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])


def program(name: str) -> str:
    """The path of a program of Prometheus; skips where it is not installed."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed (Debian: apt install prometheus)")
    return path


def test_prometheus_accepts_its_configuration_and_the_boards_queries(tmp_path: Path):
    promtool = program("promtool")
    # It looks for the file of the token, which is Compose's to make.
    config = tmp_path / "prometheus.yaml"
    config.write_text(PROMETHEUS.read_text().replace("/run/secrets/ray_auth_token", str(tmp_path / "token")))
    (tmp_path / "token").write_text("secret")
    rules = tmp_path / "rules.yaml"
    asked = [{"record": f"query{i}", "expr": query} for i, query in enumerate(queries())]
    rules.write_text(json.dumps({"groups": [{"name": "board", "rules": asked}]}))
    for arguments in (["check", "config", config], ["check", "rules", rules]):
        done = subprocess.run([promtool, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def prometheus(folder: Path, dashboard: str, token: Path) -> Iterator[str]:
    """The URL of a Prometheus that runs with the file of this repository, but for where Ray and its token are."""
    config = PROMETHEUS.read_text()
    for ours, theirs in {
        "http://head:8265": dashboard,
        "/run/secrets/ray_auth_token": str(token),
        "refresh_interval: 10s": "refresh_interval: 1s",
        "scrape_interval: 10s": "scrape_interval: 1s",
    }.items():
        assert config.count(ours) == 1, ours
        config = config.replace(ours, theirs)
    (folder / "prometheus.yaml").write_text(config)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        program("prometheus"), f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/prometheus",
        f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


def answer(url: str, query: str) -> dict[str, float]:
    """The value of a query by trial; empty while there is none."""
    try:
        with urlopen(f"{url}/api/v1/query?{urlencode({'query': query})}", timeout=60) as response:
            result = json.load(response)["data"]["result"]
    except OSError:
        return {}
    return {series["metric"].get("trial", ""): float(series["value"][1]) for series in result}


@pytest.mark.ray
def test_the_boards_queries_find_a_trial_that_trains():
    program("prometheus")
    with workplace() as place:
        token = place.folder / "token"
        token.write_text("0123456789abcdef" * 2)
        # Enough epochs that it is still there when it is looked at.
        grid = place.grid("shown", {"methods": [{"pskd": None}]}, epochs=400)
        run = place.start("run", grid, "--no-canary", RAY_AUTH_TOKEN_PATH=str(token))
        with ended(run):
            assert wait_for(lambda: run.over() or place.epochs() >= 2)
            printed = re.search(r"Ray dashboard: (http://\S+)", run.text())
            assert printed, run.text()
            with prometheus(place.folder, printed[1], token) as url:
                found: dict[str, dict[str, float]] = {}

                def all_answered() -> bool:
                    found.update({query: answer(url, query) for query in queries()})
                    return all(set(values) == {TRIAL} for values in found.values())

                assert wait_for(all_answered), (found, (place.folder / "prometheus.log").read_text()[-2000:])
                assert all(values[TRIAL] > 0 for values in found.values())
                nodes = answer(url, 'count by (job) (up{job="ray"} == 1)')
                assert nodes and min(nodes.values()) >= 1
