"""The key to a Ray cluster: what is said where a real GCS, which is what asks for it, does not take this user's."""

from __future__ import annotations

import base64
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from orchestrator.scheduler import RayAway, SchedulerError
from orchestrator.scheduler.addresses import refuse_locked, refuse_silent
from orchestrator.scheduler.cluster import ray_cluster
from orchestrator.scheduler.options import RunOptions
from orchestrator.scheduler.private_ray import keep_token_private
from tests.orchestrator.runs import wait_for

# Ray takes 127.0.0.1 for the machine's own address, where this GCS does not listen.
HOST = "127.0.0.2"
KEY, OTHER = "a" * 64, "b" * 64


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a GCS that asks for a key: a head of a cluster without the rest of it."""
    from ray._private.services import GCS_SERVER_EXECUTABLE

    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    options = {
        "log_dir": tmp_path_factory.mktemp("gcs"),
        "gcs_server_port": port,
        "metrics-agent-port": -1,
        "node-ip-address": HOST,
        "config_list": base64.b64encode(b"{}").decode(),
        "session-name": "session",
    }
    process = subprocess.Popen(
        [GCS_SERVER_EXECUTABLE, *(f"--{name}={value}" for name, value in options.items())],
        env={**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": KEY},
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


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """An empty home folder, in an environment that is put back as it was."""
    with patch.dict(os.environ, HOME=str(tmp_path)):
        for name in [name for name in os.environ if name.startswith("RAY_")]:
            del os.environ[name]
        yield tmp_path


def refusal(address: str) -> SchedulerError:
    """Return the error with which a run on a cluster ends before it begins."""
    options = RunOptions("grid", "data", "checkpoints", Path("logs"), {}, address=address)
    with pytest.raises(SchedulerError) as caught, ray_cluster(options):
        raise AssertionError("the cluster has no node, and took a wrong key")
    return caught.value


@pytest.mark.parametrize(
    ("variables", "said"),
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
    variables: dict[str, str], said: str, head: str, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (home / ".ray").mkdir()
    (home / ".ray/auth_token").write_text(f"{OTHER}\n")
    os.environ.update(variables)
    error = refusal(head)
    assert said.format(home=home, head=head) in str(error) and "\n" not in str(error)
    assert error.exit_code == 2
    # Ray's core has written nothing itself.
    assert capfd.readouterr() == ("", "")


def test_the_key_of_the_head_is_taken(head: str, home: Path) -> None:
    os.environ["RAY_AUTH_TOKEN"] = OTHER
    assert "does not accept" in str(refusal(head))
    os.environ["RAY_AUTH_TOKEN"] = KEY
    from ray._raylet import AuthenticationTokenLoader

    AuthenticationTokenLoader.instance().reset_cache()
    refuse_locked(head)


def test_a_private_ray_is_not_started_with_a_file_that_holds_no_key(home: Path) -> None:
    (home / "empty").write_text("\n")
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(home / "empty")
    with pytest.raises(SchedulerError, match="empty: there is no file with a key") as caught:
        keep_token_private()
    assert caught.value.exit_code == 2
