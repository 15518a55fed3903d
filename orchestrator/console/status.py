"""How far the grids are, read from the database alone: from any terminal or machine, while they run or after."""

from __future__ import annotations

import html as html_lib
import os
import shlex
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from orchestrator.console.triage import rerun, selected
from orchestrator.exit_codes import of_system
from orchestrator.planning.estimate import Estimate, Measured, Work, estimate
from orchestrator.planning.forecast import as_measured
from orchestrator.planning.plan import is_interrupted
from orchestrator.text import counted, duration, interval

if TYPE_CHECKING:
    from orchestrator.database import Database, GridRow

# What a trial has to say under the rules for which its last and best epochs suffice.
BEST = "best_top1_error"
SHOWN_RULES = {"best_test": BEST, "last": "top1_error"}


class PageError(Exception):
    """The page cannot be written; the message says where, why, and what to do."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def status_of(database: Database, grids: Sequence[str] | None, options: Sequence[str] = ()) -> list[dict[str, Any]]:
    """One entry per grid, as plain values: counts by state, the trials with their progress, seconds left.

    `options` belong to the command that continues what was interrupted.
    """
    known = {grid.name: grid for grid in database.grids()}
    return [_grid_status(database, known[name], options) for name in selected(list(known), grids)]


def print_status(grids: Sequence[dict[str, Any]], options: Sequence[str] = ()) -> None:
    """Counts of every grid, then its running, interrupted and failed trials; `options` belong to other commands."""
    console = Console(highlight=False, soft_wrap=True)
    if not grids:
        first = shlex.join(["orchestrate", "run", "grids/quickstart.yaml", *options])
        console.print(f"no grid was run yet; `{escape(first)}` runs the first")
    for grid in grids:
        console.print(_headline(grid))
        for trial in grid["trials"]:
            if trial["state"] == "running":
                console.print(f"  [blue]running[/] {escape(trial['name'])}: {escape(_progress_text(trial))}")
            elif trial["interrupted"]:
                console.print(f"  interrupted {escape(trial['name'])}: {escape(_progress_text(trial))}")
            elif trial["state"] == "failed":
                console.print(f"  [red]failed [/] {escape(trial['name'])}: {escape(trial['error_class'] or 'unknown')}")
        if grid["continue"]:
            console.print(f"  `{escape(grid['continue'])}` continues what was interrupted")
        if grid["counts"].get("failed"):
            triage = shlex.join(["orchestrate", "triage", "--grid", grid["name"], *options])
            console.print(f"  `{escape(triage)}` says why")


def watch_grids(db: str, grids: Sequence[str] | None, *, every: float, once: bool, html: Path | None) -> None:
    """Show the matrix of methods and networks again and again until Ctrl-C, or write it as a page.

    Raises DatabaseError where the database cannot be read, PageError where the page cannot be written.
    """
    from orchestrator.database import DatabaseAway, open_database

    console = Console(highlight=False)
    if not console.is_terminal:
        # Programs and files have room for every name.
        console = Console(highlight=False, width=10_000)
    # Ctrl-C is how one stops watching, and no error.
    with open_database(db, readonly=True) as database, suppress(KeyboardInterrupt):
        for line in (*database.warnings, *database.leave_out_broken(numbers=False)):
            console.print(f"warning: {escape(line)}", soft_wrap=True)
        if html is not None:
            said = False
            while True:
                try:
                    _write_page(html, status_of(database, grids), every)
                except DatabaseAway as error:
                    if once:
                        raise
                    console.print(f"{time.strftime('%H:%M:%S')}: {escape(str(error))}", soft_wrap=True)
                if once:
                    console.print(f"wrote {escape(str(html))}")
                    return
                if not said:
                    said = True
                    address = html.absolute().as_uri()
                    typer.echo(f"{html} is written every {every:g} s until Ctrl-C; open {address} in a browser")
                time.sleep(every)
        if once or not console.is_terminal:
            console.print(_matrices(status_of(database, grids)))
            return
        with Live(console=console, screen=False, auto_refresh=False) as live:
            while True:
                try:
                    live.update(_matrices(status_of(database, grids)), refresh=True)
                except DatabaseAway as error:
                    # It may be back at the next look.
                    live.update(Text(f"{time.strftime('%H:%M:%S')}: {error}"), refresh=True)
                time.sleep(every)


def _grid_status(database: Database, grid: GridRow, options: Sequence[str]) -> dict[str, Any]:
    rows = database.progress(grid.name)
    trials = []
    for row in rows:
        left = None
        if row.state in ("running", "pending") and row.seconds_per_epoch:
            left = (row.epochs_total - row.epochs_done) * row.seconds_per_epoch
        trials.append(
            {
                "name": row.trial_name,
                "key": row.key,
                "state": row.state,
                "interrupted": is_interrupted(row.state, begun=row.begun, claimed=row.claimed),
                "network": row.config["network"],
                "methods": sorted(row.config["methods"]),
                "config": row.config,
                "epochs_done": row.epochs_done,
                "epochs_total": row.epochs_total,
                "top1_error": row.last_top1_error,
                "best_top1_error": row.best_top1_error,
                "seconds_per_epoch": row.seconds_per_epoch,
                "seconds_left": left,
                "error_class": row.error_class,
                "host": row.host,
                "device": row.device,
            }
        )
    counts = Counter(trial["state"] for trial in trials)
    known = as_measured(database.measured(["canary"]))
    again = None
    # A run on a copy would train a second time what the original's run has gone on with.
    if not database.copied and (interrupted := next((trial for trial in trials if trial["interrupted"]), None)):
        again = rerun(grid.source, database.attempts(interrupted["key"])[-1].environment, options)
    return {
        "name": grid.name,
        "counts": dict(counts),
        "selection": grid.report.get("selection", "best_test"),
        "continue": again,
        "trials": trials,
        **_seconds_left(trials, known),
    }


def _seconds_left(trials: Sequence[dict[str, Any]], known: Sequence[Measured]) -> dict[str, float | None]:
    """Until the last trial ends, with bounds, when as many run at once as do now; None where nothing was measured."""
    measured = [Measured(trial["config"], pace) for trial in trials if (pace := trial["seconds_per_epoch"])]
    # The running ones first: they hold the slots.
    rest = [trial for state in ("running", "pending") for trial in trials if trial["state"] == state]
    work = [
        Work(trial["config"], trial["epochs_total"] - trial["epochs_done"], trial["seconds_per_epoch"])
        for trial in rest
    ]
    left = estimate(work, [*known, *measured], sum(trial["state"] == "running" for trial in trials))
    if left is None:
        return dict.fromkeys(("seconds_left", "seconds_left_low", "seconds_left_high"))
    return {"seconds_left": left.seconds, "seconds_left_low": left.low, "seconds_left_high": left.high}


def _headline(grid: dict[str, Any]) -> str:
    counts, total = grid["counts"], len(grid["trials"])
    words = [f"{counts.get('done', 0)} of {total} trials done"]
    interrupted = sum(trial["interrupted"] for trial in grid["trials"])
    counts = {**counts, "interrupted": interrupted, "pending": counts.get("pending", 0) - interrupted}
    words += [
        f"{counts[state]} {state}" for state in ("running", "interrupted", "pending", "failed") if counts.get(state)
    ]
    rest = ""
    if grid["seconds_left"]:
        left = Estimate(grid["seconds_left_low"], grid["seconds_left"], grid["seconds_left_high"], 0.0)
        # Where nothing runs now, nobody knows how many will at once.
        turns = not counts.get("running") and counts["interrupted"] + counts["pending"] > 1
        rest = f"; about {interval(left)} left" + (" for one trial after the other" if turns else "")
    return f"[bold]{escape(grid['name'])}[/]: {', '.join(words)}{rest}"


def _progress_text(trial: dict[str, Any]) -> str:
    parts = [_epochs(trial)]
    if trial["top1_error"] is not None:
        parts.append(f"top-1 error {trial['top1_error']:.2f} %")
    if trial["seconds_left"] is not None:
        parts.append(f"{duration(trial['seconds_left'])} left")
    if trial["host"]:
        parts.append(f"on {trial['host']}, {trial['device']}")
    return ", ".join(parts)


def _matrix(grid: dict[str, Any]) -> tuple[list[str], list[tuple[str, list[list[dict[str, Any]]]]]]:
    """Columns (networks) and rows (what else differs) of a grid, each cell the trials that differ only in seed."""
    networks: list[str] = []
    rows: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for trial in grid["trials"]:
        network = trial["network"]
        if network not in networks:
            networks.append(network)
        parts = [part for part in trial["name"].split("/") if not part.startswith("seed") and part != network]
        rows.setdefault("/".join(parts), {}).setdefault(network, []).append(trial)
    return networks, [(label, [cells.get(network, []) for network in networks]) for label, cells in rows.items()]


def _rule(grid: dict[str, Any]) -> str:
    """The rule by which a done trial's error is chosen, and that of the reports where they follow another."""
    if grid["selection"] in SHOWN_RULES:
        return str(grid["selection"])
    return f"best_test; in reports {grid['selection']}"


def _cell(trials: Sequence[dict[str, Any]], selection: str) -> tuple[str, str]:
    """Return the text of a cell and its state: the mean error of the seeds that are done, then how far the rest is.

    `25.00 % (1/2 seeds); seed 1: 2 of 4 epochs, 25.50 %, 40 s left`.
    """
    if not trials:
        return "", "none"
    states = Counter(trial["state"] for trial in trials)
    errors = [trial[SHOWN_RULES.get(selection, BEST)] for trial in trials if trial["state"] == "done"]
    seeds = f" ({states['done']}/{len(trials)} seeds)" if len(trials) > 1 else ""
    parts = [f"{sum(errors) / len(errors):.2f} %{seeds}"] if errors else []
    under_way = [trial for trial in trials if trial["state"] in ("failed", "running") or trial["interrupted"]]
    under_way.sort(key=lambda trial: ("failed", "running", "pending").index(trial["state"]))
    for trial in under_way[:1]:
        seed = f"seed {trial['config']['seed']}: " if len(trials) > 1 else ""
        parts.append(f"{seed}{_under_way(trial)}")
    if len(under_way) > 1:
        parts.append(f"{len(under_way) - 1} more under way")
    state = next((state for state in ("failed", "running") if states[state]), "running" if errors else "pending")
    return "; ".join(parts) or "waiting", "done" if len(errors) == len(trials) else state


def _epochs(trial: dict[str, Any]) -> str:
    """Return the epochs that are done, as `plan` says it."""
    return f"{trial['epochs_done']} of {counted(trial['epochs_total'], 'epoch')}"


def _under_way(trial: dict[str, Any]) -> str:
    """Return how far a trial is that failed, is interrupted or runs."""
    if trial["state"] == "failed":
        return trial["error_class"] or "failed"
    progress = _epochs(trial)
    if trial["interrupted"]:
        return f"{progress}, interrupted"
    error = "" if trial["top1_error"] is None else f", {trial['top1_error']:.2f} %"
    left = "" if trial["seconds_left"] is None else f", {duration(trial['seconds_left'])} left"
    return progress + error + left


STYLES = {"done": "green", "running": "blue", "failed": "red", "pending": "dim", "none": ""}


def _matrices(grids: Sequence[dict[str, Any]]) -> RenderableType:
    parts: list[RenderableType] = []
    for grid in grids:
        networks, rows = _matrix(grid)
        table = Table(box=None, pad_edge=False)
        table.add_column(f"top-1 error ({_rule(grid)})", overflow="fold")
        for network in networks:
            table.add_column(escape(network), justify="right", overflow="fold")
        for label, cells in rows:
            texts = [_cell(cell, grid["selection"]) for cell in cells]
            table.add_row(escape(label), *(Text(text, STYLES[state]) for text, state in texts))
        parts += [Text.from_markup(_headline(grid)), table, Text("")]
    return Group(*parts) if parts else Text("no grid was run yet")


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="{every}">
<meta name="viewport" content="width=device-width"><title>{title}</title><style>
:root {{ color-scheme: light dark }}
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem }}
table {{ border-collapse: collapse; margin: 0 0 2rem }}
th, td {{ text-align: right; padding: .3rem .9rem; border-bottom: 1px solid #8884 }}
th:first-child, td:first-child {{ text-align: left }}
.done {{ color: light-dark(#116329, #5bd676) }} .failed {{ color: light-dark(#b3261e, #ff8a80) }}
.running {{ color: light-dark(#0b57d0, #8ab4f8) }} .pending {{ opacity: .55 }}
</style></head><body>
{body}
<p class="pending">Written {written}; refreshes every {every} s.</p>
</body></html>
"""


def _write_page(path: Path, grids: Sequence[dict[str, Any]], every: float) -> None:
    """The same matrices as a page; written whole or not at all. Raises PageError where that fails."""
    body = []
    for grid in grids:
        networks, rows = _matrix(grid)
        heads = "".join(f"<th>{html_lib.escape(network)}</th>" for network in networks)
        lines = []
        for label, cells in rows:
            texts = [_cell(cell, grid["selection"]) for cell in cells]
            values = "".join(f'<td class="{state}">{html_lib.escape(text)}</td>' for text, state in texts)
            lines.append(f"<tr><td>{html_lib.escape(label)}</td>{values}</tr>")
        name, _, rest = html_lib.escape(Text.from_markup(_headline(grid)).plain).partition(": ")
        top = f"<tr><th>{html_lib.escape(f'top-1 error ({_rule(grid)})')}</th>{heads}</tr>"
        body.append(f"<h2>{name}</h2><p>{rest}</p><table>{top}{''.join(lines)}</table>")
    page = PAGE.format(
        every=max(1, round(every)),
        title=html_lib.escape(", ".join(grid["name"] for grid in grids) or "orchestrate"),
        body="\n".join(body) or "<p>no grid was run yet</p>",
        written=time.strftime("%Y-%m-%d %H:%M:%S"),
    )
    temporary = path.with_name(f"{path.name}.{os.getpid()}.writing")
    try:
        temporary.write_text(page, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        message = f"cannot write {path}: {error.strerror}; name another file with --html"
        raise PageError(message, of_system(error)) from error
