"""The command that says what a grid's seeds can separate."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.app import AsJson, DatabaseOption, GridFile, Settings, app, existing
from orchestrator.errors import OrchestrateError
from orchestrator.exit_codes import BAD_INPUT

if TYPE_CHECKING:
    from orchestrator.database import Database
    from orchestrator.grid import Grid
    from orchestrator.planning import SeedRow


class MetricError(OrchestrateError):
    """A metric that cannot be compared over seeds."""

    exit_code = BAD_INPUT


@app.command(
    short_help="Say which differences a grid's seeds separate.",
    epilog="Example: `orchestrate seeds grids/table1.yaml --difference 0.5`",
)
def seeds(
    grid: GridFile,
    db: DatabaseOption = "results.db",
    settings: Settings = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A column of tables; may be repeated.", show_default="top1"),
    ] = None,
    difference: Annotated[
        list[float] | None,
        typer.Option(
            min=1e-9,
            metavar="NUMBER",
            help="Say how many seeds this difference needs; may be repeated.",
            show_default="round ones",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say which differences a grid's seeds separate, which pairs of rows are open, and what more seeds would cost.

    Rows of one network and data set are compared with one another. How much they scatter is taken from the seeds that
    are done, else from other grids of the database on the same data set, else from the size of the test set.
    Of a grid whose seeds come by a rule it says as well where each pair stands.
    """
    from orchestrator.console import print_seeds
    from orchestrator.grid import load_grid, parse_settings
    from orchestrator.planning import as_measured, group_seeds, seeds_for
    from orchestrator.stages import decide

    loaded = load_grid(grid, parse_settings(settings or ()))
    names = check_metrics(loaded, metric or ["top1"])
    with existing(db) as database:
        decision = decide(loaded, database)
        loaded = decision.grid
        measured = as_measured(database.measured()) if database else []
        groups = [
            group for name in names for group in group_seeds(*rows_here_and_elsewhere(loaded, database, name), measured)
        ]
    if as_json:
        needs = [{"needs": seeds_for(group, difference or ())} for group in groups]
        shown = [asdict(group) | more for group, more in zip(groups, needs, strict=True)]
        typer.echo(json.dumps({"groups": shown, "rule": decision.outlook}))
    else:
        print_seeds(groups, difference or (), decision.outlook)


def check_metrics(grid: Grid, names: Sequence[str]) -> list[str]:
    """Return names of metrics; raises MetricError for one that trials of the grid do not have after every epoch."""
    from orchestrator.tables.schema import COLUMNS
    from trainer.problems import unknown

    allowed = [*(name for name in COLUMNS if not name.endswith("_time")), *grid.metrics]
    for name in names:
        if name not in allowed:
            raise MetricError(f"--metric: {unknown('metric', name, allowed)}")
    return list(dict.fromkeys(names))


def rows_here_and_elsewhere(
    grid: Grid, database: Database | None, metric: str
) -> tuple[list[SeedRow], str, list[SeedRow]]:
    """Return the rows of a grid with their values, the metric, and the rows of other grids where it has no spread."""
    from orchestrator.planning import noise_of, rows_elsewhere, rows_of

    if database is None:
        return rows_of(grid.trials, {}), metric, []
    selection = grid.report["selection"]
    rows = rows_of(grid.trials, database.test_scores([trial.key for trial in grid.trials], metric, selection))
    if noise_of(rows, metric)[1] == "grid":
        return rows, metric, []
    sets = {row.config["dataset"] for row in rows}
    trials = {key: config for key, config in database.done_trials().items() if config.get("dataset") in sets}
    return rows, metric, rows_elsewhere(trials, database.test_scores(list(trials), metric, selection))
