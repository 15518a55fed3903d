"""Start a private Ray on this machine or join a cluster, ask what it offers, and shut it down."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partialmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from orchestrator.planning import amounts, asked, unfit
from orchestrator.provenance import ROOT
from orchestrator.scheduler.addresses import RayAway, SchedulerError, read_mode_and_key
from orchestrator.scheduler.guards import Guard, HeadGuard, PrivateGuard
from orchestrator.scheduler.options import RunOptions
from orchestrator.scheduler.private_ray import have_home, keep_token_private, not_started, session_folder
from orchestrator.scheduler.signals import Interrupted, handled_signals, received, remember, stop_signal
from orchestrator.text import counted
from orchestrator.timing import device_facts, processors
from trainer.plugin_files import Plugin
from trainer.plugins import stage
from trainer.registry import PartError

if TYPE_CHECKING:
    from orchestrator.grid import Resources, Trial

ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    # `verbose=0` silences only Tune's older console.
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Tune writes the state of all trials again and again; it is never read back.
    "TUNE_GLOBAL_CHECKPOINT_S": "inf",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # Ray's default is nice 15: any other process on the host would slow a timed epoch down.
    "RAY_worker_niceness": "0",
    # Otherwise a trial that asked for no GPU sees all of them.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    # CUDA's default numbers the fastest GPU first; nvidia-smi, NVML and Ray go by the bus.
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    # A driver started as a Ray job must give its own working directory to its workers.
    "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1",
    # Ray starts a Python process per processor in advance, and none has the environment that our trials ask for.
    "RAY_prestart_worker_first_driver": "0",
    "RAY_enable_worker_prestart": "0",
}
# "0" binds every port of a local Ray to the loopback interface; on a cluster the nodes must reach each other.
LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"

OBJECT_STORE_BYTES = 200 * 2**20


class RayEnded(RayAway):
    """A process of the private Ray, or the head of the cluster, ended while trials ran; recorded epochs stay."""


@dataclass(frozen=True)
class Cluster:
    nodes: list[dict[str, float]]
    dashboard_url: str | None
    private: bool = True
    # Watches the processes of a private Ray, or the head of a cluster.
    guard: Guard | None = None

    def dashboards(self) -> dict[str, str]:
        """Return the addresses of Ray's dashboard and of the Grafana that it shows boards of, as far as there are."""
        grafana = os.environ.get("RAY_GRAFANA_IFRAME_HOST") or os.environ.get("RAY_GRAFANA_HOST")
        return {name: url for name, url in (("ray", self.dashboard_url), ("grafana", grafana)) if url}

    def ended(self) -> str | None:
        """Return the error message once Ray has ended."""
        return self.guard.ended() if self.guard else None

    def refuse_infeasible(self, trials: Sequence[Trial]) -> None:
        """Raise SchedulerError for resources that no node has: Tune would wait for ever."""
        for shape, members in unfit(self.nodes, trials).items():
            have = "; ".join(amounts(node.get("CPU", 0), node.get("GPU", 0)) for node in self.nodes)
            where = "or run where such a node is (--address)"
            if not self.private:
                where = (
                    "or give --wait-for-nodes where such a node will join (an autoscaler starts one when it is asked)"
                )
            raise SchedulerError(
                f"{members[0].name} ({len(members)} such in all) asks for {asked(shape)}, "
                f"but no node has that much (nodes: {have or 'none'}); "
                f"change `resources` in the grid file, {where}"
            )

    def awaited(self, trials: Sequence[Trial]) -> list[str]:
        """Return a line for every request that no node can meet yet."""
        return [
            f"waiting for a node with {asked(shape)}: {counted(len(members), 'trial')}"
            for shape, members in unfit(self.nodes, trials).items()
        ]

    def device_model(self, gpu: bool) -> str | None:
        """Return the model of the device that trials will get; None where only the cluster can tell."""
        return device_facts("cuda:0" if gpu else "cpu")["name"] if self.private else None

    def whole_gpu(self, shape: Resources) -> Resources:
        """Return the shape with a whole GPU, if it uses one."""
        return replace(shape, gpu=max(1.0, shape.gpu)) if shape.gpu else shape

    def whole_device(self, shape: Resources) -> Resources:
        """Return the shape that leaves no room for another trial on the device."""
        if shape.gpu:
            return self.whole_gpu(shape)
        return replace(shape, cpu=max([shape.cpu, *(node.get("CPU", 0) // shape.processes for node in self.nodes)]))


@contextlib.contextmanager
def _code(plugins: Iterable[Plugin]) -> Iterator[str]:
    """Yield a folder with a copy of the code as it is now, and of the plug-ins as they were loaded.

    Workers run the copy: an edit during a long run changes no trial, and the nodes of a cluster need no installation.
    As the workers' working directory it comes before everything else, also before the driver's folder.
    """
    with tempfile.TemporaryDirectory(prefix="orchestrate-code-") as folder:
        for package in ("trainer", "orchestrator"):
            shutil.copytree(ROOT / package, Path(folder) / package, ignore=shutil.ignore_patterns("__pycache__"))
        stage(plugins, Path(folder) / "plugins")
        yield folder


class _Keeper:
    """Hold the Ray of `keep_ray`, there being one in a process: its context, and the cluster once Ray has started."""

    def __init__(self) -> None:
        self.stack = contextlib.ExitStack()
        self.cluster: Cluster | None = None

    def close(self) -> None:
        """End the Ray, if there is one; another may be started in its place."""
        self.cluster = None
        self.stack.close()


_keeper: _Keeper | None = None


@contextlib.contextmanager
def keep_ray() -> Iterator[None]:
    """Keep the first Ray that `ray_cluster` starts within the context running until its end, for all that follow.

    Contexts within it change nothing. Signals are noted all the time, see `ray_cluster`.
    """
    global _keeper
    if _keeper is not None:
        yield
        return
    _keeper = _Keeper()
    try:
        yield
    finally:
        try:
            _keeper.close()
        finally:
            _keeper = None


@contextlib.contextmanager
def ray_cluster(options: RunOptions) -> Iterator[Cluster]:
    """Yield a Ray to run on, one that is kept (`keep_ray`) or one of its own; see `_ray_cluster`."""
    if _keeper is None:
        with _ray_cluster(options) as cluster:
            yield cluster
        return
    if _keeper.cluster is not None and _keeper.cluster.ended():
        _keeper.close()
    try:
        if _keeper.cluster is None:
            _keeper.cluster = _keeper.stack.enter_context(_ray_cluster(options))
        elif number := stop_signal():
            raise Interrupted(number)
        else:
            # A node may have joined or left since.
            _keeper.cluster = replace(_keeper.cluster, nodes=_living_nodes())
        yield _keeper.cluster
    except BaseException:
        # Here, because the trials of a run that ends are given back only when nothing trains them any more.
        _keeper.close()
        raise


@contextlib.contextmanager
def _ray_cluster(options: RunOptions) -> Iterator[Cluster]:
    """Yield a private Ray on this machine, or the cluster at `options.address`.

    Until the end of the context, SIGINT, SIGTERM and SIGHUP are noted (`stop_signal`) instead of ending the process.

    Raises:
        SchedulerError: Ray does not start, or no cluster answers.
        Interrupted: a signal arrived while Ray started.
    """
    os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})
    have_home()
    address = options.address
    # Ray would put it in the place of `auto` and of `local`.
    os.environ.pop("RAY_ADDRESS", None)
    local: dict[str, Any] = {}
    head = HeadGuard(address) if address else None
    guard = head or PrivateGuard()
    os.environ[LOOPBACK] = "1" if address else "0"
    if address:
        # A connection attempt takes Ray 40 s, and its default is 20 attempts.
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "2")
    else:
        keep_token_private()
        local = {
            "object_store_memory": OBJECT_STORE_BYTES,
            "include_dashboard": options.dashboard,
            # Ray would count all processors of the machine, also those that this process may not use.
            "num_cpus": processors(),
            "_temp_dir": session_folder(),
        }
    import ray
    from ray import tune  # noqa: F401  (creates Tune's loggers)
    from ray._private import ray_constants
    from ray._private.parameter import RayParams

    # A notebook may have imported Ray before, and Ray looks at the environment when it is imported.
    read_mode_and_key()
    ray_constants.ENABLE_RAY_CLUSTER = bool(address)

    # The default port is fixed: beside another Ray on the machine the dashboard would open no log.
    with_free_port = partialmethod(RayParams.__init__, dashboard_agent_listen_port=0)
    setattr(RayParams, "__init__", with_free_port)  # noqa: B010

    # Ray prints to standard output that a worker died, whatever its options; the recorder tells the observer.
    ray._private.worker.print_to_stdstream = lambda *_, **__: None
    started: list[psutil.Process] = []
    with handled_signals() as numbers, guard:
        try:
            context = _start_ray(head, local, options.plugins)
            # From here on a signal is noted, and handled between two steps. (Ray has installed handlers of its own.)
            for number in numbers:
                signal.signal(number, remember)
            for logger in ("ray.tune", "ray.train", "ray.air"):
                logging.getLogger(logger).setLevel(logging.CRITICAL)
            url = f"http://{context.dashboard_url}" if context.dashboard_url else None
            nodes = _living_nodes()
            started = guard.started()
            yield Cluster(nodes, url, private=not address, guard=guard)
        finally:
            if head is None:
                # The shutdown ends the processes that are watched, and takes long on a busy machine.
                guard.stop()
            ray.shutdown()
            # When one of Ray's processes was killed, the others notice it only after minutes.
            for process in started:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()


def _living_nodes() -> list[dict[str, float]]:
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _start_ray(head: HeadGuard | None, local: dict[str, Any], plugins: Iterable[Plugin]) -> Any:
    import ray

    environment = {}
    if head is None:
        # Ray does not quote the path for the shell: a virtual environment's path may contain a space.
        environment["py_executable"] = shlex.quote(sys.executable)
    try:
        address = head.join() if head else "local"
        with _code(plugins) as code:
            return ray.init(
                address=address,
                runtime_env={"working_dir": code, **environment},
                logging_level=logging.ERROR,
                log_to_driver=False,
                **local,
            )
    except KeyboardInterrupt:
        raise Interrupted(received[0]) from None
    except SystemExit:
        # Ray raises SystemExit on a SIGTERM while it starts.
        raise Interrupted(signal.SIGTERM) from None
    except (SchedulerError, PartError):
        raise
    except Exception as error:
        # A SIGHUP ends Ray's processes as well.
        if received:
            raise Interrupted(received[0]) from None
        if head:
            message = " ".join(str(error).split())[:500] or type(error).__name__
            raise RayAway(f"Ray did not start at {head.given}: {message}") from error
        raise not_started(error) from error
