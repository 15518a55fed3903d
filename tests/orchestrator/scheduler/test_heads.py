"""The head of a Ray cluster, a real GCS: one that does not take this user's key, one that dies, one that is another."""

from __future__ import annotations

import base64
import json
import os
import platform
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest

from orchestrator.scheduler import RayAway, SchedulerError
from orchestrator.scheduler.addresses import find_head, identify_cluster, read_mode_and_key, refuse_silent
from orchestrator.scheduler.cluster import ray_cluster
from orchestrator.scheduler.guards import HeadGuard
from orchestrator.scheduler.options import RunOptions
from orchestrator.scheduler.private_ray import keep_token_private
from tests.orchestrator.runs import wait_for

# Ray takes 127.0.0.1 for the machine's own address, where this GCS does not listen.
HOST = "127.0.0.2"
KEY, OTHER = "a" * 64, "b" * 64
RAY = version("ray")


@contextmanager
def gcs(folder: Path, port: int, mode: str = "token") -> Iterator[str]:
    """Start a GCS that asks for a key (or not): a head of a cluster without the rest of it; yields its address."""
    from ray._private.services import GCS_SERVER_EXECUTABLE

    options = {
        "log_dir": folder,
        "gcs_server_port": port,
        "metrics-agent-port": -1,
        "node-ip-address": HOST,
        "config_list": base64.b64encode(b"{}").decode(),
        "session-name": "session",
    }
    process = subprocess.Popen(
        [GCS_SERVER_EXECUTABLE, *(f"--{name}={value}" for name, value in options.items())],
        env={**os.environ, "RAY_AUTH_MODE": mode, "RAY_AUTH_TOKEN": KEY},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"{HOST}:{port}"

    def answers() -> bool:
        try:
            refuse_silent(address)
        except RayAway:
            return process.poll() is not None
        return True

    try:
        assert wait_for(answers) and process.poll() is None
        yield address
    finally:
        process.kill()
        process.wait()


def free_port(host: str = HOST) -> int:
    with socket.create_server((host, 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with gcs(tmp_path_factory.mktemp("gcs"), free_port()) as address:
        yield address


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """An empty home folder, in an environment that is put back as it was."""
    with patch.dict(os.environ, HOME=str(tmp_path)):
        for name in [name for name in os.environ if name.startswith("RAY_")]:
            del os.environ[name]
        yield tmp_path


def use_key() -> None:
    """Have Ray's core in this process read the head's key from the environment, as `ray_cluster` does."""
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=KEY)
    read_mode_and_key()


def refusal(address: str) -> SchedulerError:
    """Return the error with which a run on a cluster ends before it begins."""
    options = RunOptions("grid", "data", "checkpoints", Path("logs"), {}, address=address)
    with pytest.raises(SchedulerError) as caught, ray_cluster(options):
        raise AssertionError("the cluster has no node, and took a wrong key")
    return caught.value


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"RAY_AUTH_TOKEN": OTHER},
            "does not accept the key in RAY_AUTH_TOKEN; set RAY_AUTH_TOKEN to that of",
        ),
        ({}, "does not accept the key in {home}/.ray/auth_token; set RAY_AUTH_TOKEN to that of"),
        ({"HOME": "/nonexistent"}, "there is no key to the Ray cluster at {head}; set RAY_AUTH_TOKEN"),
        ({"RAY_AUTH_TOKEN_PATH": "/nonexistent"}, "RAY_AUTH_TOKEN_PATH=/nonexistent: there is no file with a key"),
        (
            {"RAY_AUTH_TOKEN": KEY, "RAY_AUTH_MODE": "disabled"},
            "asks for a key, which RAY_AUTH_MODE=disabled leaves out; unset RAY_AUTH_MODE",
        ),
    ],
    ids=["another", "another in a file", "none", "no file", "left out"],
)
def test_a_key_that_is_not_taken_is_a_mistake_in_one_sentence(
    variables: dict[str, str], message: str, head: str, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (home / ".ray").mkdir()
    (home / ".ray/auth_token").write_text(f"{OTHER}\n")
    os.environ.update(variables)
    error = refusal(head)
    assert message.format(home=home, head=head) in str(error) and "\n" not in str(error)
    assert error.exit_code == 2
    # Ray's core has written nothing itself.
    assert capfd.readouterr() == ("", "")


def test_the_key_of_the_head_is_taken(head: str, home: Path) -> None:
    os.environ["RAY_AUTH_TOKEN"] = OTHER
    assert "does not accept" in str(refusal(head))
    use_key()
    assert identify_cluster(head) == identify_cluster(head)


def test_a_private_ray_is_not_started_with_a_file_that_holds_no_key(home: Path) -> None:
    (home / "empty").write_text("\n")
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(home / "empty")
    with pytest.raises(SchedulerError, match="empty: there is no file with a key") as caught:
        keep_token_private()
    assert caught.value.exit_code == 2


def test_a_key_to_a_cluster_that_asks_for_none_is_told_before_every_trial_fails(home: Path, tmp_path: Path) -> None:
    os.environ["RAY_AUTH_TOKEN"] = KEY
    with gcs(tmp_path, free_port(), "disabled") as address:
        error = refusal(address)
        assert f"the Ray cluster at {address} asks for no key, and a run with one cannot join it" in str(error)
        assert error.exit_code == 2
        os.environ["RAY_AUTH_MODE"] = "disabled"
        read_mode_and_key()
        assert identify_cluster(address)


def test_a_cluster_without_a_node_on_this_machine_is_told_soon(head: str, home: Path, monkeypatch) -> None:
    monkeypatch.setattr("orchestrator.scheduler.addresses.NODE_SECONDS", 1.0)
    os.environ["RAY_AUTH_TOKEN"] = KEY
    error = refusal(head)
    assert f"no node of the Ray cluster at {head} is on this machine; start one here with `ray start" in str(error)
    assert error.exit_code == 75


@pytest.mark.parametrize(("ray", "python"), [("2.59.0", platform.python_version()), (RAY, "3.13.1")])
def test_a_cluster_of_another_version_is_a_mistake_in_one_sentence(ray: str, python: str, home, tmp_path: Path) -> None:
    use_key()
    from ray._raylet import GcsClient

    with gcs(tmp_path, free_port()) as address:
        metadata = json.dumps({"ray_version": ray, "python_version": python}).encode()
        GcsClient(address).internal_kv_put(b"CLUSTER_METADATA", metadata, overwrite=True, namespace=b"cluster")
        error = refusal(address)
    assert f"{address} has Ray {ray} on Python {python}, and this program Ray {RAY} on Python" in str(error)
    assert error.exit_code == 2 and "\n" not in str(error)


def test_a_head_that_listens_only_where_ray_does_not_look_is_told_at_once(home: Path, monkeypatch) -> None:
    os.environ["RAY_AUTH_TOKEN"] = KEY
    monkeypatch.setattr("ray._private.services.get_node_ip_address", lambda *_: HOST)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        error = refusal(f"127.0.0.1:{port}")
    assert f"no Ray cluster answers at {HOST}:{port}, the address that Ray takes for 127.0.0.1:{port} (" in str(error)
    assert error.exit_code == 75


@pytest.mark.parametrize("noted", [None, "", "damaged", f"{HOST}:1025"], ids=["none", "empty", "damaged", "stale"])
def test_auto_is_a_ray_that_answers(noted: str | None, head: str, home: Path, tmp_path: Path, monkeypatch) -> None:
    import ray._private.services as services

    # A private Ray of another run, which listens on 127.0.0.1 alone, and the cluster.
    seen = {"127.0.0.1:1025", head}
    monkeypatch.setattr(services, "get_node_ip_address", lambda *_: HOST)
    monkeypatch.setattr(services, "_find_address_from_flag", lambda _: seen)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    if noted is not None:
        (tmp_path / "ray/ray_current_cluster").write_text(noted)
    services.find_gcs_addresses.cache_clear()
    assert find_head("auto") == head
    seen.clear()
    services.find_gcs_addresses.cache_clear()
    with pytest.raises(RayAway) as caught:
        find_head("auto")
    tried = f" (tried {noted})" if noted and ":" in noted else ""
    assert str(caught.value).startswith(
        f"--address auto: no Ray cluster answers on this machine{tried}; start one with"
    )
    services.find_gcs_addresses.cache_clear()


@pytest.fixture
def quick(monkeypatch) -> None:
    """Make a guard of the head look often, and leave the run little time."""
    monkeypatch.setattr(HeadGuard, "orderly", 0.2)
    monkeypatch.setattr(HeadGuard, "pause", 0.1)
    monkeypatch.setattr("orchestrator.scheduler.guards.SILENT_SECONDS", 1.0)
    monkeypatch.setattr("orchestrator.scheduler.guards.ASK_SECONDS", 0.1)


def test_a_head_that_stays_away_ends_the_run_with_a_line(quick: None, home: Path, tmp_path: Path) -> None:
    use_key()
    messages: list[str] = []
    left: list[int] = []
    over = threading.Event()
    with HeadGuard("auto", messages.append, lambda code: (left.append(code), over.set())) as guard:
        with gcs(tmp_path, free_port()) as address:
            guard.watch(address, identify_cluster(address))
            assert not over.wait(2) and guard.ended() is None
        assert over.wait(60)
    assert left[0] == 75
    assert messages[0].startswith(f"error: Ray ended: the head of its cluster, {address}, is silent; what was recorded")


def test_a_head_that_is_too_busy_to_answer_is_waited_for(quick: None, monkeypatch) -> None:
    monkeypatch.setattr("orchestrator.scheduler.addresses.ANSWER_SECONDS", 0.1)
    left: list[object] = []
    with socket.create_server((HOST, 0)) as server, HeadGuard("auto", left.append, left.append) as guard:
        guard.watch(f"{HOST}:{server.getsockname()[1]}", "joined")
        time.sleep(3)
        assert guard.ended() is None
    assert left == []


def test_a_head_that_is_started_anew_ends_the_run_before_ray_does(quick: None, home: Path, tmp_path: Path) -> None:
    use_key()
    port = free_port()
    messages: list[str] = []
    left: list[int] = []
    over = threading.Event()
    with HeadGuard("auto", messages.append, lambda code: (left.append(code), over.set())) as guard:
        guard.orderly = 600.0
        with gcs(tmp_path, port) as address:
            guard.watch(address, identify_cluster(address))
        # Sooner than a silence is too long.
        with gcs(tmp_path, port) as address:
            assert over.wait(60)
    assert left[0] == 75
    assert messages[0] == (
        f"error: Ray ended: its cluster at {address} was started anew during the run; what was recorded stays, and the "
        "same command goes on from there"
    )


def test_a_look_that_fails_is_told_once_and_not_the_last(quick: None, monkeypatch) -> None:
    looks: list[str] = []

    def fail(address: str) -> bool:
        looks.append(address)
        raise ValueError("no such thing")

    monkeypatch.setattr("orchestrator.scheduler.guards.listens", fail)
    messages_and_codes: list[object] = []
    with HeadGuard("auto", messages_and_codes.append, messages_and_codes.append) as guard:
        guard.watch("a:1", "joined")
        assert wait_for(lambda: len(looks) > 2)
    assert messages_and_codes == ["warning: could not look after Ray, and will try again: ValueError: no such thing"]


def test_a_run_on_a_cluster_watches_its_head(quick: None, home: Path, tmp_path: Path, monkeypatch) -> None:
    """A GCS has no node that could be joined: all of joining but that is real."""
    os.environ["RAY_AUTH_TOKEN"] = KEY
    monkeypatch.setattr("orchestrator.scheduler.guards.refuse_apart", lambda _: None)
    monkeypatch.setattr("ray.init", lambda **_: SimpleNamespace(dashboard_url=None))
    monkeypatch.setattr("orchestrator.scheduler.cluster._living_nodes", lambda: [])
    monkeypatch.setattr(HeadGuard, "orderly", 600.0)
    with ExitStack() as heads:
        options = RunOptions(
            "g", "data", "c", Path("logs"), {}, address=heads.enter_context(gcs(tmp_path, free_port()))
        )
        with ray_cluster(options) as cluster:
            assert cluster.ended() is None
            heads.close()
            assert wait_for(cluster.ended) and "is silent" in str(cluster.ended())
