"""Count the seeds behind the rows of a table, and word the rules of its caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from reports.results import Selection
from reports.table import Row

TIME_NOTE = "another process shared the device (or may have) in some of the epochs that this time counts"


def unselected(rows: Sequence[Row], selection: Selection) -> str:
    """Return a caption's sentence on done trials that lack the split or the epochs that the rule asks for."""
    entries = [each for row in rows for each in row.entries if each.quantity != "epoch_seconds"]
    # A trial may lack a second network's number, say, and have others: that is not the rule's doing.
    without = {key for each in entries for key, _, state in each.absent if state == "done"}
    without -= {found.key for each in entries for found in each.samples}
    if selection.rule == "best_val":
        lacking = "no validation split (`validation` in the grid file)"
    elif selection.last > 1:
        lacking = f"fewer than {selection.last:,} epochs"
    else:
        return ""
    if not without:
        return ""
    trials = "One finished trial has" if len(without) == 1 else f"{len(without):,} finished trials have"
    return f"{trials} {lacking} and so no number under this rule."


SHOWN = {
    "mean_std": "Mean ± sample standard deviation over seeds.",
    "mean_ci95": "Mean ± half the 95 % confidence interval over seeds.",
    "median_iqr": "Median ± interquartile range over seeds.",
    "each": "The value of every seed, in the order of seeds.",
}


def count_seeds(rows: Sequence[Row], show: str = "mean_std") -> tuple[list[Row], str]:
    """Return the rows with their number of seeds, in the entries if they differ, and the caption's sentence on it."""
    counted = []
    for row in rows:
        counts = [(each.n, each.planned, each.diverged) for each in row.entries if each.planned]
        n, planned, diverged = next((each for each in counts if each[0]), counts[0] if counts else (0, 0, 0))
        seeds = f"{n}/{planned}" + (f", {diverged} diverged" if diverged and planned > 1 else "") if planned else ""
        counted.append(replace(row, n=n, planned=planned, seeds=seeds))
    plans = {row.planned for row in counted if row.planned}
    if not plans:
        return [replace(row, seeds="") for row in counted], ""
    sentence = "One seed." if plans == {1} else SHOWN[show]
    complete = all(row.n == row.planned for row in counted)
    if len(plans) == 1 and (complete or plans == {1}):
        counted = [replace(row, seeds="") for row in counted]
        sentence = sentence.replace("over seeds", f"over {min(plans)} seeds")
    else:
        sentence += " Seeds k/n: k of n are there."
    return counted, sentence
