"""Plans: the trials that would run, their cost, and the ones to rehearse. Pure."""

from orchestrator.planning.canary import Footprint, canaries, canary_shape, packed_share, shape_of, trained_images
from orchestrator.planning.estimate import Estimate, Measured, Work, interval, make_estimate
from orchestrator.planning.fitting import amounts, asked, unfit, unfit_lines
from orchestrator.planning.forecast import Forecast, as_measured, make_forecast
from orchestrator.planning.notes import grid_notes
from orchestrator.planning.order import one_seed_each, ranks
from orchestrator.planning.plan import (
    Plan,
    PlannedTrial,
    devices_line,
    is_interrupted,
    make_plan,
    with_changes,
    with_devices,
)
from orchestrator.planning.seeds import (
    RATES,
    GroupSeeds,
    Pair,
    SeedRow,
    group_seeds,
    noise_of,
    rows_elsewhere,
    rows_of,
    seeds_for,
    seeds_line,
)

__all__ = [
    "RATES",
    "Estimate",
    "Footprint",
    "Forecast",
    "GroupSeeds",
    "Measured",
    "Pair",
    "Plan",
    "PlannedTrial",
    "SeedRow",
    "Work",
    "amounts",
    "as_measured",
    "asked",
    "canaries",
    "canary_shape",
    "devices_line",
    "grid_notes",
    "group_seeds",
    "interval",
    "is_interrupted",
    "make_estimate",
    "make_forecast",
    "make_plan",
    "noise_of",
    "one_seed_each",
    "packed_share",
    "ranks",
    "rows_elsewhere",
    "rows_of",
    "seeds_for",
    "seeds_line",
    "shape_of",
    "trained_images",
    "unfit",
    "unfit_lines",
    "with_changes",
    "with_devices",
]
