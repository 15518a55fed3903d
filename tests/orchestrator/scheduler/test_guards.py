"""A private Ray that dies, and one that is shut down: what its guard does."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from types import SimpleNamespace
from unittest.mock import patch

from orchestrator.scheduler import run_options
from orchestrator.scheduler.cluster import ray_cluster
from orchestrator.scheduler.guards import PrivateGuard
from tests.orchestrator.runs import wait_for


def test_a_vital_process_that_ends_ends_the_run_with_a_line(monkeypatch) -> None:
    monkeypatch.setattr(PrivateGuard, "orderly", 0.2)
    monkeypatch.setattr("orchestrator.scheduler.guards.VITAL", ("sleep",))
    lines: list[str] = []
    left: list[int] = []
    over = threading.Event()
    older = subprocess.Popen(["sleep", "100"])
    with PrivateGuard(lines.append, lambda code: (left.append(code), over.set())) as guard:
        child = subprocess.Popen(["sleep", "100"])
        deadline = time.monotonic() + 60
        while not guard._vital and time.monotonic() < deadline:
            time.sleep(0.05)
        assert guard.ended() is None
        child.kill()
        assert over.wait(60)
        child.wait()
    # What this process had before, as the resource tracker of `multiprocessing`, is no part of Ray.
    assert older.poll() is None
    older.kill()
    older.wait()
    assert left[0] == 75 and lines[0].startswith(f"error: Ray ended: its process {child.pid} was killed or crashed")


def test_a_shutdown_that_takes_long_is_not_the_death_of_ray(monkeypatch) -> None:
    monkeypatch.setattr("orchestrator.scheduler.guards.VITAL", ("sleep",))
    monkeypatch.setattr(PrivateGuard, "orderly", 0.2)
    monkeypatch.setattr(PrivateGuard, "pause", 0.05)
    left: list[object] = []
    guard = PrivateGuard(left.append, left.append)
    children: list[subprocess.Popen[bytes]] = []

    def start(*_: object) -> SimpleNamespace:
        children.append(subprocess.Popen(["sleep", "100"]))
        return SimpleNamespace(dashboard_url=None)

    def shut_down() -> None:
        children[0].kill()
        children[0].wait()
        time.sleep(1.5)

    monkeypatch.setattr("orchestrator.scheduler.cluster.PrivateGuard", lambda: guard)
    monkeypatch.setattr("orchestrator.scheduler.cluster._start_ray", start)
    monkeypatch.setattr("orchestrator.scheduler.cluster._living_nodes", lambda: [])
    monkeypatch.setattr("ray.shutdown", shut_down)
    with patch.dict(os.environ), ray_cluster(run_options("grid", "results.db", "data", "local")):
        assert wait_for(lambda: guard._vital)
    assert left == []


def test_a_run_that_ends_in_time_is_left_alone(monkeypatch) -> None:
    monkeypatch.setattr("orchestrator.scheduler.guards.VITAL", ("sleep",))
    left: list[int] = []
    with PrivateGuard(left.append, left.append) as guard:
        child = subprocess.Popen(["sleep", "100"])
        deadline = time.monotonic() + 60
        while not guard._vital and time.monotonic() < deadline:
            time.sleep(0.05)
        child.kill()
        child.wait()
        assert "Ray ended" in (guard.ended() or "")
    time.sleep(0.7)
    assert left == []
