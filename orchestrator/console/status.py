"""Progress of the grids, read from the database alone: from any terminal or machine, during a run or after it."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from orchestrator.console.triage import rerun, selected
from orchestrator.identity import Numbers, same_numbers
from orchestrator.planning import Estimate, Measured, Work, as_measured, interval, is_interrupted, make_estimate
from orchestrator.records import draw_of, row_identity, row_of, trial_in_words
from orchestrator.text import counted, duration

if TYPE_CHECKING:
    from orchestrator.database import Database, GridRow
    from orchestrator.records import LookRow, ProgressRow


def status_of(database: Database, grids: Sequence[str] | None, options: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return one entry per grid, as plain values: counts by state, the trials with their progress, seconds left.

    `options` are those of the command that continues interrupted trials.
    """
    stored = {grid.name: grid for grid in database.grids()}
    return [_grid_status(database, stored[name], options) for name in selected(list(stored), grids)]


def add_changes(database: Database, grids: Sequence[dict[str, Any]]) -> None:
    """Add to every trial of `status_of` its `changes`: code that trained it and stands otherwise in its file now."""
    from orchestrator.identity import changes
    from orchestrator.provenance import Files

    trials = [trial for grid in grids for trial in grid["trials"]]
    recorded, files = database.origins([trial["key"] for trial in trials]), Files()
    for trial in trials:
        changed = [
            change for origin in recorded.get(trial["key"], ()) for change in changes([origin], files.origin(origin))
        ]
        trial["changes"] = [change.to_dict() for change in dict.fromkeys(changed)]


def print_status(grids: Sequence[dict[str, Any]], options: Sequence[str] = ()) -> None:
    """Print the counts of every grid, then its running, interrupted and failed trials.

    `options` are those of the commands that are printed.
    """
    console = Console(highlight=False, soft_wrap=True)
    if not grids:
        first = shlex.join(["orchestrate", "run", "grids/quickstart.yaml", *options])
        console.print(f"no grid was run yet; `{escape(first)}` runs the first")
    for grid in grids:
        console.print(headline(grid))
        if grid.get("seeds"):
            console.print(f"  {escape(_seeds_text(grid['seeds']))}")
        for pair in grid["same_numbers"]:
            text = f"{pair['row']}: {pair['words']} as {pair['as']}: this difference changes nothing"
            console.print(f"  {escape(text)}")
        for trial in grid["trials"]:
            name = escape(trial_in_words(trial["name"]))
            if trial["state"] == "running":
                console.print(f"  [blue]running[/] {name}: {escape(_progress_text(trial))}")
            elif trial["interrupted"]:
                console.print(f"  interrupted {name}: {escape(_progress_text(trial))}")
            elif trial["state"] == "failed":
                console.print(f"  [red]failed [/] {name}: {escape(trial['error_class'] or 'unknown')}")
        if grid["continue"]:
            console.print(f"  `{escape(grid['continue'])}` continues what was interrupted")
        if grid["counts"].get("failed"):
            triage = shlex.join(["orchestrate", "triage", "--grid", grid["name"], *options])
            console.print(f"  `{escape(triage)}` says why")


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
    canaries = as_measured(database.measured(["canary"]))
    again = None
    # A run on a copy would repeat epochs that the original's run has trained meanwhile.
    if not database.copied and (interrupted := next((trial for trial in trials if trial["interrupted"]), None)):
        again = rerun(grid.source, database.attempts(interrupted["key"])[-1].environment, options)
    return {
        "name": grid.name,
        "counts": dict(counts),
        "selection": grid.report.get("selection", "best_test"),
        "continue": again,
        "search": _search(grid.report.get("tune"), trials),
        "seeds": _seeds(grid.report.get("seeds"), database.looks(grid.name) if "seeds" in grid.report else ()),
        "same_numbers": _same_numbers(rows),
        "trials": trials,
        **_seconds_left(trials, canaries),
    }


def _seeds(rule: Mapping[str, Any] | None, looks: Sequence[LookRow]) -> dict[str, Any] | None:
    """Return what the looks of a grid whose seeds come by a rule have decided, by pair; None without a rule."""
    if rule is None:
        return None
    last = {(look.row_key, look.baseline_key): look for look in looks}
    pairs = [
        {
            "row": look.row_name,
            "against": look.baseline_name,
            "look": look.look,
            "seeds": look.seeds,
            "p": look.p,
            "level": look.level,
            "separated": look.separated,
            "over": look.separated or look.seeds >= rule["most"],
        }
        for look in last.values()
    ]
    return {"rule": dict(rule), "pairs": pairs}


def _seeds_text(seeds: dict[str, Any]) -> str:
    """Return what is decided of the seeds of a grid."""
    rule, pairs = seeds["rule"], seeds["pairs"]
    separated = [pair for pair in pairs if pair["separated"]]
    counts = [
        (len(separated), "separated"),
        (sum(pair["over"] for pair in pairs) - len(separated), "open after the last look"),
        (sum(not pair["over"] for pair in pairs), "going on"),
    ]
    listed = ", ".join(f"{counted(count, 'pair')} {what}" for count, what in counts if count) or "no look yet"
    saved = sum(rule["most"] - pair["seeds"] for pair in separated)
    return f"seeds by rule, {rule['start']} to {rule['most']}: {listed}" + (
        f"; {counted(saved, 'seed')} saved" if saved else ""
    )


def _same_numbers(rows: Sequence[ProgressRow]) -> list[dict[str, str]]:
    """Return the rows of a grid, each with the first row before it that has its numbers in every epoch of all seeds."""
    by_row: dict[str, tuple[str, dict[Hashable, Numbers]]] = {}
    for trial in rows:
        if trial.numbers and not draw_of(trial.trial_name):
            _, numbers = by_row.setdefault(row_identity(trial.config), (row_of(trial.trial_name), {}))
            numbers[trial.config["seed"]] = Numbers(trial.numbers, trial.epochs_done)
    # Only rows that share a digest are compared: a grid may have thousands.
    with_digest: dict[str, dict[str, dict[Hashable, Numbers]]] = {}
    pairs = []
    for name, numbers in by_row.values():
        digests = {each.sha256 for each in numbers.values()}
        candidates = {other: before for digest in digests for other, before in with_digest.get(digest, {}).items()}
        alike = [(other, words) for other, before in candidates.items() if (words := same_numbers(numbers, before))]
        if alike:
            order = [each for each, _ in by_row.values()]
            other, words = min(alike, key=lambda pair: order.index(pair[0]))
            pairs.append({"row": name, "as": other, "words": words})
        for digest in digests:
            with_digest.setdefault(digest, {})[name] = numbers
    return pairs


def _search(tune: Mapping[str, Any] | None, trials: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Return how far the search of a tuned grid is: its draws, those that are over, and the winners by row."""
    if tune is None:
        return None
    draws = Counter(trial["state"] for trial in trials if draw_of(trial["name"]))
    rows = tune["rows"]
    return {
        "draws": draws.total(),
        "over": draws["done"] + draws["failed"],
        "failed": draws["failed"],
        "rows": len(rows),
        "winners": {name: row["winner"] for name, row in rows.items() if "winner" in row},
    }


def _seconds_left(trials: Sequence[dict[str, Any]], canaries: Sequence[Measured]) -> dict[str, float | None]:
    """Return the seconds until the last trial ends, with bounds, at the present number at once; None without data."""
    measured = [Measured(trial["config"], pace) for trial in trials if (pace := trial["seconds_per_epoch"])]
    # The running ones first: they hold the slots.
    rest = [trial for state in ("running", "pending") for trial in trials if trial["state"] == state]
    work = [
        Work(trial["config"], trial["epochs_total"] - trial["epochs_done"], trial["seconds_per_epoch"])
        for trial in rest
    ]
    left = make_estimate(work, [*canaries, *measured], sum(trial["state"] == "running" for trial in trials))
    if left is None:
        return dict.fromkeys(("seconds_left", "seconds_left_low", "seconds_left_high"))
    return {"seconds_left": left.seconds, "seconds_left_low": left.low, "seconds_left_high": left.high}


def headline(grid: dict[str, Any]) -> str:
    """Return the name of a grid of `status_of` and how far it is, as Rich's markup."""
    return f"[bold]{escape(grid['name'])}[/]: {progress_words(grid)}"


def progress_words(grid: dict[str, Any]) -> str:
    """Return how far a grid of `status_of` is: its trials by state, and the time left."""
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
        # Where no trial runs now, the number that will run at once is unknown.
        turns = not counts.get("running") and counts["interrupted"] + counts["pending"] > 1
        rest = f"; about {interval(left)} left" + (" for one trial after the other" if turns else "")
    if search := grid.get("search"):
        failed = f", {search['failed']} failed" if search["failed"] else ""
        rest += f"; search: {search['over']} of {counted(search['draws'], 'draw')} over{failed}, "
        rest += f"{len(search['winners'])} of {counted(search['rows'], 'row')} decided"
    return ", ".join(words) + rest


def _progress_text(trial: dict[str, Any]) -> str:
    parts = [_epochs(trial)]
    if trial["top1_error"] is not None:
        parts.append(f"top-1 error {trial['top1_error']:.2f} %")
    if trial["seconds_left"] is not None:
        parts.append(f"{duration(trial['seconds_left'])} left")
    if trial["host"]:
        parts.append(f"on {trial['host']}, {trial['device']}")
    return ", ".join(parts)


def _epochs(trial: dict[str, Any]) -> str:
    """Return the epochs that are done, as `plan` says it."""
    return f"{trial['epochs_done']} of {counted(trial['epochs_total'], 'epoch')}"


def trial_under_way(trial: dict[str, Any]) -> str:
    """Return how far a trial is that failed, is interrupted or runs."""
    if trial["state"] == "failed":
        return trial["error_class"] or "failed"
    progress = _epochs(trial)
    if trial["interrupted"]:
        return f"{progress}, interrupted"
    error = "" if trial["top1_error"] is None else f", {trial['top1_error']:.2f} %"
    left = "" if trial["seconds_left"] is None else f", {duration(trial['seconds_left'])} left"
    return progress + error + left
