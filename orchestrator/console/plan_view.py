"""Print a plan: the trials, the reason why a trial would run, and their cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from orchestrator.planning import interval
from orchestrator.text import counted, size

if TYPE_CHECKING:
    from orchestrator.planning import Forecast, Plan


def announce_plan(plan: Plan) -> None:
    """Print before a run how many trials the grid has, what happens to them, and whose code or data changed."""
    console = Console(highlight=False, soft_wrap=True)
    for line in (plan.summary(), *plan.outdated()):
        console.print(escape(line))


def print_plan(plan: Plan, cost: Forecast | None = None) -> None:
    """Print every trial of a grid with its state and the reason why it would run or not, and the cost of the run."""
    console = Console(highlight=False)
    if not console.is_terminal:
        longest = max((len(entry.trial.name) for entry in plan.entries), default=0)
        for entry in plan.entries:
            print(f"{entry.trial.key[:10]}  {entry.status:<11}  {entry.trial.name:<{longest}}  {entry.reason}")
        print(plan.summary())
        for line in (*plan.outdated(), *plan.together(), *cost_lines(cost, plan)):
            print(line)
        return
    colours = {"new": "cyan", "interrupted": "yellow", "done": "green", "failed": "red", "running": "blue"}
    table = Table(box=None, pad_edge=False)
    for heading in ("key", "trial", "state", "why"):
        table.add_column(heading, overflow="fold", no_wrap=heading in ("key", "state"))
    for entry in plan.entries:
        colour = colours.get(entry.status, "")
        table.add_row(entry.trial.key[:10], escape(entry.trial.name), Text(entry.status, colour), escape(entry.reason))
    console.print(table)
    console.print(escape(plan.summary()))
    for line in (*plan.outdated(), *plan.together(), *cost_lines(cost, plan)):
        console.print(escape(line))


def cost_lines(cost: Forecast | None, plan: Plan) -> list[str]:
    """Return the lines of a forecast, one per network and one for all, or a line that says why there is none."""
    if cost is None:
        if not plan.pending:
            return []
        return [
            "no estimate of time, memory and disk: nothing like these trials was measured in this database yet; "
            "`orchestrate run` measures first (canary runs, epochs), and `plan` in another terminal shows it then"
        ]
    lines = []
    for network in cost.networks:
        seconds = f"{network.slowest:.3g} s per epoch"
        if network.fastest < network.slowest:
            seconds = f"{network.fastest:.3g} to {seconds}"
        memory = "" if network.peak_memory_bytes is None else f", peak memory {size(network.peak_memory_bytes)}"
        sources = [(network.trained, "trial"), (network.rehearsed, "canary run")]
        source = " and ".join(counted(count, word) for count, word in sources if count)
        lines.append(f"{network.network}: {seconds}{memory} (measured on {source})")
    left = cost.left
    if left.seconds:
        once = ", one after the other" if cost.slots == 1 else f", {cost.slots} at once on this machine"
        once = once if cost.trials > 1 else ""
        disk = "" if cost.disk_bytes is None else f", {size(cost.disk_bytes)} of checkpoints"
        lines.append(f"about {interval(left)}{once}; {left.device_seconds / 3600:.3g} device-hours{disk}")
    return lines
