"""Grid files: from YAML to validated trials. Pure: nothing here runs or stores anything."""

from orchestrator.grid.load import load_grid
from orchestrator.grid.names import trial_names
from orchestrator.grid.problems import GridError, Problem
from orchestrator.grid.resources import placed
from orchestrator.grid.seeding import SeedRule
from orchestrator.grid.settings import parse_settings
from orchestrator.grid.trial import Grid, Resources, Trial

__all__ = [
    "Grid",
    "GridError",
    "Problem",
    "Resources",
    "SeedRule",
    "Trial",
    "load_grid",
    "parse_settings",
    "placed",
    "trial_names",
]
