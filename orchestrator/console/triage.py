"""Failures by cause; and the commands that continue a grid, for the present folder."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from orchestrator.logs import log_end
from orchestrator.records import trial_in_words
from orchestrator.text import counted, shortlist
from trainer.paths import PathError, user_path

if TYPE_CHECKING:
    from orchestrator.database import Database, FailureRow

EXCERPT_LINES = 12


def triage_of(database: Database, grids: Sequence[str] | None, options: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return the failures that still stand, grouped by cause, as plain values; `options` are the retry command's."""
    from orchestrator.failures import REMEDIES
    from orchestrator.storage import absolute

    names = selected([grid.name for grid in database.grids()], grids)
    sources = {grid.name: grid.source for grid in database.grids()}
    retry = ["--retry-failed", *options]
    return [
        {
            "grid": name,
            "error_class": failure.error_class,
            "error": failure.error,
            "fingerprint": failure.fingerprint,
            "trials": list(failure.trial_names),
            "log": absolute(failure.log) if failure.log else None,
            "excerpt": _excerpt(failure),
            "remedy": REMEDIES.get(failure.error_class or "", ""),
            "retry": None if database.copied else rerun(sources[name], failure.environment, retry),
            "run_as": None if "places" in failure.environment else failure.environment.get("command"),
        }
        for name in names
        for failure in database.failures(name)
    ]


def _excerpt(failure: FailureRow) -> list[str]:
    """Return the end of the log or, where the log cannot be read from here, of the traceback."""
    end = log_end(failure.log, failure.key, failure.host) or (failure.error_text or "").strip()
    return end.splitlines()[-EXCERPT_LINES:]


def print_triage(failures: Sequence[dict[str, Any]]) -> None:
    """Print one block per cause: its class, the trials, an excerpt, the log and the command that tries them again."""
    console = Console(highlight=False, soft_wrap=True)
    if not failures:
        console.print("no failed trials")
    for failure in failures:
        count = len(failure["trials"])
        console.print(
            f"[red bold]{escape(failure['error_class'] or 'unknown')}[/] in {escape(failure['grid'])}: "
            f"{counted(count, 'trial')}  [dim](fingerprint {failure['fingerprint']})[/]"
        )
        console.print(f"  {escape(failure['error'] or '')}", style="bold")
        shown = shortlist([trial_in_words(name) for name in failure["trials"]], 5)
        console.print(f"  trials:  {escape(shown)}")
        if failure["log"]:
            console.print(f"  log:     {escape(failure['log'])}")
        console.print(f"  remedy:  {escape(failure['remedy'])}")
        console.print(f"  retry:   {escape(failure['retry'] or 'with the original of this copy')}")
        if failure["run_as"] and failure["retry"]:
            console.print(f"  run as:  {escape(failure['run_as'])} (add its --checkpoints and --data-root, if any)")
        for line in failure["excerpt"]:
            console.print(f"    | {escape(line)}", style="dim")


def rerun(source: str, environment: Mapping[str, Any], options: Sequence[str]) -> str:
    """Return the command that runs a grid file again; `options` are those of this command, its database among them.

    `environment` is that of an attempt. Its places of data and checkpoints are added where this folder or environment
    would put them elsewhere.
    """
    from orchestrator.storage import absolute

    here = {
        "--data-root": absolute(_default_data_root()),
        "--address": os.environ.get("RAY_ADDRESS"),
    }
    places = environment.get("places", {}).items()
    elsewhere = [
        (option, _from_here(place))
        for option, value in places
        for place in (value if isinstance(value, list) else [value])
        if place and place != here.get(option)
    ]
    places = [word for pair in elsewhere for word in pair]
    return shlex.join(["orchestrate", "run", _from_here(source), *options, *places])


def _default_data_root() -> str:
    """Return the data root of a command without `--data-root`, as its option parses it."""
    root = os.environ.get("ORCHESTRATE_DATA") or "data"
    with suppress(PathError):
        return root if "://" in root else str(user_path(root))
    return root


def _from_here(location: str) -> str:
    """Return the shortest name of a location in this folder."""
    if not os.path.isabs(location):
        return location
    relative = os.path.relpath(location)
    return location if relative.split(os.sep)[0] == os.pardir else relative


def selected(names: Sequence[str], wanted: Sequence[str] | None) -> list[str]:
    """Return the wanted names, or all of them if `wanted` is empty; raises DatabaseError for an unknown name."""
    if not wanted:
        return list(names)
    missing = [name for name in wanted if name not in names]
    if missing:
        from orchestrator.database import DatabaseError

        raise DatabaseError(f"no grid named {missing[0]!r} in this database (it holds: {', '.join(names) or 'none'})")
    return list(wanted)
