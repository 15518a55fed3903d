"""Print what a grid's seeds separate, and what closing its open pairs costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from orchestrator.planning import RATES, seeds_for
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


def print_seeds(groups: Sequence[GroupSeeds], differences: Sequence[float] = (), rule: Sequence[str] = ()) -> None:
    """Print per group and metric the spread, what seeds separate, and the open pairs with their cost.

    Groups of which the same is to be said are named together. `differences` are those to name the seeds for that they
    need, `rule` are lines about seeds that come by a rule.
    """
    console = Console(highlight=False, soft_wrap=True)
    if not groups:
        console.print("no two rows of this grid are compared: it has one row in every group")
    alike: dict[tuple[str, ...], list[GroupSeeds]] = {}
    for group in groups:
        alike.setdefault((group.metric, *_lines(group, differences)), []).append(group)
    for place, ((metric, head, *lines), members) in enumerate(alike.items()):
        names = ", ".join(group.group for group in members)
        several = " in each" if len(members) > 1 else ""
        if place:
            console.print()
        console.print(escape(f"{names}; {metric}: {head.replace(' rows,', f' rows{several},', 1)}"))
        for line in lines:
            console.print(escape(line))
    for line in rule:
        console.print(escape(line))


def _lines(group: GroupSeeds, differences: Sequence[float]) -> list[str]:
    """Return what is to be said of a group, without its name: a head, and the lines below it."""
    head = f"{counted(group.rows, 'row')}, {counted(group.seeds, 'seed')} each"
    if group.spread is None:
        return [f"{head}; nothing tells how much this metric scatters: run two seeds of two rows first"]
    unit = " points" if group.metric in RATES else ""
    lines = [f"{head}; differences of two rows scatter by {group.spread:.2g}{unit}, {SOURCES[group.source]}"]
    several = "" if group.rows == 2 else f", which is 5 % for the best of {group.rows}"
    separates = ", ".join(f"{difference:.2g} by {n} seeds" for n, difference in group.separates.items())
    lines.append(f"  separated in 80 % of cases{unit and ', in points'}: {separates}")
    if needs := seeds_for(group, differences or _round_differences(group.spread)):
        wanted = "; ".join(
            f"for {each:g} {'more than 1,000' if count is None else count}" for each, count in needs.items()
        )
        lines.append(f"  seeds that are needed: {wanted}")
    lines.append(f"  a pair is separated at p < {group.level:.2g}{several}")
    counts = [(group.separated, "separated"), (len(group.open), "open"), (group.untested, "without a shared seed")]
    lines.append("  pairs: " + ", ".join(f"{count} {what}" for count, what in counts if count))
    lines += [f"    {_pair_text(pair)}" for pair in group.open[:LISTED]]
    if len(group.open) > LISTED:
        lines.append(f"    and {len(group.open) - LISTED} more (--json has all)")
    if group.closing:
        more = counted(group.closing, "more trial")
        lines.append(f"  closing all that can be: {more}{_hours(group.closing_seconds)}")
    return lines


def _round_differences(spread: float) -> list[float]:
    """Return round differences about as large as the spread, the largest first."""
    unit = 10.0 ** math.floor(math.log10(spread))
    return [float(f"{factor * unit:.3g}") for factor in (10, 5, 2, 1)]


def _pair_text(pair: Pair) -> str:
    untested = "no test below 3 seeds" if pair.n < 3 else "no test of equal differences"
    p = untested if pair.p is None else f"p {pair.p:.2g}"
    text = f"{pair.first} - {pair.second}: {pair.difference:+.2g} over {counted(pair.n, 'seed')}, {p}"
    if pair.needed is None or pair.trials is None:
        return f"{text}; not even 1,000 seeds separate as little"
    return f"{text}; {pair.needed} seeds close it: {counted(pair.trials, 'more trial')}{_hours(pair.device_seconds)}"


def _hours(seconds: float | None) -> str:
    return "" if seconds is None else f", {seconds / 3600:.3g} device-hours"
