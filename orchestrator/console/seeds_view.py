"""Print what a grid's seeds separate, and what closing its open pairs costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from orchestrator.text import counted

if TYPE_CHECKING:
    from orchestrator.planning import GroupSeeds, Pair

# Open pairs of a group that are listed; all of them are in the JSON.
LISTED = 10

SOURCES = {
    "grid": "as its own seeds differ",
    "database": "as the rows of other grids on this data set differ, having no two seeds of its own yet",
    "binomial": "by the binomial noise of the test images alone, the least there can be, having no two seeds yet",
}


def print_seeds(groups: Sequence[GroupSeeds]) -> None:
    """Print per group and metric the spread, what seeds separate, and the open pairs with their cost."""
    console = Console(highlight=False, soft_wrap=True)
    if not groups:
        console.print("no two rows of this grid are compared: it has one row in every group")
    for group in groups:
        for line in _lines(group):
            console.print(escape(line))


def _lines(group: GroupSeeds) -> list[str]:
    head = f"{group.group}, {group.metric}: {counted(group.rows, 'row')}, {counted(group.seeds, 'seed')} each"
    if group.spread is None:
        return [f"{head}; nothing tells how much this metric scatters: run two seeds of two rows first"]
    lines = [f"{head}; differences of two rows scatter by {group.spread:.2g}, {SOURCES[group.source]}"]
    several = "" if group.rows == 2 else f", which is 5 % for the best of {group.rows}"
    separates = ", ".join(f"{n} seeds {difference:.2g}" for n, difference in group.separates.items())
    lines.append(f"  separated in 80 % of cases: {separates} (a pair at p < {group.level:.2g}{several})")
    counts = [(group.separated, "separated"), (len(group.open), "open"), (group.untested, "without a shared seed")]
    lines.append("  pairs: " + ", ".join(f"{count} {what}" for count, what in counts if count))
    lines += [f"    {_pair_text(pair)}" for pair in group.open[:LISTED]]
    if len(group.open) > LISTED:
        lines.append(f"    and {len(group.open) - LISTED} more (--json has all)")
    if group.closing:
        lines.append(
            f"  closing all that can be: {counted(group.closing, 'more trial')}{_hours(group.closing_seconds)}"
        )
    return lines


def _pair_text(pair: Pair) -> str:
    p = "no test below 3 seeds" if pair.p is None else f"p {pair.p:.2g}"
    text = f"{pair.first} - {pair.second}: {pair.difference:+.2g} over {counted(pair.n, 'seed')}, {p}"
    if pair.needed is None or pair.trials is None:
        return f"{text}; not even 1,000 seeds separate as little"
    return f"{text}; {pair.needed} seeds close it: {counted(pair.trials, 'more trial')}{_hours(pair.device_seconds)}"


def _hours(seconds: float | None) -> str:
    return "" if seconds is None else f", {seconds / 3600:.3g} device-hours"
