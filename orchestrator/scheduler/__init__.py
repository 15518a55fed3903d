"""Run trials on Ray: the cluster, Ray Tune, and the record of what happens."""

from typing import TYPE_CHECKING

from trainer.lazy import on_first_use

if TYPE_CHECKING:
    from orchestrator.scheduler.addresses import RayAway, SchedulerError, cluster_address, names_cluster
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
    "names_cluster",
    "refuse_here",
    "run_options",
    "run_trials",
    "start_anew",
    "time_trials",
    "without_checkpoint",
]

# Imported on first use, so that the command line starts without Ray.
if not TYPE_CHECKING:
    __getattr__ = on_first_use(
        __name__,
        {
            ".addresses": ("RayAway", "SchedulerError", "cluster_address", "names_cluster"),
            ".cluster": ("keep_ray",),
            ".observer": ("Batch", "Observer"),
            ".options": ("RunOptions", "checkpoints_beside", "run_options"),
            ".preflight": ("make_ready", "refuse_here", "start_anew", "without_checkpoint"),
            ".recorder": ("CircuitOpen",),
            ".signals": ("Interrupted",),
            ".trackers": ("Tracker", "TrackerError", "check_trackers"),
            ".trials": ("run_trials", "time_trials"),
        },
    )
