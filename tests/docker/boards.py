"""Prometheus with the file that is set up here, and what Grafana's board asks it."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

FOLDER = Path(__file__).parents[2] / "docker"
PROMETHEUS = FOLDER / "prometheus/prometheus.yaml"
BOARD = json.loads((FOLDER / "grafana/boards/trials.json").read_text())


def queries() -> list[str]:
    """Return the queries by which the board asks Prometheus, for all grids."""
    asked = [target["expr"] for panel in BOARD["panels"] for target in panel["targets"]]
    assert asked
    return [query.replace("$grid", ".*") for query in asked]


def program(name: str) -> str:
    """The path of a program of Prometheus; skips where it is not installed."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed (Debian: apt install prometheus)")
    return path


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
