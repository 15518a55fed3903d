"""What a person sees in the terminal where a grid runs: the plan, then a live table, or plain lines for programs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.estimate import Estimate, Measured, Work, estimate
from orchestrator.quantities import counted, duration, interval, size
from orchestrator.recorder import Observer

if TYPE_CHECKING:
    from orchestrator.failures import Failure
    from orchestrator.forecast import Forecast
    from orchestrator.plan import Plan
    from trainer.results import EpochResult

# A long run in a log file should be read, not scrolled: a trial's epochs are this many seconds apart there.
PLAIN_SECONDS = 10.0
SHOWN_ENDED = 6


def announce_plan(plan: Plan) -> None:
    """One line before a run: how many trials the grid has, and what happens to them."""
    Console(highlight=False, soft_wrap=True).print(escape(plan.summary()))


def print_plan(plan: Plan, cost: Forecast | None = None) -> None:
    """Every trial of a grid with its state and the reason why it would run or not, and what the run would cost."""
    console = Console(highlight=False)
    if not console.is_terminal:
        for entry in plan.entries:
            print(f"{entry.trial.key[:10]}  {entry.status:<11}  {entry.trial.name:<44}  {entry.reason}")
        print(plan.summary())
        for line in (*plan.together(), *cost_lines(cost)):
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
    for line in (*plan.together(), *cost_lines(cost)):
        console.print(escape(line))


def cost_lines(cost: Forecast | None) -> list[str]:
    """What a forecast says, a line per network and one for all; nothing where nothing was measured."""
    if cost is None:
        return []
    lines = []
    for each in cost.networks:
        seconds = f"{each.slowest:.3g} s per epoch"
        if each.fastest < each.slowest:
            seconds = f"{each.fastest:.3g} to {seconds}"
        memory = "" if each.peak_memory_bytes is None else f", peak memory {size(each.peak_memory_bytes)}"
        sources = [(each.trained, "trial"), (each.rehearsed, "canary run")]
        source = " and ".join(counted(count, word) for count, word in sources if count)
        lines.append(f"{each.network}: {seconds}{memory} (measured on {source})")
    left = cost.left
    if left.seconds:
        once = ", one after the other" if cost.slots == 1 else f", {cost.slots} at once on this machine"
        once = once if cost.trials > 1 else ""
        disk = "" if cost.disk_bytes is None else f", {size(cost.disk_bytes)} of checkpoints"
        lines.append(f"about {interval(left)}{once}; {left.device_seconds / 3600:.3g} device-hours{disk}")
    return lines


@contextmanager
def run_display(
    grid: str,
    configs: Mapping[str, Mapping[str, Any]],
    known: Sequence[Measured] = (),
    console: Console | None = None,
    *,
    done_before: int = 0,
) -> Iterator[Observer]:
    """Show a run while it goes on; the observer is what the scheduler talks to.

    `configs` are the configurations by trial name, `known` what was measured before; `done_before` other trials of
    the grid are done already.
    """
    console = console or _Console(highlight=False)
    board = _Board(grid, configs, known, console, done_before)
    if not console.is_terminal:
        try:
            yield _plain(board, console)
        finally:
            console.print(escape(board.conclusion()), soft_wrap=True)
        return
    try:
        with Live(board, console=console, refresh_per_second=4) as live:
            yield _lively(board, live)
    finally:
        console.print(escape(board.conclusion()))


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Go on in silence when whoever read our output has left (`| head`): the trials matter more."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@dataclass
class _Row:
    """One trial that was heard of."""

    device: str
    began: float
    last: float = 0.0
    epoch: int = 0
    new_epochs: int = 0
    error: float | None = None
    quality: str = ""
    state: str = "running"
    note: str = ""
    printed: float = 0.0

    def seconds_per_epoch(self) -> float | None:
        return (self.last - self.began) / self.new_epochs if self.new_epochs else None


class _Board:
    """The state behind both displays, and the live table itself."""

    def __init__(
        self,
        grid: str,
        configs: Mapping[str, Mapping[str, Any]],
        known: Sequence[Measured],
        console: Console,
        done_before: int,
    ) -> None:
        self.grid, self.configs, self.known, self.console = grid, configs, known, console
        self.done_before = done_before
        self.epochs: dict[str, int] = {name: config["epochs"] for name, config in configs.items()}
        self.rows: dict[str, _Row] = {}
        self.dashboard: str | None = None
        self.ready = False
        self.began = time.monotonic()
        self.slots = 1
        self._left: Estimate | None = None
        self._estimate_again = 0.0

    def start(self, name: str, host: str, device: str) -> None:
        self.rows[name] = _Row(f"{device.split(' ')[0]} on {host}", time.monotonic())
        self.slots = max(self.slots, self.counts()["running"])

    def record(self, name: str, result: EpochResult, quality: str) -> _Row:
        row = self.rows[name]
        row.epoch, row.quality = result.epoch + 1, quality
        row.new_epochs += not result.restored
        if result.restored:
            row.began = time.monotonic()
        row.last = time.monotonic()
        tests = [e for e in result.evaluations if e.split == "test" and e.classifier == "main"]
        row.error = tests[0].metrics.top1_error if tests else None
        return row

    def end(self, name: str, state: str, note: str = "") -> None:
        row = self.rows.setdefault(name, _Row("", time.monotonic()))
        row.state, row.note = state, note

    def counts(self) -> dict[str, int]:
        states = [row.state for row in self.rows.values()]
        found = {state: states.count(state) for state in ("done", "running", "failed")}
        return found | {"waiting": len(self.epochs) - sum(found.values())}

    def left(self) -> Estimate | None:
        """The time that the rest takes; kept for a while where the grid is so large that asking takes long."""
        began = time.monotonic()
        if began >= self._estimate_again:
            self._left = self._estimate()
            self._estimate_again = (now := time.monotonic()) + 20 * (now - began)
        return self._left

    def _estimate(self) -> Estimate | None:
        paces = {name: row.seconds_per_epoch() for name, row in self.rows.items()}
        measured = [Measured(self.configs[name], pace) for name, pace in paces.items() if pace and name in self.configs]
        ended = {name for name, row in self.rows.items() if row.state != "running"}
        # The running ones first: they hold the slots.
        order = sorted((name for name in self.epochs if name not in ended), key=lambda name: name not in self.rows)
        work = [
            Work(
                self.configs[name],
                self.epochs[name] - (self.rows[name].epoch if name in self.rows else 0),
                paces.get(name),
            )
            for name in order
        ]
        return estimate(work, [*self.known, *measured], self.slots)

    def progress(self) -> str:
        """How much of the whole grid is done, as `21 of 28 done`."""
        return f"{self.done_before + self.counts()['done']} of {self.done_before + len(self.epochs)} done"

    def conclusion(self) -> str:
        counts = self.counts()
        words = [self.progress()]
        named = {"failed": "failed", "running": "interrupted", "waiting": "not started"}
        words += [f"{counts[state]} {name}" for state, name in named.items() if counts[state]]
        return f"{self.grid}: {', '.join(words)} in {duration(time.monotonic() - self.began)}"

    def __rich__(self) -> RenderableType:
        now = time.monotonic()
        table = Table(box=None, pad_edge=False, expand=True)
        table.add_column("trial", ratio=3, no_wrap=True, overflow="ellipsis")
        table.add_column("where", ratio=2, no_wrap=True, overflow="ellipsis")
        table.add_column("epoch", justify="right", no_wrap=True)
        table.add_column("", width=12)
        table.add_column("top-1 error", justify="right", no_wrap=True)
        table.add_column("time left", justify="right", no_wrap=True)
        running = [(name, row) for name, row in self.rows.items() if row.state == "running"]
        ended = [(name, row) for name, row in self.rows.items() if row.state != "running"][-SHOWN_ENDED:]
        room = max(4, self.console.height - len(ended) - 8)
        for name, row in ended + running[:room]:
            total = self.epochs.get(name, row.epoch)
            pace = row.seconds_per_epoch()
            last = Text("done", "green") if row.state == "done" else Text(row.state, "red")
            if row.state == "running":
                last = Text(duration(pace * (total - row.epoch)) if pace else "...")
            table.add_row(
                escape(name),
                escape(row.note or row.device),
                f"{row.epoch}/{total}",
                ProgressBar(total=total, completed=row.epoch, width=12),
                "" if row.error is None else f"{row.error:.2f} %",
                last,
            )
        counts, left = self.counts(), self.left()
        line = Text.assemble(
            (self.grid, "bold"),
            f"  {self.progress()}, {counts['running']} running, {counts['waiting']} waiting",
            (f", {counts['failed']} failed" if counts["failed"] else "", "red"),
            f"  |  {duration(now - self.began)} so far, "
            + (f"about {interval(left)} left" if left is not None else "..."),
        )
        more = [Text(f"... and {len(running) - room} more running", "dim")] if len(running) > room else []
        address = [Text(f"Ray dashboard: {self.dashboard}", "dim")] if self.dashboard else []
        if not self.ready:
            return Group(line, Text("starting Ray ...", "dim"))
        if not self.rows:
            return Group(line, *address, Text("starting the first trials ...", "dim"))
        return Group(line, *address, table, *more)


def _lively(board: _Board, live: Live) -> Observer:
    def ready(url: str | None) -> None:
        board.ready, board.dashboard = True, url

    def note(text: str) -> None:
        live.console.print(f"[dim]{escape(text)}[/]")

    def retried(name: str, reason: str) -> None:
        live.console.print(f"[yellow]{escape(name)}: tried again:[/] {escape(reason)}")
        board.rows.pop(name, None)

    def failed(name: str, failure: Failure) -> None:
        live.console.print(f"[red]{escape(name)}: {failure.error_class}:[/] {escape(failure.message)}")
        board.end(name, "failed", failure.error_class)

    return Observer(
        ready=ready,
        note=note,
        started=board.start,
        epoch=lambda name, result, quality: board.record(name, result, quality) and None,
        finished=lambda name: board.end(name, "done"),
        retried=retried,
        failed=failed,
    )


def _plain(board: _Board, console: Console) -> Observer:
    def say(text: str) -> None:
        console.print(escape(text), soft_wrap=True)

    def ready(url: str | None) -> None:
        if url:
            say(f"Ray dashboard: {url}")

    def started(name: str, host: str, device: str) -> None:
        board.start(name, host, device)
        say(f"{name}: started on {host}, {device}")

    def epoch(name: str, result: EpochResult, quality: str) -> None:
        row = board.record(name, result, quality)
        now, total = time.monotonic(), board.epochs.get(name, result.epoch + 1)
        if row.epoch < total and now - row.printed < PLAIN_SECONDS:
            return
        row.printed = now
        error = "" if row.error is None else f", top-1 error {row.error:.2f} %"
        left = board.left()
        rest = "" if left is None else f"; about {interval(left)} left for the grid"
        say(f"{name}: epoch {row.epoch}/{total}{error}{rest}")

    def finished(name: str) -> None:
        board.end(name, "done")
        say(f"{name}: done")

    def retried(name: str, reason: str) -> None:
        board.rows.pop(name, None)
        say(f"{name}: tried again: {reason}")

    def failed(name: str, failure: Failure) -> None:
        board.end(name, "failed", failure.error_class)
        say(f"{name}: failed ({failure.error_class}): {failure.message}")

    return Observer(
        ready=ready,
        note=say,
        started=started,
        epoch=epoch,
        finished=finished,
        retried=retried,
        failed=failed,
    )
