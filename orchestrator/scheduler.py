"""Trials on Ray: the only place that imports it.

A fresh Tuner gets the pending trials and nothing else; what is done, what failed and what is left is the database's
business, never Ray's experiment state.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import signal
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partialmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from orchestrator.canary import Footprint, canaries, canary_shape, packed_share, trained_images
from orchestrator.failures import Failure, infrastructure_failure
from orchestrator.provenance import ROOT
from orchestrator.recorder import Observer, Recorder, Summary, retry_at_once
from orchestrator.timing import device_facts
from orchestrator.trackers import flat_metrics
from orchestrator.worker import Job, run_job
from trainer.results import EpochResult

if TYPE_CHECKING:
    from orchestrator.database import Database
    from orchestrator.grid import Resources, Trial

ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    # The older console of Tune is the one that `verbose=0` silences.
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # Workers run at nice 15 otherwise, and any other process on the host would slow a timed epoch down.
    "RAY_worker_niceness": "0",
    # Without it a trial that asked for no GPU sees them all.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Started as a Ray job, this driver has a working directory of its own to give to its workers.
    "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1",
}
# Binds every port of a local Ray to the loopback interface; on a cluster the nodes must reach each other.
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}

# Exported by every worker as ray_trial_<name>{trial="..."}.
GAUGES = {
    "epoch": "epochs trained",
    "top1_error_percent": "top-1 error of the first network on the test split",
    "seconds_per_epoch": "training, data and evaluation of the last epoch",
    "images_per_second": "training images per second in the last epoch",
}

INFRASTRUCTURE_RETRIES = 3
# A process of its own costs a trial a few seconds, and Ray's dashboard shows a trial's name only for such. Trials of
# fewer images than this in all their epochs (seconds of work) share processes instead.
SMALL_TRIAL_IMAGES = 20_000
OBJECT_STORE_BYTES = 200 * 2**20
# The processes of a Ray node, by name, that the others cannot do without.
VITAL = ("gcs_server", "raylet")


class SchedulerError(Exception):
    """A grid cannot run here; the message says what is missing and what to do."""


class RayEnded(SchedulerError):
    """A process of the private Ray ended while trials ran; what was recorded stays."""


class _Abandoned(BaseException):
    """Leaves `fit` at once: after an `Exception` Tune would tidy up, and wait for a Ray that is not there any more."""


class Interrupted(Exception):
    """A signal asked the run to stop; what was recorded stays."""

    def __init__(self, number: int) -> None:
        name = signal.Signals(number).name
        super().__init__(f"interrupted ({name}): what was recorded stays, and the same command goes on from there")
        self.exit_code = 128 + number


@dataclass(frozen=True)
class RunOptions:
    """Where and how the trials of `grid` run; nothing here changes what they compute.

    `environment` is the launch's provenance; `checkpoint_seconds` the least time between two checkpoints of a trial;
    `stall_seconds` the silence after which a trial counts as hung.
    """

    grid: str
    data_root: Path
    checkpoints: Path
    logs: Path
    environment: dict[str, Any]
    address: str | None = None
    checkpoint_seconds: float = 0.0
    stall_seconds: float = 3600.0
    same_failure_limit: int = 5
    canaries: bool = True
    pack: bool = False
    trackers: tuple[str, ...] = ()
    dashboard: bool = True


def run_trials(database: Database, trials: Sequence[Trial], options: RunOptions, observer: Observer) -> Summary:
    """Run trials that this driver has claimed, recording every epoch as it comes.

    One Tuner per resource shape, one after the other, because mixed shapes starve the large ones. A trial that ran out
    of memory is tried once more, alone on its device; one whose process or node was lost is tried again up to three
    times; no failure stops the others, except that the same one time after time stops the grid.

    Raises:
        SchedulerError: Ray does not start, or no node can ever hold a trial of this shape.
        RayEnded: a process of the private Ray was killed or crashed.
        Interrupted: SIGINT or SIGTERM arrived.
        CircuitOpen: one cause made `same_failure_limit` trials fail with no success in between.
        DatabaseError: an epoch could not be recorded.
    """
    recorder = _recorder(database, trials, options, observer, "train")
    with _ray(options) as cluster:
        cluster.refuse_infeasible(_by_shape((trial.resources, trial) for trial in trials))
        observer.ready(cluster.dashboard_url)
        if options.canaries:
            refused = _run_canaries(recorder, trials, options, cluster)
            trials = [trial for trial in trials if trial.key not in refused]
        if options.pack:
            trials = _packed(trials, database, cluster, observer)
        shapes = _by_shape((trial.resources, trial) for trial in trials)
        for shape, members in shapes.items():
            _run_shape(recorder, cluster, shape, members, options, alone=False)
        alone = _by_shape((cluster.whole_device(trial.resources), trial) for trial in recorder.starved)
        for shape, members in alone.items():
            _run_shape(recorder, cluster, shape, members, options, alone=True)
    return recorder.summary


def _run_canaries(
    recorder: Recorder, trials: Sequence[Trial], options: RunOptions, cluster: _Cluster
) -> dict[str, Failure]:
    """Rehearse a trial of each shape; the trials, by key, that fail with their canary and are not to be started.

    What is the machine's fault fails no trial: each will see for itself.
    """
    model = cluster.device_model
    known = {
        (canary_shape(row.config), row.device.partition("(")[2].removesuffix(")"))
        for row in recorder.database.measured()
        if row.device
    }
    groups: dict[str, list[Trial]] = {}
    for on_gpu in (False, True):
        there = {shape for shape, device in known if device == model(on_gpu)}
        groups |= canaries((trial for trial in trials if bool(trial.resources.gpu) == on_gpu), there)
    if not groups:
        return {}
    kinds = "one kind of trial" if len(groups) == 1 else f"{len(groups)} kinds of trials"
    recorder.observer.note(f"canary: rehearsing {kinds}, a few steps each (--no-canary leaves it out)")
    firsts = [members[0] for members in groups.values()]
    # The trials are the audience's business, their canaries only where they fail.
    quiet = Observer(tick=recorder.observer.tick)
    rehearsals = _recorder(recorder.database, firsts, options, quiet, "canary", same_failure_limit=len(firsts) + 1)
    requests = ((cluster.whole_gpu(trial.resources), trial) for trial in firsts)
    for shape, members in _by_shape(requests).items():
        _run_shape(rehearsals, cluster, shape, members, options, alone=True, canary=True)
    refused = {
        trial.key: failure
        for members in groups.values()
        if (failure := rehearsals.summary.failed.get(members[0].name)) and not retry_at_once(failure)
        for trial in members
    }
    for key, failure in refused.items():
        recorder.refuse(key, replace(failure, text=f"the canary failed: {failure.text}"))
    return refused


def _packed(trials: Sequence[Trial], database: Database, cluster: _Cluster, observer: Observer) -> list[Trial]:
    """The trials, those that asked for a whole GPU with the share of it that their canaries suggest."""
    gpus, cpus = (sum(node.get(kind, 0) for node in cluster.nodes if node.get("GPU")) for kind in ("GPU", "CPU"))
    shares: dict[tuple[str, float], float] = {}
    for row in database.measured(["canary"]):
        if row.reserved_memory_bytes and row.device_memory_bytes and row.launch_share is not None:
            footprint = Footprint(row.reserved_memory_bytes, row.launch_share)
            for cpu in {trial.resources.cpu for trial in trials}:
                share = packed_share(footprint, row.device_memory_bytes, gpus, cpus, cpu) if gpus else 1.0
                shares[canary_shape(row.config), cpu] = share
    packed = []
    for trial in trials:
        share = shares.get((canary_shape(trial.config.model_dump(mode="json")), trial.resources.cpu), 1.0)
        if trial.resources.gpu == 1 and share < 1:
            # Ray counts in ten-thousandths, and three times 0.3334 would be more than a GPU.
            share = math.floor(share * 10_000) / 10_000
            packed.append(replace(trial, resources=replace(trial.resources, gpu=share)))
        else:
            packed.append(trial)
    counts = Counter(trial.resources.gpu for trial in packed if 0 < trial.resources.gpu < 1)
    listed = ", ".join(f"{count} trials share a GPU by {int(1 / share)}" for share, count in sorted(counts.items()))
    observer.note(f"packing: {listed or 'no canary on a GPU says that trials could share one'}")
    return packed


def time_trials(
    database: Database, trials: Sequence[Trial], options: RunOptions, observer: Observer, *, warm_up: int, timed: int
) -> Summary:
    """Measure the epoch times of trials, each alone on its device, in the order given.

    Each trains `warm_up` + `timed` epochs from the beginning, without a checkpoint; the last `timed` are recorded as a
    timing attempt, beside the trial's accuracy run and without touching it.

    Raises as `run_trials`.
    """
    recorder = _recorder(database, trials, options, observer, "time")
    with _ray(options) as cluster:
        cluster.refuse_infeasible(_by_shape((trial.resources, trial) for trial in trials))
        observer.ready(cluster.dashboard_url)
        shapes = _by_shape((cluster.whole_device(trial.resources), trial) for trial in trials)
        for shape, members in shapes.items():
            _run_shape(recorder, cluster, shape, members, options, alone=True, warm_up=warm_up, timed=timed)
    return recorder.summary


def _recorder(
    database: Database,
    trials: Sequence[Trial],
    options: RunOptions,
    observer: Observer,
    purpose: str,
    same_failure_limit: int | None = None,
) -> Recorder:
    return Recorder(
        database,
        {trial.key: trial for trial in trials},
        environment=options.environment,
        observer=observer,
        summary=Summary(),
        purpose=purpose,
        same_failure_limit=same_failure_limit or options.same_failure_limit,
    )


def _by_shape(trials: Iterator[tuple[Resources, Trial]]) -> dict[Resources, list[Trial]]:
    shapes: dict[Resources, list[Trial]] = {}
    for shape, trial in trials:
        shapes.setdefault(shape, []).append(trial)
    return shapes


def _run_shape(
    recorder: Recorder,
    cluster: _Cluster,
    shape: Resources,
    trials: list[Trial],
    options: RunOptions,
    *,
    alone: bool,
    warm_up: int = 0,
    timed: int | None = None,
    canary: bool = False,
) -> None:
    from ray import tune
    from ray.tune.trainable.function_trainable import wrap_function

    bundle = {"CPU": shape.cpu} | ({"GPU": shape.gpu} if shape.gpu else {})

    class Trial(wrap_function(_trainable, name="trial")):
        """Shows the trial's name in Ray's dashboard."""

        def __repr__(self) -> str:
            return str(self.config["job"]["name"])

        @classmethod
        def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
            return tune.PlacementGroupFactory([bundle])

    # What the dashboard's column "Class" says.
    Trial.__qualname__ = "Trial"
    callback = _tune_callback(recorder, cluster, options, alone=alone)
    jobs = [asdict(replace(_job(trial, shape, options, warm_up, timed), canary=canary)) for trial in trials]
    # What Tune itself writes is never read again.
    with (
        tempfile.TemporaryDirectory(prefix="orchestrate-tune-", ignore_cleanup_errors=True) as storage,
        contextlib.suppress(_Abandoned),
    ):
        tune.Tuner(
            Trial,
            param_space={"job": tune.grid_search(jobs)},
            tune_config=tune.TuneConfig(
                reuse_actors=canary or all(trained_images(trial) < SMALL_TRIAL_IMAGES for trial in trials),
                trial_name_creator=lambda trial: trial.config["job"]["name"],
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="run",
                storage_path=storage,
                verbose=0,
                callbacks=[callback, *([] if canary else _trackers(options, recorder.observer))],
                failure_config=tune.FailureConfig(max_failures=INFRASTRUCTURE_RETRIES),
            ),
        ).fit()
    if callback.problem is not None:
        raise callback.problem


def _trainable(config: dict[str, Any]) -> None:
    from ray import tune
    from ray.util.metrics import Gauge

    job = Job(**config["job"])
    gauges = {name: Gauge(f"trial_{name}", description, tag_keys=("trial",)) for name, description in GAUGES.items()}

    def report(message: dict[str, Any]) -> None:
        if message["kind"] == "epoch":
            for name, value in _measures(EpochResult.from_dict(message["result"])).items():
                gauges[name].set(value, tags={"trial": job.name})
        tune.report(message)

    run_job(job, report)


def _measures(result: EpochResult) -> dict[str, float]:
    """The values of an epoch for Ray's metrics, by the name in `GAUGES`."""
    training = result.train_seconds + result.data_seconds
    main = [each for each in result.evaluations if each.classifier == "main" and each.split == "test"]
    return {
        "epoch": result.epoch + 1,
        "top1_error_percent": main[0].metrics.top1_error,
        "seconds_per_epoch": training + result.eval_seconds,
        "images_per_second": result.images / training,
    }


def _job(trial: Trial, shape: Resources, options: RunOptions, warm_up: int, timed: int | None) -> Job:
    checkpoint = options.checkpoints.absolute() / f"{trial.key}.pt"
    return Job(
        key=trial.key,
        name=f"{options.grid}/{trial.name}",
        config=trial.config.model_dump(mode="json"),
        # Its own threads, also where it is alone on all processors: their number changes bits.
        cpus=trial.resources.cpu,
        gpus=shape.gpu,
        data_root=str(options.data_root.absolute()),
        checkpoint=str(checkpoint) if timed is None else None,
        checkpoint_seconds=options.checkpoint_seconds,
        log_folder=str(options.logs.absolute()),
        code_sha256=options.environment["code_sha256"],
        warm_up=warm_up,
        timed=timed,
    )


def _tune_callback(recorder: Recorder, cluster: _Cluster, options: RunOptions, *, alone: bool) -> Any:
    """Tune's events, handed to the recorder. The hooks run in the thread of `fit`."""
    from ray import kill, tune

    class Callback(tune.Callback):
        def __init__(self) -> None:
            self.problem: Exception | None = None
            self.heard: dict[str, float] = {}

        def __reduce__(self) -> tuple[Any, ...]:
            # Tune pickles its callbacks beside its own state, which is never read back.
            return (object, ())

        @contextlib.contextmanager
        def guarded(self) -> Iterator[None]:
            # An exception that left a hook would end as a trial's failure or a lost result; `on_step_end` raises it.
            try:
                yield
            except Exception as error:
                self.problem = self.problem or error

        def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            self.heard[_key(trial)] = time.monotonic()

        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
        ) -> None:
            with self.guarded():
                key, kind = _key(trial), result.get("kind")
                self.heard[key] = time.monotonic()
                if kind == "started":
                    recorder.started(key, result)
                elif kind == "epoch":
                    recorder.epoch(key, result)
                elif kind == "failed":
                    failure = Failure(result["error_class"], result["text"], result["fingerprint"])
                    recorder.failing(key, failure)
                    if not retry_at_once(failure):
                        # Its process ends now; Tune must not take that for a reason to run the trial again.
                        trial.max_failures = 0

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            with self.guarded():
                if (trial.last_result or {}).get("kind") == "done":
                    recorder.done(_key(trial))

        def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            with self.guarded():
                recorder.retrying(_key(trial), _error_text(trial))

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            with self.guarded():
                recorder.failed(_key(trial), _error_text(trial), alone=alone)

        def on_step_end(self, iteration: int, trials: list[Any], **_: Any) -> None:
            with self.guarded():
                recorder.observer.tick()
                self.kill_stalled(trials)
            if _signals:
                self.problem = Interrupted(_signals[0])
            if ended := cluster.ended():
                self.problem = self.problem or RayEnded(ended)
                raise _Abandoned
            if self.problem is not None:
                raise self.problem

        def kill_stalled(self, trials: list[Any]) -> None:
            now = time.monotonic()
            for trial in trials:
                key, actor = _key(trial), trial.temporary_state.ray_actor
                if trial.status == "RUNNING" and actor and now - self.heard.get(key, now) > options.stall_seconds:
                    self.heard[key] = now
                    reason = f"nothing was heard of the trial for {options.stall_seconds:g} s, so it was killed"
                    recorder.failing(key, infrastructure_failure(reason))
                    kill(actor)

    return Callback()


def _trackers(options: RunOptions, observer: Observer) -> list[Any]:
    """Ray's own callbacks for experiment trackers, told of epochs alone.

    What goes wrong there is said once, and stops neither the trial nor the grid.
    """
    from ray import tune
    from ray.tune.logger import TBXLoggerCallback

    class Board(TBXLoggerCallback):
        def log_trial_start(self, trial: Any) -> None:
            # Ray would write to its own folder of the trial, which does not outlive the run.
            folder = options.logs.with_name("tensorboard") / str(trial)
            self._trial_writer[trial] = self._summary_writer_cls(str(folder), flush_secs=30)
            self._trial_result[trial] = {}

    def made(name: str) -> Any:
        if name == "tensorboard":
            return Board()
        if name == "mlflow":
            from ray.air.integrations.mlflow import MLflowLoggerCallback

            return MLflowLoggerCallback(experiment_name=options.grid)
        from ray.air.integrations.wandb import WandbLoggerCallback

        return WandbLoggerCallback(project=options.grid, excludes=["job"])

    class Told(tune.Callback):
        def __init__(self, name: str) -> None:
            self.name, self.inner, self.works = name, made(name), True

        def __reduce__(self) -> tuple[Any, ...]:
            return (object, ())

        def tell(self, hook: str, *arguments: Any, **named: Any) -> None:
            if not self.works:
                return
            try:
                getattr(self.inner, hook)(*arguments, **named)
            except Exception as error:
                self.works = False
                observer.note(f"{self.name} gets nothing more: {type(error).__name__}: {error}")

        def setup(self, *arguments: Any, **named: Any) -> None:
            self.tell("setup", *arguments, **named)

        def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            self.tell("log_trial_start", trial)

        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
        ) -> None:
            if result.get("kind") == "epoch" and not result["result"]["restored"]:
                step = result["result"]["epoch"] + 1
                metrics = flat_metrics(result["result"])
                self.tell("log_trial_result", step, trial, {"training_iteration": step, **metrics})

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            self.tell("log_trial_end", trial, failed=False)

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            self.tell("log_trial_end", trial, failed=True)

    return [Told(name) for name in options.trackers]


def _key(trial: Any) -> str:
    return str(trial.config["job"]["key"])


def _error_text(trial: Any) -> str:
    try:
        return Path(trial.error_file).read_text(errors="replace")
    except (OSError, TypeError):
        return ""


@dataclass(frozen=True)
class _Cluster:
    nodes: list[dict[str, float]]
    dashboard_url: str | None
    private: bool = True
    # Those of a private Ray without which it cannot go on.
    processes: tuple[psutil.Process, ...] = ()

    def ended(self) -> str | None:
        """What is to be said when a process of the private Ray has ended, for that is never noticed by Tune."""
        for process in self.processes:
            if not _alive(process):
                return (
                    f"Ray ended: its process {process.pid} was killed or crashed (out of memory?); what was recorded "
                    "stays, and the same command goes on from there"
                )
        return None

    def refuse_infeasible(self, shapes: dict[Resources, list[Trial]]) -> None:
        """Tune would wait for ever for resources that no node has."""
        for shape, members in shapes.items():
            if any(node.get("CPU", 0) >= shape.cpu and node.get("GPU", 0) >= shape.gpu for node in self.nodes):
                continue
            have = "; ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in self.nodes)
            raise SchedulerError(
                f"{members[0].name} ({len(members)} such in all) asks for {shape.cpu:g} CPUs and {shape.gpu:g} GPUs, "
                f"but no node has that much (nodes: {have or 'none'}); "
                "change `resources` in the grid file, or run where such a node is (--address)"
            )

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
        return replace(shape, cpu=max(node.get("CPU", 0) for node in self.nodes))


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


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


_signals: list[int] = []


@contextlib.contextmanager
def _ray(options: RunOptions) -> Iterator[_Cluster]:
    """A Ray to run on: a private one on this machine, or the cluster at `options.address`."""
    os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})
    address = options.address or os.environ.get("RAY_ADDRESS")
    local: dict[str, Any] = {}
    if address:
        _refuse_unreachable(address)
        # Each takes Ray 40 s; there are 20 otherwise.
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "2")
    else:
        os.environ.update(LOOPBACK)
        local = {"object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": options.dashboard}
    import ray
    from ray import tune  # noqa: F401  (its loggers exist from here on)
    from ray._private.parameter import RayParams

    # Its port is a fixed one otherwise, and beside another Ray on the machine the dashboard would open no log.
    RayParams.__init__ = partialmethod(RayParams.__init__, dashboard_agent_listen_port=0)

    # Ray says that a worker died on standard output, whatever it is told; the audience hears it from the recorder.
    ray._private.worker.print_to_stdstream = lambda *_, **__: None
    with _handled_signals() as numbers:
        try:
            context = _start_ray(address, local)
            # From here on a signal is noted, and heeded between two steps. (Ray has installed handlers of its own.)
            for number in numbers:
                signal.signal(number, _remember)
            for logger in ("ray.tune", "ray.train", "ray.air"):
                logging.getLogger(logger).setLevel(logging.CRITICAL)
            url = f"http://{context.dashboard_url}" if context.dashboard_url else None
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            vital = () if address else tuple(child for child in psutil.Process().children() if child.name() in VITAL)
            yield _Cluster(nodes, url, private=not address, processes=vital)
        finally:
            ray.shutdown()


def _start_ray(address: str | None, local: dict[str, Any]) -> Any:
    import ray

    try:
        with _code() as code:
            return ray.init(
                address=address or "local",
                runtime_env={"working_dir": code},
                logging_level="ERROR",
                log_to_driver=False,
                **local,
            )
    except KeyboardInterrupt:
        raise Interrupted(_signals[0]) from None
    except SystemExit:
        # What Ray makes of a SIGTERM while it starts.
        raise Interrupted(signal.SIGTERM) from None
    except Exception as error:
        # A hang-up ends Ray's processes as well.
        if _signals:
            raise Interrupted(_signals[0]) from None
        raise SchedulerError(f"Ray did not start{f' at {address}' if address else ''}: {error}") from error


def _refuse_unreachable(address: str) -> None:
    """Ray itself tries for minutes."""
    host, _, port = address.rpartition(":")
    if "/" in host or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise SchedulerError(
            f"no Ray cluster answers at {address} ({error.strerror or error}); start one there with "
            "`ray start --head`, or leave --address out for a private Ray"
        ) from None


@contextlib.contextmanager
def _handled_signals() -> Iterator[list[int]]:
    """Have the signals that ask a program to end raise KeyboardInterrupt; yields their numbers."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    # Not where `nohup` has it ignored.
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
        numbers.append(signal.SIGHUP)
    del _signals[:]
    handlers = {number: signal.signal(number, _leave) for number in numbers}
    try:
        yield numbers
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _leave(number: int, frame: object) -> None:
    _signals.append(number)
    raise KeyboardInterrupt


def _remember(number: int, frame: object) -> None:
    """Note a signal, instead of ending at any odd place; the third one ends it there and then."""
    _signals.append(number)
    if len(_signals) > 2:
        raise KeyboardInterrupt
