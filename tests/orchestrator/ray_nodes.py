"""A Ray cluster on this machine whose nodes come and go, each with an address of its own.

As a program it obeys the lines of its standard input and answers each: `add CPUS` starts a node and says the number of
its raylet; the end of the input ends the cluster.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.orchestrator.runs import ROOT, Workplace, is_worker

MEMORY = {"object_store_memory": 100 * 2**20}


class Nodes:
    """A running cluster, without a node that could run anything at first."""

    def __init__(self, process: subprocess.Popen[str], errors: Path) -> None:
        self._process, self._errors = process, errors
        self.address, self.dashboard = self._answer().split()

    def add(self, cpus: int) -> int:
        """Start a node; the number of its raylet."""
        assert self._process.stdin
        self._process.stdin.write(f"add {cpus}\n")
        self._process.stdin.flush()
        return int(self._answer())

    def _answer(self) -> str:
        assert self._process.stdout
        # Ray says a few things of its own.
        for line in self._process.stdout:
            if line.startswith("> "):
                return line.removeprefix("> ").strip()
        raise AssertionError(f"the cluster has ended:\n{self._errors.read_text()}")


@contextmanager
def ray_nodes(place: Workplace) -> Iterator[Nodes]:
    """Start a cluster in a workplace."""
    environment = {**os.environ, "PYTHONPATH": f"{place.code}:{ROOT}", "RAY_TMPDIR": str(place.folder)}
    # As docs/lab-server.md has it for every node.
    environment |= {"RAY_AUTH_MODE": "token", "RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    errors = place.folder / "nodes.txt"
    with open(errors, "w") as file, subprocess.Popen(
        [sys.executable, "-m", "tests.orchestrator.ray_nodes"], cwd=place.folder, env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file,
    ) as process:  # fmt: skip
        try:
            yield Nodes(process, errors)
        finally:
            # Ray's agents whose head is gone would wait for it for a minute.
            with contextlib.suppress(psutil.NoSuchProcess):
                cut_off(process.pid)


def workers_of(place: Workplace, raylet: int) -> list[psutil.Process]:
    """The processes that train on the node of a raylet."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [process for process in psutil.Process(raylet).children() if is_worker(process)]
    return []


def cut_off(number: int) -> None:
    """End at once, as a power cut would, the process of this number and all that it started: a node, by its raylet."""
    first = psutil.Process(number)
    for process in [first, *first.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _free_port() -> int:
    """Return a port that nothing listens to: without one, a second Ray of this machine has Ray's usual port already."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def main() -> None:
    """Print the address of the cluster and of its dashboard, then obey."""
    from ray.cluster_utils import Cluster

    # Addresses of this cluster alone: the port of a head's agent is fixed, and other tests may run beside this one.
    network = f"127.{os.getpid() // 250 % 250 + 1}.{os.getpid() % 250}"
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0,
            "include_dashboard": True,
            "dashboard_port": _free_port(),
            "node_ip_address": f"{network}.2",
            **MEMORY,
        },
    )
    print(f"> {cluster.address} {cluster.webui_url}", flush=True)
    for number, line in enumerate(sys.stdin):
        # And a folder: the code that a node unpacks when it joins must not replace that of another one.
        place = {"node_ip_address": f"{network}.{3 + number}", "temp_dir": f"{os.getcwd()}/n{number}"}
        node = cluster.add_node(num_cpus=int(line.removeprefix("add ")), **place, **MEMORY)
        print(f"> {node.all_processes['raylet'][0].process.pid}", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
