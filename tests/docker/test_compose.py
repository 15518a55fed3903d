"""The Compose file: it starts nothing without secrets, publishes nothing to the network, and its parts fit together."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

FOLDER = Path(__file__).parents[2] / "docker"
TEXT = (FOLDER / "compose.yaml").read_text()
COMPOSE = YAML(typ="safe").load(TEXT)
SECRETS = ("RAY_AUTH_TOKEN", "POSTGRES_PASSWORD", "GRAFANA_PASSWORD")
RAY_NODES = ("head", "worker-cuda", "worker-cpu")


def docker_compose(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `docker compose` on the file; skips where it is not installed."""
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("docker compose is not installed")
    # Not a file of secrets that a person has made beside it.
    command = [docker, "compose", "--file", FOLDER / "compose.yaml", "--env-file", os.devnull, *arguments]
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(command, env=environment | variables, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("variant", ["cuda", "cpu"])
def test_compose_reads_it(variant: str):
    secrets = {name: f"secret{i}" for i, name in enumerate(SECRETS)}
    done = docker_compose("config", "--format=json", COMPOSE_PROFILES=variant, VARIANT=variant, **secrets)
    assert done.returncode == 0, done.stderr
    services = json.loads(done.stdout)["services"]
    assert services.keys() == {"head", f"worker-{variant}", "postgres", "prometheus", "grafana"}
    for service in services.values():
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", ()))
    tokens = {services[name]["environment"]["RAY_AUTH_TOKEN"] for name in ("head", f"worker-{variant}")}
    assert tokens == {"secret0"}
    assert services["head"]["pid"] == services[f"worker-{variant}"]["pid"] == "host"


@pytest.mark.parametrize("missing", SECRETS)
def test_compose_starts_nothing_without_a_secret(missing: str):
    secrets = {name: "secret" for name in SECRETS if name != missing}
    done = docker_compose("config", **secrets)
    assert done.returncode != 0 and missing in done.stderr and "make-env.sh" in done.stderr


def test_no_secret_has_a_default():
    used = re.findall(r"\$\{(\w*(?:TOKEN|PASSWORD)\w*)([^}]*)\}", TEXT)
    assert {name for name, _ in used} == set(SECRETS)
    assert all(rest.startswith(":?") for _, rest in used)


def test_every_port_is_published_on_the_loopback_interface():
    published = [port for service in COMPOSE["services"].values() for port in service.get("ports", ())]
    assert len(published) == 4
    assert all(port.startswith("${BIND:-127.0.0.1}:") for port in published)


def test_every_image_has_a_version():
    images = [service["image"] for service in COMPOSE["services"].values()]
    assert all(re.search(r":(v?\d+\.\d+(\.\d+)?|\$\{VARIANT:-cuda\})$", image) for image in images), images


def test_every_file_that_is_mounted_is_there():
    for name, service in COMPOSE["services"].items():
        for mount in service.get("volumes", ()):
            source = re.split(r":(?!-)", mount)[0]
            if source.startswith("."):
                assert (FOLDER / source).exists(), (name, source)
            else:
                volume = re.sub(r"^\$\{\w+:-(\w+)\}$", r"\1", source)
                assert volume in COMPOSE["volumes"], (name, source)


def test_all_nodes_of_the_cluster_see_the_same_files():
    mounts = [COMPOSE["services"][name]["volumes"] for name in RAY_NODES]
    assert mounts[0] == mounts[1] == mounts[2]
    assert {mount.rsplit(":", 1)[-1] for mount in mounts[0]} >= {"/workspace", "/data"}


def test_the_head_holds_drivers_and_no_trials():
    assert "--num-cpus=0" in COMPOSE["services"]["head"]["command"]


def test_the_file_of_secrets_says_all_that_has_no_default(tmp_path: Path):
    script = shutil.copy(FOLDER / "make-env.sh", tmp_path)
    subprocess.run([script, "cuda"], check=True, stdout=subprocess.DEVNULL)
    written = re.findall(r"^(\w+)=", (tmp_path / ".env").read_text(), re.MULTILINE)
    assert set(re.findall(r"\$\{(\w+):\?", TEXT)) <= set(written)
    assert set(written) <= set(re.findall(r"\$\{(\w+)", TEXT)) | {"COMPOSE_PROFILES"}


def of(service: str) -> dict[str, Any]:
    """The environment of a service."""
    return COMPOSE["services"][service]["environment"]


def test_the_workers_and_drivers_look_for_the_head_where_it_is():
    for name in RAY_NODES:
        assert of(name)["RAY_ADDRESS"] == "head:6379"
    assert COMPOSE["services"]["head"]["hostname"] == "head"
