"""The command line. Every command imports what it needs when it runs, so that help and status are instant."""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from orchestrator.database import Database, Driver
    from orchestrator.forecast import Forecast
    from orchestrator.grid import Grid, Trial
    from orchestrator.plan import Plan, PlannedTrial
    from orchestrator.scheduler import RunOptions

DONE, SOME_FAILED, BAD_INPUT, BUSY = 0, 1, 2, 3

app = typer.Typer(
    name="orchestrate",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Rich's panels cut the names of options short in a terminal of 80 columns.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Run an ablation grid on Ray, keep every epoch in a SQL database, and print the paper's tables from it.

    `orchestrate run grids/quickstart.yaml` trains what is missing; `orchestrate report` writes the tables and the
    figure. Exit codes: 0 done, 1 some trial failed, 2 bad input, 3 another run holds the database, 130 interrupted.
    """,
)

GridFile = Annotated[Path, typer.Argument(metavar="GRID", help="The grid file (YAML).", show_default=False)]
DatabaseOption = Annotated[
    str, typer.Option("--db", envvar="ORCHESTRATE_DB", help="The results database: an SQLite file or a PostgreSQL URL.")
]
DataRoot = Annotated[Path, typer.Option(envvar="ORCHESTRATE_DATA", help="The folder that holds the data sets.")]
Address = Annotated[
    str | None, typer.Option(envvar="RAY_ADDRESS", help="A Ray cluster (`auto`, host:port); a private Ray without.")
]
GridNames = Annotated[
    list[str] | None,
    typer.Option("--grid", metavar="NAME", help="Only this grid; may be repeated.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def main() -> None:
    """Run the command line; every error a person can mend ends as one message and an exit code."""
    try:
        app()
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            _stop_printing()
            raise SystemExit(DONE) from None


def _stop_printing() -> None:
    """The reader of our output went away (`| head`): not an error, and nothing is left to say."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@app.command(epilog="Example: `orchestrate run grids/table1.yaml --data-root /data`")
def run(
    grid: GridFile,
    db: DatabaseOption = "results.db",
    data_root: DataRoot = Path("data"),
    address: Address = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try the grid's failed trials again.")] = False,
    checkpoints: Annotated[
        Path | None, typer.Option(help="Folder of the checkpoints.", show_default="beside the database")
    ] = None,
    checkpoint_seconds: Annotated[
        float, typer.Option(min=0, help="Least time between two checkpoints of a trial; 0 writes one every epoch.")
    ] = 0.0,
    stall_seconds: Annotated[
        float, typer.Option(min=1, help="A trial that is silent for so long is killed and tried again.")
    ] = 3600.0,
    canary: Annotated[
        bool, typer.Option(help="Rehearse each new kind of longer trial for a few steps before the grid.")
    ] = True,
    pack: Annotated[
        Literal["auto"] | None,
        typer.Option(help="Share GPUs among trials as far as their canaries suggest."),
    ] = None,
    log_to: Annotated[
        list[str] | None,
        typer.Option(help="Tell epochs to a tracker as well: tensorboard, mlflow or wandb; may be repeated."),
    ] = None,
    dashboard: Annotated[bool, typer.Option(help="Start Ray's dashboard.")] = True,
) -> None:
    """Train every trial of a grid that is not done yet.

    Finished trials are skipped, interrupted ones go on from their checkpoint, failed ones wait for `--retry-failed`.
    Every epoch is in the database as soon as it is over, so Ctrl-C loses nothing that was recorded.
    """
    with _errors():
        from orchestrator.display import announce_plan, run_display
        from orchestrator.grid import load_grid
        from orchestrator.trackers import check_trackers

        check_trackers(log_to or ())
        loaded = load_grid(grid)
        with _driven(db, loaded.name, create=True) as (database, driver):
            database.release_stale()
            _save_grid(database, loaded)
            if retry_failed:
                database.retry([trial.key for trial in loaded.trials])
            plan = _plan(loaded, database)
            announce_plan(plan)
            if not plan.pending:
                raise typer.Exit(SOME_FAILED if plan.count("failed") else DONE)
            _prepare_data([entry.trial for entry in plan.pending], data_root)
            options = replace(
                _run_options(loaded.name, db, data_root, address, checkpoints),
                checkpoint_seconds=checkpoint_seconds,
                stall_seconds=stall_seconds,
                canaries=canary,
                pack=pack is not None,
                trackers=tuple(log_to or ()),
                dashboard=dashboard,
            )
            claimed = database.claim([entry.trial.key for entry in plan.pending], driver)
            mine = [entry.trial for entry in plan.pending if entry.trial.key in claimed]
            try:
                from orchestrator.forecast import as_measured
                from orchestrator.scheduler import run_trials

                configs = {trial.name: trial.config.model_dump(mode="json") for trial in mine}
                known = as_measured(database.measured())
                with run_display(loaded.name, configs, known) as observer:
                    summary = run_trials(database, mine, options, observer)
            finally:
                database.release(driver)
        raise typer.Exit(SOME_FAILED if summary.failed or plan.count("failed") else DONE)


@app.command(
    short_help="List the trials of a grid, and why each would run.",
    epilog="Example: `orchestrate plan grids/table1.yaml`",
)
def plan(
    grid: GridFile,
    db: DatabaseOption = "results.db",
    as_json: AsJson = False,
) -> None:
    """List the trials of a grid and why each would run: new, interrupted, failed, or done already."""
    with _errors():
        from orchestrator.display import print_plan
        from orchestrator.grid import load_grid

        loaded = load_grid(grid)
        with _existing(db) as database:
            planned = _plan(loaded, database)
            cost = _forecast(planned, database)
        if as_json:
            typer.echo(json.dumps([_planned_dict(entry) for entry in planned.entries]))
        else:
            print_plan(planned, cost)


@app.command(
    name="time",
    short_help="Measure epoch times, each configuration alone on its device.",
    epilog="Example: `orchestrate time grids/table1.yaml --epochs 5`",
)
def time_grid(
    grid: GridFile,
    db: DatabaseOption = "results.db",
    data_root: DataRoot = Path("data"),
    address: Address = None,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs to measure.")] = 3,
    warm_up: Annotated[int, typer.Option(min=0, help="Epochs to train before measuring.")] = 1,
) -> None:
    """Measure epoch times, each method and network alone on its device, in random order.

    The times stand beside the accuracy runs in the database; tables and the figure prefer them. Accuracy runs are not
    touched, and trials that were not run yet stay pending.
    """
    with _errors():
        from orchestrator.display import run_display
        from orchestrator.grid import load_grid

        loaded = load_grid(grid)
        with _driven(db, loaded.name, create=True) as (database, _):
            database.release_stale()
            _save_grid(database, loaded)
            trials = _one_seed_each(loaded)
            _prepare_data(trials, data_root)
            options = _run_options(loaded.name, db, data_root, address)
            typer.echo(f"timing {len(trials)} configurations, {warm_up} + {epochs} epochs each, one at a time")
            from orchestrator.scheduler import time_trials

            configs = {
                trial.name: trial.config.model_dump(mode="json")
                | {"epochs": min(warm_up + epochs, trial.config.epochs)}
                for trial in trials
            }
            with run_display(loaded.name, configs) as observer:
                summary = time_trials(database, trials, options, observer, warm_up=warm_up, timed=epochs)
        raise typer.Exit(SOME_FAILED if summary.failed else DONE)


@app.command(short_help="Show how far each grid is.", epilog="Example: `orchestrate status --grid table1`")
def status(db: DatabaseOption = "results.db", grid: GridNames = None, as_json: AsJson = False) -> None:
    """Show how far each grid is: counts by state, the running trials, and the failures."""
    with _errors():
        from orchestrator.database import open_database
        from orchestrator.monitor import print_status, status_of

        with open_database(db, readonly=True) as database:
            found = status_of(database, grid)
        if as_json:
            typer.echo(json.dumps(found))
        else:
            print_status(found)


@app.command(
    short_help="Watch the tables fill up.",
    epilog="Example: `orchestrate watch --grid quickstart` in a second terminal while a grid runs",
)
def watch(
    db: DatabaseOption = "results.db",
    grid: GridNames = None,
    every: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Show it once and leave.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a page that refreshes itself instead.")] = None,
) -> None:
    """Watch the tables fill up: methods by networks, with running cells, failures and the time left.

    It reads the database alone, so it works from another terminal or machine.
    """
    with _errors():
        from orchestrator.monitor import watch_grids

        watch_grids(db, grid, every=every, once=once, html=html)


@app.command(
    short_help="Write the tables and figures.",
    epilog="Example: `orchestrate report --format tex --out tables --vs-paper`",
)
def report(
    db: DatabaseOption = "results.db",
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("report"),
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="md, tex, html, csv or json; may be repeated.", show_default="all of them"),
    ] = None,
    grid: GridNames = None,
    selection: Annotated[
        str | None,
        typer.Option(
            help="The epoch that counts: best_test (as the paper), best_val, last, or mean_last_K.",
            show_default="what the grid file says",
        ),
    ] = None,
    vs_paper: Annotated[bool, typer.Option("--vs-paper", help="Compare every number with the published one.")] = False,
) -> None:
    """Write the tables and the figure from the database: Markdown, LaTeX, one HTML page, CSV, JSON, PDF, SVG, PNG."""
    with _errors():
        from orchestrator.database import open_database
        from reports import write_report

        with open_database(db, readonly=True) as database:
            written = write_report(
                database, out, formats=formats or None, grids=grid, selection=selection, vs_paper=vs_paper
            )
        typer.echo(f"wrote {len(written)} files to {out}/")
        for path in written:
            typer.echo(f"  {path}")


@app.command(
    short_help="Group the failures by cause, with the command that tries again.",
    epilog="Example: `orchestrate triage --grid table1`",
)
def triage(db: DatabaseOption = "results.db", grid: GridNames = None, as_json: AsJson = False) -> None:
    """Group the failures by cause, with one excerpt each and the command that tries them again."""
    with _errors():
        from orchestrator.database import open_database
        from orchestrator.monitor import print_triage, triage_of

        with open_database(db, readonly=True) as database:
            here = db == os.environ.get("ORCHESTRATE_DB", "results.db")
            found = triage_of(database, grid, [] if here else ["--db", database.where])
        if as_json:
            typer.echo(json.dumps(found))
        else:
            print_triage(found)


@app.command(
    short_help="Say where a printed number comes from.",
    epilog="Example: `orchestrate explain table1:resnet18/pskd/top1`",
)
def explain(
    cell: Annotated[str, typer.Argument(metavar="TABLE:CELL", help="A number, as the LaTeX comments name it.")],
    db: DatabaseOption = "results.db",
) -> None:
    """Say where a printed number comes from: trials, seeds, epoch, commit, device and log."""
    with _errors():
        from orchestrator.database import open_database
        from reports import explain as explain_cell

        with open_database(db, readonly=True) as database:
            typer.echo(explain_cell(database, cell))


@app.command(
    short_help="Check every number of a LaTeX file against the database.",
    epilog="Example: `orchestrate verify paper.tex`",
)
def verify(
    paper: Annotated[Path, typer.Argument(metavar="FILE", help="A LaTeX file that holds or includes our tables.")],
    db: DatabaseOption = "results.db",
) -> None:
    """Recompute every number of a LaTeX file and fail on one that is stale, edited or contradictory."""
    with _errors():
        from orchestrator.database import open_database
        from reports import verify as verify_paper

        with open_database(db, readonly=True) as database:
            problems = verify_paper(database, paper)
        for problem in problems:
            typer.echo(str(problem), err=True)
        typer.echo(f"{paper}: {len(problems)} problems" if problems else f"{paper}: every number is current")
        raise typer.Exit(SOME_FAILED if problems else DONE)


@app.command(
    short_help="Write the database as tidy files.", epilog="Example: `orchestrate export --format parquet --out data`"
)
def export(
    db: DatabaseOption = "results.db",
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("export"),
    format: Annotated[str, typer.Option(help="csv or parquet.")] = "csv",
) -> None:
    """Write the database as tidy files: trials, epochs, losses and evaluations."""
    with _errors():
        from orchestrator.database import open_database
        from reports import export as export_data

        with open_database(db, readonly=True) as database:
            for path in export_data(database, out, format):
                typer.echo(str(path))


@app.command(
    short_help="Bring a database of an earlier version up to date.",
    epilog="Example: `orchestrate migrate --db results.db`",
)
def migrate(db: DatabaseOption = "results.db") -> None:
    """Bring a database of an earlier version up to date, after making a backup copy. `run` does the same."""
    with _errors(), _driven(db, "(migration)", create=False) as (database, _):
        typer.echo(f"{database.where} is up to date")


@app.command(
    short_help="Check this machine: versions, devices, storage and data sets.",
    epilog="Example: `orchestrate doctor --resume`",
)
def doctor(
    data_root: DataRoot = Path("data"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Show that a killed and resumed training gives the same bits.")
    ] = False,
) -> None:
    """Check this machine: versions, devices, storage and data sets; with `--resume`, that resuming changes nothing."""
    with _errors():
        from orchestrator.doctor import check_machine, check_resume

        raise typer.Exit(DONE if (check_resume() if resume else check_machine(data_root)) else SOME_FAILED)


@contextmanager
def _driven(db: str, grid: str, *, create: bool) -> Iterator[tuple[Database, Driver]]:
    """The database, of the present version, and its lock; says what was migrated, and what is doubtful about it."""
    from orchestrator.database import driver_lock, open_database

    with open_database(db, create=create, migrate=True) as database, driver_lock(database, grid=grid) as driver:
        if database.migrated:
            typer.echo(database.migrated)
        if database.warning:
            typer.echo(f"warning: {database.warning}", err=True)
        yield database, driver


@contextmanager
def _existing(db: str) -> Iterator[Database | None]:
    """The database if there is one yet: planning needs none."""
    from orchestrator.database import open_database

    if "://" not in db and not Path(db).exists():
        yield None
        return
    with open_database(db, readonly=True) as database:
        yield database


def _plan(grid: Grid, database: Database | None) -> Plan:
    from orchestrator.plan import make_plan

    return make_plan(grid, database.states([trial.key for trial in grid.trials]) if database is not None else {})


def _forecast(plan: Plan, database: Database | None) -> Forecast | None:
    from orchestrator.forecast import forecast

    if database is None or not plan.pending:
        return None
    pending = [entry.trial for entry in plan.pending]
    states = database.states([trial.key for trial in pending])
    return forecast(plan, states, database.measured(), _slots_here(pending))


def _slots_here(trials: Sequence[Trial]) -> int:
    """How many of the trials this machine runs at once, by the largest request among them."""
    cpus = (os.cpu_count() or 1) / max(trial.resources.cpu for trial in trials)
    gpu = max(trial.resources.gpu for trial in trials)
    return max(1, int(min(cpus, _gpus() / gpu) if gpu else cpus))


def _gpus() -> int:
    import pynvml

    try:
        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError:
        return 0


def _planned_dict(entry: PlannedTrial) -> dict[str, Any]:
    trial = entry.trial
    known = {"key": trial.key, "name": trial.name, "status": entry.status, "reason": entry.reason}
    return known | {"config": trial.config.science(), "resources": asdict(trial.resources)}


def _save_grid(database: Database, grid: Grid) -> None:
    trials = [(trial.key, trial.config.model_dump(mode="json"), trial.name) for trial in grid.trials]
    database.save_grid(grid.name, str(grid.source), grid.text, grid.report, trials)


def _one_seed_each(grid: Grid) -> list[Trial]:
    """One trial of each configuration, whatever its seed, in random order: a drifting clock then favours none."""
    first: dict[str, Trial] = {}
    for trial in grid.trials:
        first.setdefault(trial.config.model_copy(update={"seed": 0}).key(), trial)
    return random.sample(list(first.values()), len(first))


def _prepare_data(trials: Sequence[Trial], data_root: Path) -> None:
    """Have every data set of the trials in place before any of them starts."""
    from trainer.download import prepare

    needed = {(trial.config.dataset, trial.config.ood_dataset): trial.config for trial in trials}
    for config in needed.values():
        prepare(config, data_root, progress=typer.echo)


def _run_options(
    grid: str, db: str, data_root: Path, address: str | None, checkpoints: Path | None = None
) -> RunOptions:
    from orchestrator.provenance import code_provenance
    from orchestrator.scheduler import RunOptions

    # Beside the database file, so that the two are found, moved and removed together.
    beside = Path("results.db") if "://" in db else Path(db)
    return RunOptions(
        grid=grid,
        data_root=data_root,
        checkpoints=checkpoints or beside.with_name(f"{beside.stem}-checkpoints"),
        logs=beside.with_name(f"{beside.stem}-logs"),
        environment=code_provenance(),
        address=address,
    )


@contextmanager
def _errors() -> Iterator[None]:
    """Turn every error that a person can mend into one message and an exit code."""
    try:
        yield
    except (typer.Exit, typer.Abort):
        raise
    except BrokenPipeError:
        _stop_printing()
        raise typer.Exit(DONE) from None
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(130) from None
    except Exception as error:
        code = _exit_code(error)
        if code is None:
            raise
        prefix = "" if code > 128 else "error: "
        typer.echo(f"{prefix}{error}", err=True)
        raise typer.Exit(code) from None


def _exit_code(error: Exception) -> int | None:
    """The exit code of an error that was expected; None for a bug."""
    from orchestrator.database import Busy, DatabaseError
    from orchestrator.grid import GridError
    from orchestrator.recorder import CircuitOpen
    from orchestrator.scheduler import Interrupted, RayEnded, SchedulerError
    from orchestrator.trackers import TrackerError
    from reports import ReportError
    from trainer.download import DataError

    if isinstance(error, Interrupted):
        return error.exit_code
    if isinstance(error, Busy):
        return BUSY
    if isinstance(error, CircuitOpen | RayEnded):
        return SOME_FAILED
    if isinstance(error, GridError | DatabaseError | DataError | SchedulerError | TrackerError | ReportError):
        return BAD_INPUT
    return None
