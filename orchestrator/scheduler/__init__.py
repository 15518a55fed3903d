"""Run trials on Ray: the cluster, Ray Tune, and the record of what happens."""

from typing import TYPE_CHECKING

from trainer.lazy import on_first_use

if TYPE_CHECKING:
    from orchestrator.scheduler.addresses import RayAway, SchedulerError, cluster_address
    from orchestrator.scheduler.cluster import keep_ray
    from orchestrator.scheduler.observer import Batch, Observer
    from orchestrator.scheduler.options import RunOptions, checkpoints_beside, run_options
    from orchestrator.scheduler.preflight import make_ready, refuse_here, start_anew, without_checkpoint
    from orchestrator.scheduler.recorder import CircuitOpen
    from orchestrator.scheduler.signals import Interrupted
    from orchestrator.scheduler.trackers import Tracker, TrackerError, check_trackers
    from orchestrator.scheduler.trials import run_trials, time_trials

__all__ = [
    "Batch",
    "CircuitOpen",
    "Interrupted",
    "Observer",
    "RayAway",
    "RunOptions",
    "SchedulerError",
    "Tracker",
    "TrackerError",
    "check_trackers",
    "checkpoints_beside",
    "cluster_address",
    "keep_ray",
    "make_ready",
    "refuse_here",
    "run_options",
    "run_trials",
    "start_anew",
    "time_trials",
    "without_checkpoint",
]

# Imported on first use, so that the command line starts without Ray.
_HOMES = {
    "Batch": ".observer",
    "CircuitOpen": ".recorder",
    "Interrupted": ".signals",
    "Observer": ".observer",
    "RayAway": ".addresses",
    "RunOptions": ".options",
    "SchedulerError": ".addresses",
    "Tracker": ".trackers",
    "TrackerError": ".trackers",
    "check_trackers": ".trackers",
    "checkpoints_beside": ".options",
    "cluster_address": ".addresses",
    "keep_ray": ".cluster",
    "make_ready": ".preflight",
    "refuse_here": ".preflight",
    "run_options": ".options",
    "run_trials": ".trials",
    "start_anew": ".preflight",
    "time_trials": ".trials",
    "without_checkpoint": ".preflight",
}

if not TYPE_CHECKING:
    __getattr__ = on_first_use(__name__, _HOMES)
