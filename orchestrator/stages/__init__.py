"""Trials that are decided while a grid runs: results of a stage call for the trials of the next."""

from orchestrator.stages.decision import Decision
from orchestrator.stages.rules import decide
from orchestrator.stages.tuning import counted_as_draws

__all__ = ["Decision", "counted_as_draws", "decide"]
