"""Show grids as tables that fill up, on the terminal or as a page."""

from __future__ import annotations

import html as html_lib
import os
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from orchestrator.console.status import headline, progress_words, status_of, trial_under_way
from orchestrator.errors import OrchestrateError
from orchestrator.exit_codes import of_system

# The key of a trial's error under the rules that use its last and best epochs alone.
BEST = "best_top1_error"

SHOWN_RULES = {"best_test": BEST, "last": "top1_error"}


class PageError(OrchestrateError):
    """The page cannot be written; the message says where, why, and what to do."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def watch_grids(db: str, grids: Sequence[str] | None, *, every: float, once: bool, html: Path | None) -> None:
    """Show the matrix of methods and networks again and again until Ctrl-C, or write it as a page.

    Raises DatabaseError where the database cannot be read, PageError where the page cannot be written.
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
        if html is not None:
            warned = False
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
                if not warned:
                    warned = True
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
                    # The database may be back at the next poll.
                    live.update(Text(f"{time.strftime('%H:%M:%S')}: {error}"), refresh=True)
                time.sleep(every)


def _matrix(grid: dict[str, Any]) -> tuple[list[str], list[tuple[str, list[list[dict[str, Any]]]]]]:
    """Return columns (networks) and rows (other differences) of a grid; the trials of a cell differ only in seed."""
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
    """Return the rule by which a done trial's error is chosen, and the reports' rule where it is another one."""
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
    """Write the same matrices as a page, atomically. Raises PageError where that fails."""
    body = []
    for grid in grids:
        networks, rows = _matrix(grid)
        heads = "".join(f"<th>{html_lib.escape(network)}</th>" for network in networks)
        lines = []
        for label, cells in rows:
            texts = [_cell(cell, grid["selection"]) for cell in cells]
            values = "".join(f'<td class="{state}">{html_lib.escape(text)}</td>' for text, state in texts)
            lines.append(f"<tr><td>{html_lib.escape(label)}</td>{values}</tr>")
        name, progress = html_lib.escape(grid["name"]), html_lib.escape(progress_words(grid))
        top = f"<tr><th>{html_lib.escape(f'top-1 error ({_rule(grid)})')}</th>{heads}</tr>"
        body.append(f"<h2>{name}</h2><p>{progress}</p><table>{top}{''.join(lines)}</table>")
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
