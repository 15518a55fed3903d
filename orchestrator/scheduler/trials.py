"""Run trials on Ray Tune: which trial runs when, and with how much of the machine.

A fresh Tuner gets the pending trials and nothing else. The database alone holds what is done, failed or left; Ray's
experiment state is never read.
"""

from __future__ import annotations

import contextlib
import json
import math
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from orchestrator.failures import Failure
from orchestrator.grid import placed
from orchestrator.planning import (
    Footprint,
    canaries,
    canary_shape,
    devices_line,
    packed_share,
    shape_of,
    trained_images,
)
from orchestrator.scheduler.callbacks import Abandoned, recording_callback
from orchestrator.scheduler.cluster import Cluster, ray_cluster
from orchestrator.scheduler.observer import Observer
from orchestrator.scheduler.options import RunOptions
from orchestrator.scheduler.recorder import Recorder, Summary, retry_at_once
from orchestrator.scheduler.signals import Interrupted, stop_signal
from orchestrator.scheduler.trackers import tracker_callbacks
from orchestrator.scheduler.trainable import trainable
from orchestrator.storage import absolute
from orchestrator.worker import Job

if TYPE_CHECKING:
    from orchestrator.database import Database
    from orchestrator.grid import Resources, Trial

__all__ = ["run_trials", "time_trials"]

INFRASTRUCTURE_RETRIES = 3
# Trials on a CPU with fewer images than this in all their epochs (seconds of work) share processes: a process of its
# own costs a trial a few seconds. Ray's dashboard shows names only of trials with a process of their own.
SMALL_TRIAL_IMAGES = 20_000


def run_trials(database: Database, trials: Sequence[Trial], options: RunOptions, observer: Observer) -> Summary:
    """Run trials that this driver has claimed, recording every epoch as it comes.

    One Tuner per resource shape, one after the other, because mixed shapes starve the large ones. A trial that ran out
    of memory is tried once more, alone on its device; one whose process or node was lost is tried again up to three
    times; no failure stops the others, except that the same one time after time stops the grid.

    Raises:
        SchedulerError: Ray does not start, or no node can ever hold a trial of this shape.
        RayEnded: a process of the private Ray was killed or crashed, or the head of the cluster.
        Interrupted: SIGINT or SIGTERM arrived.
        CircuitOpen: one cause made `same_failure_limit` trials fail with no success in between.
        DatabaseError: an epoch could not be recorded; DatabaseAway when the database stays away.
    """
    with _recording(database, trials, options, observer, "train") as (cluster, trials, options, recorder):
        if options.canaries:
            refused = _run_canaries(recorder, trials, options, cluster)
            trials = [trial for trial in trials if trial.key not in refused]
        if options.pack:
            trials = _packed(trials, database, cluster, observer)
        for shape, members in _by_shape((trial.resources, trial) for trial in trials).items():
            _run_shape(recorder, cluster, shape, members, options, alone=False)
        # Last, one at a time, those that ran out of memory.
        retried = _by_shape((cluster.whole_device(trial.resources), trial) for trial in recorder.out_of_memory)
        for shape, members in retried.items():
            _run_shape(recorder, cluster, shape, members, options, alone=True)
        _settle(recorder)
    return recorder.summary


@contextlib.contextmanager
def _recording(
    database: Database, trials: Sequence[Trial], options: RunOptions, observer: Observer, purpose: str
) -> Iterator[tuple[Cluster, list[Trial], RunOptions, Recorder]]:
    """Yield a cluster that can hold the trials, those trials placed on it, its options, and what records them."""
    with ray_cluster(options) as cluster:
        placed_trials = _placed(cluster, trials, observer)
        options = replace(options, environment={**options.environment, "dashboards": cluster.dashboards()})
        recorder = Recorder(
            database,
            {trial.key: trial for trial in placed_trials},
            environment=options.environment,
            observer=observer,
            summary=Summary(),
            purpose=purpose,
            same_failure_limit=options.same_failure_limit,
        )
        _refuse_infeasible(cluster, placed_trials, options, observer)
        observer.ready(cluster.dashboard_url)
        with recorder:
            yield cluster, placed_trials, options, recorder


def _placed(cluster: Cluster, trials: Sequence[Trial], observer: Observer) -> list[Trial]:
    """Return the trials with their number of GPUs set; tells the observer where trials run that leave it open."""
    gpus = sum(int(node.get("GPU", 0)) for node in cluster.nodes)
    if any(trial.resources.gpu is None for trial in trials):
        observer.note(devices_line(gpus, "here" if cluster.private else "in the cluster"))
    return placed(trials, gpus > 0)


def _refuse_infeasible(cluster: Cluster, trials: Sequence[Trial], options: RunOptions, observer: Observer) -> None:
    if options.wait_for_nodes:
        for line in cluster.awaited(trials):
            observer.note(line)
    else:
        cluster.refuse_infeasible(trials)


def _run_canaries(
    recorder: Recorder, trials: Sequence[Trial], options: RunOptions, cluster: Cluster
) -> dict[str, Failure]:
    """Rehearse one trial of each shape; returns the trials to refuse, by key, with their canary's failure.

    A fault of the machine refuses no trial.
    """
    model = cluster.device_model
    rehearsed = {
        (canary_shape(row.config, row.engine), row.device.partition("(")[2].removesuffix(")"))
        for row in recorder.database.measured()
        if row.device
    }
    groups: dict[str, list[Trial]] = {}
    for on_gpu in (False, True):
        shapes = {shape for shape, device in rehearsed if device == model(on_gpu)}
        groups |= canaries((trial for trial in trials if bool(trial.resources.gpu) == on_gpu), shapes)
    if not groups:
        return {}
    kinds = "one kind of trial" if len(groups) == 1 else f"{len(groups)} kinds of trials"
    recorder.observer.note(f"canary: rehearsing {kinds}, a few steps each (--no-canary leaves it out)")
    firsts = [members[0] for members in groups.values()]
    # The observer hears of a canary only when it fails.
    quiet = Observer(tick=recorder.observer.tick, note=recorder.observer.note)
    rehearsals = Recorder(
        recorder.database,
        {trial.key: trial for trial in firsts},
        environment=options.environment,
        observer=quiet,
        summary=Summary(),
        purpose="canary",
        same_failure_limit=len(firsts) + 1,
    )
    requests = ((cluster.whole_gpu(replace(trial.resources, processes=1)), trial) for trial in firsts)
    with rehearsals:
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


def _packed(trials: Sequence[Trial], database: Database, cluster: Cluster, observer: Observer) -> list[Trial]:
    """Return the trials, with a share of a GPU for those that asked for a whole one, as their canaries suggest."""
    gpus, cpus = (sum(node.get(kind, 0) for node in cluster.nodes if node.get("GPU")) for kind in ("GPU", "CPU"))
    shares: dict[tuple[str, float], float] = {}
    for row in database.measured(["canary"]):
        if row.reserved_memory_bytes and row.device_memory_bytes and row.launch_share is not None:
            footprint = Footprint(row.reserved_memory_bytes, row.launch_share)
            for cpu in {trial.resources.cpu for trial in trials}:
                share = packed_share(footprint, row.device_memory_bytes, gpus, cpus, cpu) if gpus else 1.0
                shares[canary_shape(row.config, row.engine), cpu] = share
    packed = []
    for trial in trials:
        share = shares.get((shape_of(trial), trial.resources.cpu), 1.0)
        if (trial.resources.gpu, trial.resources.processes) == (1, 1) and share < 1:
            # Ray counts in ten-thousandths: three times 0.3334 would be more than a GPU.
            share = math.floor(share * 10_000) / 10_000
            packed.append(replace(trial, resources=replace(trial.resources, gpu=share)))
        else:
            packed.append(trial)
    counts = Counter(gpu for trial in packed if 0 < (gpu := trial.resources.gpu or 0) < 1)
    listed = ", ".join(f"{count} trials share a GPU by {int(1 / share)}" for share, count in sorted(counts.items()))
    observer.note(f"packing: {listed or 'no canary on a GPU says that trials could share one'}")
    return packed


def time_trials(
    database: Database, trials: Sequence[Trial], options: RunOptions, observer: Observer, *, warm_up: int, timed: int
) -> Summary:
    """Measure the epoch times of trials one at a time, also where there are devices for more, in the order given.

    Each trains `warm_up` + `timed` epochs from the beginning, without a checkpoint; the last `timed` are recorded as a
    timing attempt, beside the trial's accuracy run and without touching it.

    Raises as `run_trials`.
    """
    with _recording(database, trials, options, observer, "time") as (cluster, trials, options, recorder):
        shapes = _by_shape((cluster.whole_device(trial.resources), trial) for trial in trials)
        for shape, members in shapes.items():
            _run_shape(recorder, cluster, shape, members, options, alone=True, warm_up=warm_up, timed=timed, at_once=1)
    return recorder.summary


def _by_shape(trials: Iterator[tuple[Resources, Trial]]) -> dict[Resources, list[Trial]]:
    shapes: dict[Resources, list[Trial]] = {}
    for shape, trial in trials:
        shapes.setdefault(shape, []).append(trial)
    return shapes


def share_processes(shape: Resources, trials: Iterable[Trial], *, canary: bool) -> bool:
    """Return whether these trials are trained one after the other in the same processes.

    Never on a GPU: of the processes that went on with a second trial there, a third crashed below Ray (docs/gpu.md).
    """
    return not shape.gpu and (canary or all(trained_images(trial) < SMALL_TRIAL_IMAGES for trial in trials))


def _run_shape(
    recorder: Recorder,
    cluster: Cluster,
    shape: Resources,
    trials: list[Trial],
    options: RunOptions,
    *,
    alone: bool,
    warm_up: int = 0,
    timed: int | None = None,
    canary: bool = False,
    at_once: int | None = None,
) -> None:
    from ray import tune
    from ray.tune.trainable.function_trainable import wrap_function

    bundle = {"CPU": shape.cpu} | ({"GPU": shape.gpu} if shape.gpu else {})
    # With several processes, the trial's own process only watches them and needs nothing for itself.
    bundles = [{}, *[bundle] * shape.processes] if shape.processes > 1 else [bundle]

    class Trial(wrap_function(trainable, name="trial")):  # type: ignore[misc]
        """A Tune trainable that shows the trial's name in Ray's dashboard."""

        def __repr__(self) -> str:
            return str(json.loads(self.config["job"])["name"])

        @classmethod
        def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
            return tune.PlacementGroupFactory(bundles, strategy="PACK")

    # Text of the dashboard's column "Class".
    Trial.__qualname__ = "Trial"
    callback = recording_callback(recorder, cluster, options, alone=alone)
    described = (asdict(replace(_job(trial, shape, options, warm_up, timed), canary=canary)) for trial in trials)
    # As strings, because Tune deep-copies all jobs for every trial.
    jobs = [json.dumps(job) for job in described]
    # Tune's own files are never read.
    with (
        tempfile.TemporaryDirectory(prefix="orchestrate-tune-", ignore_cleanup_errors=True) as storage,
        contextlib.suppress(Abandoned),
    ):
        tune.Tuner(
            Trial,
            param_space={"job": tune.grid_search(jobs)},
            tune_config=tune.TuneConfig(
                max_concurrent_trials=at_once,
                reuse_actors=share_processes(shape, trials, canary=canary),
                trial_name_creator=lambda trial: json.loads(trial.config["job"])["name"],
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="run",
                storage_path=storage,
                verbose=0,
                callbacks=[callback, *([] if canary else tracker_callbacks(options, recorder.observer))],
                failure_config=tune.FailureConfig(max_failures=INFRASTRUCTURE_RETRIES),
            ),
        ).fit()
    if callback.problem is not None:
        raise callback.problem
    _settle(recorder)


def _settle(recorder: Recorder) -> None:
    """Wait until the database has everything, however long it is away; raises Interrupted, and as `run_trials`."""
    while not recorder.journal.settled(1.0):
        recorder.observer.tick()
        if number := stop_signal():
            raise Interrupted(number)


def _job(trial: Trial, shape: Resources, options: RunOptions, warm_up: int, timed: int | None) -> Job:
    return Job(
        key=trial.key,
        name=f"{options.grid}/{trial.name}",
        config=trial.config.model_dump(mode="json"),
        # Set even when the trial is alone on all processors: the number of threads changes bits.
        cpus=trial.resources.cpu,
        gpus=shape.gpu or 0.0,
        data_root=absolute(options.data_root),
        checkpoint=options.checkpoint(trial.key) if timed is None else None,
        checkpoint_seconds=options.checkpoint_seconds,
        log_folder=absolute(options.logs),
        code_digest=options.environment["code_digest"],
        warm_up=warm_up,
        timed=timed,
        processes=trial.resources.processes,
        engine=trial.resources.engine,
        deterministic=trial.resources.deterministic,
        plugins=tuple(plugin.to_dict() for plugin in options.plugins),
        metrics=options.metrics,
        outcomes=options.outcomes,
    )
