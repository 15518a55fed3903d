"""Commands that run grids, or show the plan of a run."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from orchestrator.cli.app import (
    Address,
    AsJson,
    DatabaseOption,
    DataRoot,
    GridFile,
    Settings,
    app,
    existing,
    is_default,
    location,
    tell,
)
from orchestrator.exit_codes import BUSY, DONE, SOME_FAILED, TRY_AGAIN

if TYPE_CHECKING:
    from orchestrator.database import Database
    from orchestrator.grid import Trial
    from orchestrator.planning import Forecast, Plan, PlannedTrial


@app.command(epilog="Example: `orchestrate run grids/table1.yaml --data-root /data`")
def run(
    grid: GridFile,
    db: DatabaseOption = "results.db",
    data_root: DataRoot = "data",
    address: Address = None,
    settings: Settings = None,
    order: Annotated[
        Literal["depth", "breadth"] | None,
        typer.Option(
            help="Train in the file's order (depth), or the first seed of every row first (breadth).",
            show_default="what the grid file says",
        ),
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try the grid's failed trials again.")] = False,
    retrain: Annotated[
        bool,
        typer.Option(
            "--retrain", help="Train those trials anew that `plan` shows as trained by other code or on other data."
        ),
    ] = False,
    checkpoints: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|URL",
            parser=location,
            help="Folder of the checkpoints: a path or a URL.",
            show_default="beside the database",
        ),
    ] = None,
    checkpoint_seconds: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="Least time between two checkpoints of a trial; 0 writes one every epoch.",
            show_default="at most 2 % of the time goes into them",
        ),
    ] = None,
    stall_seconds: Annotated[
        float,
        typer.Option(
            min=1,
            metavar="SECONDS",
            help="A trial that is silent for so long is killed and tried again; it has at least 900 s for each step "
            "until its first epoch is over.",
        ),
    ] = 3600.0,
    canary: Annotated[
        bool, typer.Option(help="Rehearse each new kind of longer trial for a few steps before the grid.")
    ] = True,
    pack: Annotated[
        Literal["auto"] | None,
        typer.Option(metavar="auto", help="Share GPUs among trials as far as their canaries suggest."),
    ] = None,
    log_to: Annotated[
        list[str] | None,
        typer.Option(metavar="TRACKER", help="Tell epochs to tensorboard, mlflow or wandb as well; may be repeated."),
    ] = None,
    dashboard: Annotated[bool, typer.Option(help="Start Ray's dashboard.")] = True,
    wait: Annotated[
        bool,
        typer.Option(
            help="On PostgreSQL, wait for trials that another run has, and take over what it leaves. An SQLite file "
            "takes one run at a time: a second one ends at once with exit code 3."
        ),
    ] = True,
    wait_for_nodes: Annotated[
        bool, typer.Option("--wait-for-nodes", help="Start though no node is large enough yet: one will join.")
    ] = False,
) -> None:
    """Train every trial of a grid that is not done yet.

    Finished trials are skipped, interrupted ones go on from their checkpoint, failed ones wait for `--retry-failed`.
    Every epoch is in the database as soon as it is over, so Ctrl-C loses nothing that was recorded.
    The exit code is 0 only when every trial of the grid is done; 3 with `--no-wait` when others still train some.
    """
    from orchestrator.console import terminal
    from orchestrator.grid import load_grid, parse_settings
    from orchestrator.run import run_grid

    loaded = load_grid(grid, parse_settings(settings or ()))
    outcome = run_grid(
        loaded,
        db,
        data_root,
        observer=terminal(live_page(db, loaded.name)),
        address=address,
        checkpoints=checkpoints,
        retry_failed=retry_failed,
        order=order,
        retrain=retrain,
        wait=wait,
        checkpoint_seconds=checkpoint_seconds,
        stall_seconds=stall_seconds,
        canaries=canary,
        pack=pack is not None,
        trackers=tuple(log_to or ()),
        dashboard=dashboard,
        wait_for_nodes=wait_for_nodes,
    )
    # A trial that the machine failed goes on when the same command is run again.
    unfinished = TRY_AGAIN if outcome.left else BUSY if outcome.elsewhere else DONE
    raise typer.Exit(SOME_FAILED if outcome.failed else unfinished)


@app.command(
    short_help="List the trials of a grid, and why each would run.",
    epilog="Example: `orchestrate plan grids/table1.yaml`",
)
def plan(
    grid: GridFile,
    db: DatabaseOption = "results.db",
    settings: Settings = None,
    data_root: DataRoot = "data",
    as_json: AsJson = False,
) -> None:
    """List the trials of a grid and why each would run: new, interrupted, failed, or done already.

    Trials that were trained by other code, or on other data, than there is now are named; `run --retrain` trains them
    anew.
    """
    from orchestrator.cli.seeds import rows_here_and_elsewhere
    from orchestrator.console import print_plan
    from orchestrator.grid import load_grid, parse_settings
    from orchestrator.grid_records import compared, leaving, plan_of, unmeasured
    from orchestrator.planning import grid_notes, seeds_line, unfit_lines, with_devices
    from orchestrator.planning.parts import other_parts
    from orchestrator.scheduler import names_cluster
    from orchestrator.stages import decide
    from orchestrator.timing import gpus_here, processors

    loaded = load_grid(grid, parse_settings(settings or ()))
    with existing(db) as database:
        decision = decide(loaded, database)
        loaded = decision.grid
        left = leaving(database, loaded)
        notes = unmeasured(database, loaded)
        warnings = other_parts(loaded, database.parts() if database else ())
        warnings += [note for plugin in loaded.plugins for note in plugin.notes]
        plan = compared(plan_of(loaded, database), database, data_root, loaded.metrics)
        planned = with_devices(plan, gpus_here())
        cost = _forecast(planned, database)
        separating = seeds_line(*rows_here_and_elsewhere(loaded, database, "top1"))
    notes += [line for line in (left, *grid_notes(loaded)) if line]
    # Of a cluster only its nodes can tell.
    if not names_cluster():
        notes += unfit_lines(processors(), gpus_here(), [entry.trial for entry in planned.pending])
    tell("note", notes)
    tell("warning", warnings)
    if as_json:
        trials = [_planned_dict(entry) for entry in planned.entries]
        shown = {"trials": trials, "devices": planned.devices, "forecast": asdict(cost) if cost else None}
        shown["seeds"] = separating
        later = {"outlook": decision.outlook, "may_come": decision.may_come}
        typer.echo(json.dumps(shown | later | {"notes": [*notes, *warnings]}))
    else:
        print_plan(planned, cost)
        for line in (*decision.outlook, *([separating] if separating else [])):
            typer.echo(line)


@app.command(
    name="time",
    short_help="Measure epoch times, each configuration alone on its device.",
    epilog="Example: `orchestrate time grids/table1.yaml --epochs 5`",
)
def time_command(
    grid: GridFile,
    db: DatabaseOption = "results.db",
    data_root: DataRoot = "data",
    address: Address = None,
    settings: Settings = None,
    epochs: Annotated[int, typer.Option(min=1, metavar="N", help="Epochs to measure.")] = 3,
    warm_up: Annotated[int, typer.Option(min=0, metavar="N", help="Epochs to train before measuring.")] = 1,
) -> None:
    """Measure epoch times, each method and network alone on its device, in random order.

    The times stand beside the accuracy runs in the database; tables and the figure prefer them. Accuracy runs are not
    touched, and trials that were not run yet stay pending.
    """
    from orchestrator.console import terminal
    from orchestrator.grid import load_grid, parse_settings
    from orchestrator.run import time_grid

    loaded = load_grid(grid, parse_settings(settings or ()))
    outcome = time_grid(loaded, db, data_root, observer=terminal(), address=address, warm_up=warm_up, epochs=epochs)
    raise typer.Exit(SOME_FAILED if outcome.failed else DONE)


def live_page(db: str, grid: str) -> str:
    """Return the command that serves the live page of a grid; a password in the database's URL is not in it."""
    options = [] if is_default(db) else ["--db", re.sub(r"(://[^:/@]*):[^@/]*@", r"\1:***@", db)]
    return shlex.join(["orchestrate", "watch", "--serve", "--grid", grid, *options])


def _forecast(plan: Plan, database: Database | None) -> Forecast | None:
    from orchestrator.planning import make_forecast

    if database is None or not plan.pending:
        return None
    pending = [entry.trial for entry in plan.pending]
    states = database.states([trial.key for trial in pending])
    return make_forecast(plan, states, database.measured(), _slots_here(pending))


def _slots_here(trials: Sequence[Trial]) -> int:
    """Return how many of the trials this machine runs at once, by the largest request among them."""
    from orchestrator.timing import gpus_here, processors

    cpus = processors() / max(trial.resources.cpu * trial.resources.processes for trial in trials)
    gpu = max((trial.resources.gpu or 0) * trial.resources.processes for trial in trials)
    return max(1, int(min(cpus, gpus_here() / gpu) if gpu else cpus))


def _planned_dict(entry: PlannedTrial) -> dict[str, Any]:
    trial = entry.trial
    facts: dict[str, Any] = {"key": trial.key, "name": trial.name, "status": entry.status, "reason": entry.reason}
    facts |= {"changes": [each.to_dict() for each in entry.changes], "data_checked": entry.data_checked}
    return facts | {"config": trial.config.science(), "resources": asdict(trial.resources)}
