"""Prometheus and Grafana as they are set up here: they find the gauges that the program exports, and no others.

With a run, see `tests/orchestrator/scheduler/test_dashboard.py`.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from orchestrator.scheduler.trainable import GAUGES
from tests.docker.boards import BOARD, FOLDER, PROMETHEUS, program, queries

COMPOSE = YAML(typ="safe").load(FOLDER / "compose.yaml")


def provisioned(kind: str) -> list[dict[str, Any]]:
    """The entries of Grafana's provisioning files of a kind."""
    files = (FOLDER / "grafana/provisioning" / kind).glob("*.yaml")
    return [entry for file in files for entry in YAML(typ="safe").load(file)[kind.replace("dashboards", "providers")]]


def mounted(service: str, path: str) -> bool:
    """Return whether a service has a volume at a path, or above it."""
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


def test_prometheus_accepts_its_configuration_and_the_boards_queries(tmp_path: Path):
    promtool = program("promtool")
    # `promtool` looks for the file of the token, which otherwise Compose makes.
    config = tmp_path / "prometheus.yaml"
    config.write_text(PROMETHEUS.read_text().replace("/run/secrets/ray_auth_token", str(tmp_path / "token")))
    (tmp_path / "token").write_text("secret")
    rules = tmp_path / "rules.yaml"
    asked = [{"record": f"query{i}", "expr": query} for i, query in enumerate(queries())]
    rules.write_text(json.dumps({"groups": [{"name": "board", "rules": asked}]}))
    for arguments in (["check", "config", config], ["check", "rules", rules]):
        done = subprocess.run([promtool, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
