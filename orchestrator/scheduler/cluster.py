"""Ray itself: a private one on this machine, or a cluster; what it offers, how it ends, and the signals that end it."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partialmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from orchestrator.provenance import ROOT
from orchestrator.scheduler.addresses import RayAway, SchedulerError, cluster_address, refuse_silent
from orchestrator.scheduler.options import RunOptions
from orchestrator.scheduler.private_ray import Guard, have_home, keep_token_private, not_started, session_folder
from orchestrator.scheduler.signals import Interrupted, handled_signals, received, remember
from orchestrator.text import counted
from orchestrator.timing import device_facts, processors

if TYPE_CHECKING:
    from orchestrator.grid import Resources, Trial

ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    # The older console of Tune is the one that `verbose=0` silences.
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # The state of all trials, which Tune writes again and again, is never read back.
    "TUNE_GLOBAL_CHECKPOINT_S": "inf",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # Workers run at nice 15 otherwise, and any other process on the host would slow a timed epoch down.
    "RAY_worker_niceness": "0",
    # Without it a trial that asked for no GPU sees them all.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    # CUDA numbers the fastest GPU first otherwise, and everything else goes by the bus: nvidia-smi, NVML and Ray.
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    # Started as a Ray job, this driver has a working directory of its own to give to its workers.
    "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1",
}
# Binds every port of a local Ray to the loopback interface; on a cluster the nodes must reach each other.
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}

OBJECT_STORE_BYTES = 200 * 2**20


class RayEnded(RayAway):
    """A process of the private Ray ended while trials ran; what was recorded stays."""


@dataclass(frozen=True)
class Cluster:
    nodes: list[dict[str, float]]
    dashboard_url: str | None
    private: bool = True
    # That of a private Ray.
    guard: Guard | None = None

    def ended(self) -> str | None:
        """Return what to say when a process of the private Ray has ended."""
        return self.guard.ended() if self.guard else None

    def refuse_infeasible(self, shapes: dict[Resources, list[Trial]]) -> None:
        """Tune would wait for ever for resources that no node has."""
        for shape, members in shapes.items():
            if self._fits(shape):
                continue
            have = "; ".join(_amounts(node.get("CPU", 0), node.get("GPU", 0)) for node in self.nodes)
            where = "or run where such a node is (--address)"
            if not self.private:
                where = (
                    "or give --wait-for-nodes where such a node will join (an autoscaler starts one when it is asked)"
                )
            raise SchedulerError(
                f"{members[0].name} ({len(members)} such in all) asks for {_asked(shape)}, "
                f"but no node has that much (nodes: {have or 'none'}); "
                f"change `resources` in the grid file, {where}"
            )

    def awaited(self, shapes: dict[Resources, list[Trial]]) -> list[str]:
        """A line for every request that no node can meet yet."""
        return [
            f"waiting for a node with {_asked(shape)}: {counted(len(members), 'trial')}"
            for shape, members in shapes.items()
            if not self._fits(shape)
        ]

    def _fits(self, shape: Resources) -> bool:
        return sum(_places(node, shape) for node in self.nodes) >= shape.processes

    def device_model(self, gpu: bool) -> str | None:
        """The model of the device that trials will get; None where only the cluster knows."""
        return device_facts("cuda:0" if gpu else "cpu")["name"] if self.private else None

    def whole_gpu(self, shape: Resources) -> Resources:
        """The shape that shares its GPU, if it has one, with nobody."""
        return replace(shape, gpu=max(1.0, shape.gpu)) if shape.gpu else shape

    def whole_device(self, shape: Resources) -> Resources:
        """The shape that leaves no room for another trial beside it."""
        if shape.gpu:
            return self.whole_gpu(shape)
        return replace(shape, cpu=max([shape.cpu, *(node.get("CPU", 0) // shape.processes for node in self.nodes)]))


def _places(node: dict[str, float], shape: Resources) -> int:
    """How many processes of this shape a node has room for."""
    asked = {"CPU": shape.cpu, "GPU": shape.gpu}
    return min(int(node.get(kind, 0) / amount) for kind, amount in asked.items() if amount)


def _asked(shape: Resources) -> str:
    each = _amounts(shape.cpu, shape.gpu or 0)
    return f"{shape.processes} processes with {each} each" if shape.processes > 1 else each


def _amounts(cpus: float, gpus: float) -> str:
    return f"{counted(cpus, 'CPU')} and {counted(gpus, 'GPU')}"


@contextlib.contextmanager
def _code() -> Iterator[str]:
    """A folder with a copy of the code as it is now.

    Workers run it: an edit during a long run changes no trial, and the nodes of a cluster need no installation. As
    their working directory it comes before everything else, also before the folder in which the driver was started.
    """
    with tempfile.TemporaryDirectory(prefix="orchestrate-code-") as folder:
        for package in ("trainer", "orchestrator"):
            shutil.copytree(ROOT / package, Path(folder) / package, ignore=shutil.ignore_patterns("__pycache__"))
        yield folder


@contextlib.contextmanager
def ray_cluster(options: RunOptions) -> Iterator[Cluster]:
    """A Ray to run on: a private one on this machine, or the cluster at `options.address`.

    Until the end of the context, SIGINT, SIGTERM and SIGHUP are noted (`stop_signal`) instead of ending the process.

    Raises:
        SchedulerError: Ray does not start, or no cluster answers.
        Interrupted: a signal arrived while it started.
    """
    os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})
    have_home()
    address = cluster_address(options.address or os.environ.get("RAY_ADDRESS"))
    # Ray would heed it where it finds no other, and it may say `local`.
    os.environ.pop("RAY_ADDRESS", None)
    local: dict[str, Any] = {}
    guard = None if address else Guard()
    if address:
        # Each takes Ray 40 s; there are 20 otherwise.
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "2")
    else:
        os.environ.update(LOOPBACK)
        keep_token_private()
        local = {
            "object_store_memory": OBJECT_STORE_BYTES,
            "include_dashboard": options.dashboard,
            # Ray's own count is that of the machine, whatever part of it is ours.
            "num_cpus": processors(),
            "_temp_dir": session_folder(),
        }
    import ray
    from ray import tune  # noqa: F401  (its loggers exist from here on)
    from ray._private.parameter import RayParams

    # Its port is a fixed one otherwise, and beside another Ray on the machine the dashboard would open no log.
    with_free_port = partialmethod(RayParams.__init__, dashboard_agent_listen_port=0)
    setattr(RayParams, "__init__", with_free_port)  # noqa: B010

    # Ray says that a worker died on standard output, whatever it is told; the audience hears it from the recorder.
    ray._private.worker.print_to_stdstream = lambda *_, **__: None
    started: list[psutil.Process] = []
    with handled_signals() as numbers, guard or contextlib.nullcontext():
        try:
            context = _start_ray(address, local)
            # From here on a signal is noted, and heeded between two steps. (Ray has installed handlers of its own.)
            for number in numbers:
                signal.signal(number, remember)
            for logger in ("ray.tune", "ray.train", "ray.air"):
                logging.getLogger(logger).setLevel(logging.CRITICAL)
            url = f"http://{context.dashboard_url}" if context.dashboard_url else None
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            started = guard.started() if guard else []
            yield Cluster(nodes, url, private=not address, guard=guard)
        finally:
            ray.shutdown()
            # Where one of Ray's own processes was killed, others notice it only after minutes.
            for process in started:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()


def _start_ray(address: str | None, local: dict[str, Any]) -> Any:
    import ray

    environment = {}
    if not address:
        # A shell reads it: Ray does not quote the path of a virtual environment that has a space in it.
        environment["py_executable"] = shlex.quote(sys.executable)
    try:
        if address == "auto":
            address = _own_ray()
        if address:
            refuse_silent(address)
        with _code() as code:
            return ray.init(
                address=address or "local",
                runtime_env={"working_dir": code, **environment},
                logging_level=logging.ERROR,
                log_to_driver=False,
                **local,
            )
    except KeyboardInterrupt:
        raise Interrupted(received[0]) from None
    except SystemExit:
        # What Ray makes of a SIGTERM while it starts.
        raise Interrupted(signal.SIGTERM) from None
    except SchedulerError:
        raise
    except Exception as error:
        # A hang-up ends Ray's processes as well.
        if received:
            raise Interrupted(received[0]) from None
        raise (_not_joined(address, error) if address else not_started(error)) from error


def _own_ray() -> str:
    """The address of the Ray that was started on this machine."""
    from ray._private.services import canonicalize_bootstrap_address

    try:
        address = canonicalize_bootstrap_address("auto")
    except ConnectionError:
        address = None
    if not address:
        raise RayAway(
            "--address auto: no Ray runs on this machine; start one with `ray start --head`, or leave --address out "
            "for a private Ray"
        )
    return address


def _not_joined(address: str, error: Exception) -> SchedulerError:
    said = " ".join(str(error).split())[:500] or type(error).__name__
    if "uthenticat" in said or "token" in said.lower():
        return SchedulerError(
            f"the Ray cluster at {address} does not accept this user's key ({said}); set RAY_AUTH_TOKEN, or "
            "RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token, to that of its head (`ray get-auth-token` prints it there)"
        )
    return RayAway(f"Ray did not start at {address}: {said}")
