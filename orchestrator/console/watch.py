"""Show grids as tables that fill up, on the terminal."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from orchestrator.console.status import headline, status_of, trial_under_way
from orchestrator.records import draw_of
from orchestrator.text import counted

# The key of a trial's error under the rules that use its last and best epochs alone.
BEST = "best_top1_error"

SHOWN_RULES = {"best_test": BEST, "last": "top1_error"}


def watch_grids(db: str, grids: Sequence[str] | None, *, every: float, once: bool) -> None:
    """Show the matrix of methods and networks again and again until Ctrl-C.

    Raises DatabaseError where the database cannot be read.
    """
    from orchestrator.database import DatabaseAway, open_database

    console = Console(highlight=False)
    if not console.is_terminal:
        # Output to a program or a file has room for every name.
        console = Console(highlight=False, width=10_000)
    # Ctrl-C is the normal way to stop watching.
    with open_database(db, readonly=True) as database, suppress(KeyboardInterrupt):
        for line in (*database.warnings, *database.leave_out_broken(numbers=False)):
            console.print(f"warning: {escape(line)}", soft_wrap=True)
        if once or not console.is_terminal:
            console.print(_matrices(status_of(database, grids)))
            return
        with Live(console=console, screen=False, auto_refresh=False) as live:
            while True:
                try:
                    live.update(_matrices(status_of(database, grids)), refresh=True)
                except DatabaseAway as error:
                    # The database may be back at the next poll.
                    live.update(Text(f"{time.strftime('%H:%M:%S')}: {error}"), refresh=True)
                time.sleep(every)


def _matrix(grid: dict[str, Any]) -> tuple[list[str], list[tuple[str, list[list[dict[str, Any]]]]]]:
    """Return columns (networks) and rows (other differences) of a grid; the trials of a cell differ only in seed.

    The draws of a row are one cell.
    """
    networks: list[str] = []
    rows: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for trial in grid["trials"]:
        network = trial["network"]
        if network not in networks:
            networks.append(network)
        draw = draw_of(trial["name"])
        name = draw[0] if draw else trial["name"]
        parts = [part for part in name.split("/") if not part.startswith("seed") and part != network]
        label = "/".join(parts) + (", draws" if draw else "")
        rows.setdefault(label, {}).setdefault(network, []).append(trial)
    return networks, [(label, [cells.get(network, []) for network in networks]) for label, cells in rows.items()]


def _rule(grid: dict[str, Any]) -> str:
    """Return the rule by which a done trial's error is chosen, and the reports' rule where it is another one."""
    if grid["selection"] in SHOWN_RULES:
        return str(grid["selection"])
    return f"best_test; in reports {grid['selection']}"


def _cell(trials: Sequence[dict[str, Any]], selection: str) -> tuple[str, str]:
    """Return the text of a cell and its state: the mean error of the seeds that are done, then how far the rest is.

    `25.00 % (1/2 seeds); seed 1: 2 of 4 epochs, 25.50 %, 40 s left`. Of draws it is how many are over: no test
    image has a say in them.
    """
    if not trials:
        return "", "none"
    states = Counter(trial["state"] for trial in trials)
    if draw_of(trials[0]["name"]):
        over = states["done"] + states["failed"]
        failed = f", {states['failed']} failed" if states["failed"] else ""
        running = f"; {states['running']} running" if states["running"] else ""
        state = "done" if over == len(trials) else "running" if over or states["running"] else "pending"
        return f"{over} of {counted(len(trials), 'draw')}{failed}{running}", state
    errors = [trial[SHOWN_RULES.get(selection, BEST)] for trial in trials if trial["state"] == "done"]
    seeds = f" ({states['done']}/{len(trials)} seeds)" if len(trials) > 1 else ""
    parts = [f"{sum(errors) / len(errors):.2f} %{seeds}"] if errors else []
    under_way = [trial for trial in trials if trial["state"] in ("failed", "running") or trial["interrupted"]]
    under_way.sort(key=lambda trial: ("failed", "running", "pending").index(trial["state"]))
    for trial in under_way[:1]:
        seed = f"seed {trial['config']['seed']}: " if len(trials) > 1 else ""
        parts.append(f"{seed}{trial_under_way(trial)}")
    if len(under_way) > 1:
        parts.append(f"{len(under_way) - 1} more under way")
    state = next((state for state in ("failed", "running") if states[state]), "running" if errors else "pending")
    return "; ".join(parts) or "waiting", "done" if len(errors) == len(trials) else state


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
        parts += [Text.from_markup(headline(grid)), table, Text("")]
    return Group(*parts) if parts else Text("no grid was run yet")
