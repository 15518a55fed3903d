"""Workers: one attempt at a trial in a process, or in several ranks."""

from orchestrator.worker.attempt import run_job
from orchestrator.worker.job import Job

__all__ = ["Job", "run_job"]
