"""Read what the live page shows above its tables: how far the grids are, what runs, what has failed."""

from __future__ import annotations

import socket
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

from orchestrator.console import status_of, triage_of
from orchestrator.console.status import progress_words, trial_under_way
from orchestrator.database import Database, open_database
from orchestrator.logs import log_end

# Most trials under way that are listed, most of them whose logs' ends are, and most names of a failure's trials.
LISTED, LOGS, NAMED = 50, 16, 5
# Dashboards whose addresses an attempt's record may have, with their titles.
DASHBOARDS = {"ray": "Ray's dashboard", "grafana": "Grafana"}


class Seen(NamedTuple):
    """Result of one look at the database: values for the page, and a mark that changes when its tables do."""

    state: dict[str, Any]
    mark: Hashable


class Look:
    """Look at a database again and again, also after it was away; closed by `close`.

    `grids` are those that are shown (all of them when empty). Errors are those of `open_database` and of an unknown
    grid.
    """

    def __init__(self, location: str, grids: Sequence[str] | None, options: Sequence[str]) -> None:
        self.location, self.grids, self.options = location, grids, options
        self._database: Database | None = None

    def __call__(self) -> Seen:
        """Return what the live page shows now."""
        try:
            if self._database is None:
                self._database = open_database(self.location, readonly=True)
                self._database.leave_out_broken(numbers=False)
            return look(self._database, self.grids, self.options)
        except Exception:
            # The next one may find another file or server at the same place.
            self.close()
            raise

    def close(self) -> None:
        """Close the database."""
        if self._database is not None:
            self._database.close()
            self._database = None


def look(database: Database, grids: Sequence[str] | None, options: Sequence[str]) -> Seen:
    """Return what the live page shows now; `options` are those of the commands that it prints."""
    statuses = status_of(database, grids, options)
    failures = triage_of(database, grids, options)
    mark = tuple(
        (grid["name"], trial["key"], trial["state"], trial["interrupted"], trial["epochs_done"])
        for grid in statuses
        for trial in grid["trials"]
    )
    state = {
        "host": socket.gethostname(),
        "grids": [_grid(database, grid) for grid in statuses],
        "failures": [_failure(failure) for failure in failures],
    }
    return Seen(state, mark)


def _grid(database: Database, grid: dict[str, Any]) -> dict[str, Any]:
    under_way = [trial for trial in grid["trials"] if trial["state"] == "running" or trial["interrupted"]]
    under_way.sort(key=lambda trial: trial["interrupted"])
    trials = [_trial(database, trial, with_log=place < LOGS) for place, trial in enumerate(under_way[:LISTED])]
    links = {name: address for trial in trials for name, address in trial.pop("dashboards").items()}
    return {
        "name": grid["name"],
        "progress": progress_words(grid),
        "done": grid["counts"].get("done", 0),
        "total": len(grid["trials"]),
        "running": grid["counts"].get("running", 0),
        "continue": grid["continue"],
        "trials": trials,
        "more": len(under_way) - len(trials),
        "links": [{"title": DASHBOARDS[name], "address": address} for name, address in links.items()],
    }


def _trial(database: Database, trial: dict[str, Any], *, with_log: bool) -> dict[str, Any]:
    attempts = [row for row in database.attempts(trial["key"]) if row.purpose == "train"]
    newest = attempts[-1] if attempts else None
    running = trial["state"] == "running"
    given = newest.environment.get("dashboards") if newest and running else None
    addresses = given if isinstance(given, dict) else {}
    return {
        "name": trial["name"],
        "progress": trial_under_way(trial),
        "done": trial["epochs_done"],
        "total": trial["epochs_total"],
        "place": f"{trial['host']}, {trial['device']}" if trial["host"] else None,
        "log": newest.log if newest else None,
        "end": log_end(newest.log, trial["key"], newest.host) if newest and with_log else None,
        # A database may come from anybody: no other scheme becomes a link.
        "dashboards": {
            name: addresses[name] for name in DASHBOARDS if str(addresses.get(name)).startswith(("http://", "https://"))
        },
    }


def _failure(failure: dict[str, Any]) -> dict[str, Any]:
    names = failure["trials"]
    return {
        "grid": failure["grid"],
        "class": failure["error_class"] or "unknown",
        "error": failure["error"],
        "count": len(names),
        "trials": names[:NAMED],
        "remedy": failure["remedy"],
        "retry": failure["retry"],
        "log": failure["log"],
        "excerpt": "\n".join(failure["excerpt"]),
    }
