"""The image and the manifests agree with the program: versions, settings of Ray, files."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from orchestrator import provenance
from orchestrator.scheduler.cluster import ENVIRONMENT

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "docker/Dockerfile").read_text()
KUBERAY = list(YAML(typ="safe").load_all(ROOT / "docs/examples/kuberay.yaml"))
PINNED = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
# What the processes of a node must be started with; the rest the driver needs itself.
OF_NODES = (
    *("RAY_AUTH_MODE", "RAY_USAGE_STATS_ENABLED", "RAY_worker_niceness", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"),
    "CUDA_DEVICE_ORDER",
)


@pytest.mark.parametrize("name", OF_NODES)
@pytest.mark.parametrize("file", ["docker/Dockerfile", "docs/examples/slurm.sbatch", "docs/lab-server.md"])
def test_nodes_are_started_with_the_settings_of_the_driver(file: str, name: str):
    assert re.search(rf"\b{name}={re.escape(ENVIRONMENT[name])}(\s|$)", (ROOT / file).read_text(), re.MULTILINE)


def test_the_base_has_the_cuda_of_the_wheels():
    base = re.search(r"^FROM nvidia/cuda:(\d+)\.", DOCKERFILE, re.MULTILINE)
    assert base and base[1] == PINNED["nvidia-cuda-runtime"].split(".")[0]


def test_the_program_does_not_run_as_root():
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    # A number: Kubernetes cannot tell from a name whether the user is root.
    assert re.findall(r"^USER (\S+)$", last, re.MULTILINE) == ["$UID"]
    assert re.findall(r"^ARG UID=(\d+)$", DOCKERFILE, re.MULTILINE) == ["1000", "1000"]
    assert last.index("\nUSER ") > last.rindex("\nRUN ")


def test_a_change_of_the_code_installs_nothing_again():
    dependencies, final = DOCKERFILE.split("\nFROM ")[-2:]
    assert "pip install --constraint constraints.txt" in " ".join(dependencies.split())
    assert "COPY . " not in dependencies and "COPY . " in final
    assert "pip " not in final


def test_what_the_image_needs_goes_to_the_builder():
    let_in = set(re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    packages = {name.rstrip("*") for name in setup["options.packages.find"]["include"].split()}
    copied = {name for line in re.findall(r"^COPY ([^-.].*) \./$", DOCKERFILE, re.MULTILINE) for name in line.split()}
    started = re.search(r'^ENTRYPOINT \["/opt/orchestrate/([^"]+)"\]', DOCKERFILE, re.MULTILINE)
    assert started and copied >= {"constraints.txt", "setup.cfg", "pyproject.toml"}
    assert let_in == packages | copied | {"grids", started[1]}
    assert all((ROOT / name).exists() for name in let_in)


def test_kubernetes_runs_the_same_ray_on_a_grid_of_ours():
    (job,) = [document for document in KUBERAY if document["kind"] == "RayJob"]
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == PINNED["ray"]
    grid = re.search(r"orchestrate run /opt/orchestrate/(\S+)", job["spec"]["entrypoint"])
    assert grid and (ROOT / grid[1]).is_file()


def test_kubernetes_mounts_what_it_declares():
    (claim,) = [document for document in KUBERAY if document["kind"] == "PersistentVolumeClaim"]
    (job,) = [document for document in KUBERAY if document["kind"] == "RayJob"]
    cluster = job["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert volumes["storage"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        paths = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        assert paths == {"/workspace", "/data", "/dev/shm"}
        assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} == set(volumes)


def test_the_commit_of_an_image_is_known_without_its_history(monkeypatch: pytest.MonkeyPatch):
    name = re.search(r"^ENV .*?(\w+)=\$COMMIT", DOCKERFILE, re.MULTILINE | re.DOTALL)
    monkeypatch.setattr(provenance, "_git", lambda *arguments: None)
    assert name and provenance.code_provenance()["commit"] is None
    monkeypatch.setenv(name[1], "0123abc")
    assert provenance.code_provenance()["commit"] == "0123abc"
