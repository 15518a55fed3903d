"""The Ray that a run gets: addresses, the key, the folder of the sockets, and processors."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path
from unittest.mock import patch

import pytest

from orchestrator.scheduler import RayAway, SchedulerError, cluster_address, run_options
from orchestrator.scheduler.addresses import refuse_silent
from orchestrator.scheduler.cluster import ray_cluster
from orchestrator.scheduler.private_ray import (
    SOCKET_BYTES,
    have_home,
    keep_token_private,
    not_started,
    session_folder,
)
from orchestrator.timing import processors


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_TMPDIR", "TMPDIR", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)


# Addresses


@pytest.mark.parametrize("given", [None, "", "  ", "local", "LOCAL", " local "])
def test_every_address_that_starts_a_ray_is_none(given: str | None) -> None:
    assert cluster_address(given) is None
    # Before anything asks whether the run is on a cluster.
    assert run_options("grid", "results.db", "data", given).address is None


@pytest.mark.parametrize(
    "address", ["auto", "first:6379", "10.0.0.1:6379", "[::1]:6379", "[fe80::1%eth0]:6379", "a-b.c:6379"]
)
def test_addresses_of_clusters(address: str) -> None:
    assert cluster_address(address) == address


@pytest.mark.parametrize(("around", "meant"), [("", "auto"), ("local", "auto"), ("auto", "auto"), ("h:6379", "h:6379")])
def test_auto_is_the_cluster_of_the_job_and_never_a_private_ray(around: str, meant: str, monkeypatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", around)
    assert cluster_address("auto") == meant


@pytest.mark.parametrize(
    ("given", "meant"), [(None, "first:6379"), ("other:6379", "other:6379"), ("local", None), ("auto", "first:6379")]
)
def test_the_address_of_the_environment_counts_where_no_other_is_given(given, meant: str | None, monkeypatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "first:6379")
    assert run_options("grid", "results.db", "data", given).address == meant


def test_a_private_ray_is_private_whatever_the_environment_says(monkeypatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1024")
    options = run_options("grid", "results.db", "data", "local")
    starts: list[object] = []

    def start(head: object, *_: object) -> None:
        starts.append(head)
        raise SchedulerError("far enough")

    monkeypatch.setattr("orchestrator.scheduler.cluster._start_ray", start)
    # The preparation of a Ray changes the environment.
    with patch.dict(os.environ), pytest.raises(SchedulerError, match="far enough"), ray_cluster(options):
        pass
    assert starts == [None]


@pytest.mark.parametrize(("address", "own"), [("local", True), ("first:6379", False)])
def test_only_a_private_ray_is_on_the_loopback_interface_whenever_ray_was_imported(address, own, monkeypatch) -> None:
    from ray._private import ray_constants, services

    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", own)
    taken: list[tuple[bool, str]] = []

    def start(*_: object) -> None:
        taken.append((services.get_node_ip_address() == "127.0.0.1", os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"]))
        raise SchedulerError("far enough")

    monkeypatch.setattr("orchestrator.scheduler.cluster._start_ray", start)
    monkeypatch.setattr(services, "node_ip_address_from_perspective", lambda *_: "10.0.0.1", raising=False)
    options = run_options("grid", "results.db", "data", address)
    with patch.dict(os.environ), pytest.raises(SchedulerError, match="far enough"), ray_cluster(options):
        pass
    assert taken == [(own, "0" if own else "1")]


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("ray://head:10001", "`ray job submit`"),
        ("http://127.0.0.1:8265", "not through a URL"),
        ("head", "such as head:6379"),
        ("::1", "such as [::1]:6379"),
        ("::1:6379", "give host:port"),
        ("head:", "give host:port"),
        ("head:port", "give host:port"),
        (":6379", "give host:port"),
        ("head:80", "80 is no port of a Ray"),
        ("head:99999", "99999 is no port of a Ray"),
        ("a b:6379", "give host:port"),
    ],
)
def test_what_is_no_address_is_told_at_once(address: str, words: str) -> None:
    with pytest.raises(SchedulerError) as caught:
        cluster_address(address)
    assert words in str(caught.value) and caught.value.exit_code == 2


def test_a_port_where_no_ray_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        def greet() -> None:
            connection, _ = taken.accept()
            with connection:
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                connection.recv(100)

        threading.Thread(target=greet, daemon=True).start()
        with pytest.raises(RayAway, match="something else has that port"):
            refuse_silent(f"127.0.0.1:{port}")
    with pytest.raises(RayAway, match=r"Connection refused\); start one there") as caught:
        refuse_silent(f"127.0.0.1:{port}")
    assert caught.value.exit_code == 75
    with pytest.raises(RayAway, match=r"no Ray cluster answers at no\.such\.host\.invalid:6379"):
        refuse_silent("no.such.host.invalid:6379")
    with pytest.raises(RayAway, match="no Ray cluster answers at xxx"):
        refuse_silent(f"{'x' * 300}:6379")


def test_a_server_of_http_2_is_let_through() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def settle() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                connection.sendall(bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))

        threading.Thread(target=settle, daemon=True).start()
        refuse_silent(f"127.0.0.1:{server.getsockname()[1]}")


# Key and folder


@pytest.mark.parametrize("before", [None, "", "old"])
def test_the_key_is_for_this_user_alone(before: str | None, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / ".ray/auth_token"
    if before is not None:
        path.parent.mkdir()
        path.write_text(before)
        path.chmod(0o644)
    keep_token_private()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    # A run that was killed between making and writing it would leave an empty one, which Ray refuses.
    assert path.read_text() == before if before else len(path.read_text()) == 64
    assert "RAY_AUTH_TOKEN" not in os.environ


@pytest.mark.parametrize("home", ["/proc/nowhere", "/dev/null"])
def test_a_home_that_cannot_be_written_has_a_run_with_a_key_of_its_own(home: str, monkeypatch) -> None:
    monkeypatch.setenv("HOME", home)
    # `monkeypatch` puts back only what it has set.
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")
    keep_token_private()
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64


@pytest.mark.parametrize("home", [None, ""])
def test_a_user_without_an_entry_and_a_home_has_both(home: str | None, monkeypatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")
    monkeypatch.setenv("HOME", home or "")
    if home is None:
        monkeypatch.delenv("HOME")

    def nobody(number: int) -> None:
        raise KeyError(number)

    monkeypatch.setattr("pwd.getpwuid", nobody)
    have_home()
    assert Path.home().is_dir() and len(os.environ["RAY_AUTH_TOKEN"]) == 64
    assert not Path(os.environ["HOME"], ".ray").exists()


def test_a_long_tmpdir_is_passed_over_and_a_long_ray_tmpdir_is_told(tmp_path: Path, monkeypatch) -> None:
    deep = tmp_path / ("x" * 94)
    deep.mkdir()
    monkeypatch.setenv("TMPDIR", str(deep))
    assert session_folder() in ("/tmp/ray", f"/tmp/ray-{os.getuid()}")
    monkeypatch.setenv("RAY_TMPDIR", str(deep))
    with pytest.raises(SchedulerError, match="export RAY_TMPDIR=/tmp") as caught:
        session_folder()
    assert caught.value.exit_code == 2


def test_the_folder_fits_the_longest_socket_exactly() -> None:
    from orchestrator.scheduler.private_ray import _LONGEST, _fits

    longest = "/" + "x" * (SOCKET_BYTES - len(_LONGEST) - 1)
    assert _fits(Path(longest)) and not _fits(Path(longest + "x"))
    assert not _fits(Path(longest[:-1] + "é"))


def test_what_another_user_has_there_is_passed_over(monkeypatch) -> None:
    import tempfile

    with tempfile.TemporaryDirectory(dir="/tmp") as base:
        # Neither root nor anybody else can make files in it.
        Path(base, "ray").write_text("another user's")
        monkeypatch.setenv("RAY_TMPDIR", base)
        assert session_folder() == f"{base}/ray-{os.getuid()}"
        Path(base, f"ray-{os.getuid()}").rmdir()
        Path(base, f"ray-{os.getuid()}").touch()
        with pytest.raises(SchedulerError, match="export RAY_TMPDIR=/path"):
            session_folder()


@pytest.mark.parametrize(
    ("error", "code"), [(PermissionError(13, "no"), 2), (OSError(28, "full"), 75), (RuntimeError("?"), 75)]
)
def test_every_failure_of_rays_own_start_says_what_to_do(error: Exception, code: int) -> None:
    failure = not_started(error)
    assert failure.exit_code == code and "RAY_TMPDIR" in str(failure) and str(failure).startswith("Ray did not start: ")


# Processors


def machine(root: Path, files: dict[str, str], allowed: str = "0-7", online: int = 8) -> Path:
    files = {
        "proc/stat": "cpu  1\n" + "".join(f"cpu{number} 1 1\n" for number in range(online)),
        "proc/9/status": f"Cpus_allowed_list:\t{allowed}\n",
        "proc/9/cgroup": "0::/\n",
    } | files
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "allowed", "count"),
    [
        ({}, "0-7", 8),
        ({}, "2", 1),
        ({}, "1,4-5", 3),
        # The kernel allows processors that are not there.
        ({}, "0-127", 8),
        # Version 2: in a container, in a group, above it; beside version 1; none.
        ({"sys/fs/cgroup/cpu.max": "400000 100000\n"}, "0-7", 4),
        ({"proc/9/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "250000 100000\n"}, "0-7", 2),
        (
            {"proc/9/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "50000 100000\n", "sys/fs/cgroup/a/b/x": ""},
            "0-7",
            1,
        ),
        ({"proc/9/cgroup": "0::/a\n", "sys/fs/cgroup/unified/a/cpu.max": "300000 100000\n"}, "0-7", 3),
        ({"sys/fs/cgroup/cpu.max": "max 100000\n"}, "0-5", 6),
        # Version 1.
        (
            {
                "proc/9/cgroup": "3:cpu,cpuacct:/docker/abc\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "200000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            "0-7",
            2,
        ),
        (
            {
                "proc/9/cgroup": "3:cpu,cpuacct:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            "0-3",
            4,
        ),
        # The smaller of both.
        ({"sys/fs/cgroup/cpu.max": "400000 100000\n"}, "0-1", 2),
    ],
)
def test_processors_that_affinity_and_control_groups_leave(files, allowed: str, count: int, tmp_path: Path) -> None:
    assert processors(machine(tmp_path, files, allowed), 9) == count


def test_processors_of_this_process() -> None:
    code = "from orchestrator.timing.procfs import processors; print(processors())"
    command = ["taskset", "-c", str(min(os.sched_getaffinity(0))), sys.executable, "-c", code]
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3])
    except FileNotFoundError:
        pytest.skip("there is no taskset")
    assert done.stdout == "1\n", done.stderr
