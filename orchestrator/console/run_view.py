"""The terminal's view of a run: the plan, then a live table, or plain lines for programs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.markup import escape

from orchestrator.console.live import Board, Row
from orchestrator.console.plan_view import announce_plan
from orchestrator.planning import Measured, interval
from orchestrator.scheduler import Observer

if TYPE_CHECKING:
    from orchestrator.failures import Failure
    from orchestrator.planning import Plan
    from trainer.results import EpochResult

# Least seconds between two lines of a trial's epochs, so that the log file of a long run stays readable.
PLAIN_SECONDS = 10.0
# Pause, in seconds, after which the restored epochs are summarised in one line.
QUIET_SECONDS = 1.0


@contextmanager
def run_display(
    grid: str,
    configs: Mapping[str, Mapping[str, Any]],
    measured: Sequence[Measured] = (),
    console: Console | None = None,
    *,
    plan: Plan | None = None,
    page: str | None = None,
    began: float | None = None,
) -> Iterator[Observer]:
    """Show a run while it goes on; yields the observer that the scheduler reports to.

    `configs` are the configurations by trial name, `measured` the earlier measurements. `plan` is the plan of the whole
    grid before the run, with the state of the grid's other trials and the epochs of these. `page` is the command that
    serves the live page. `began` is when the run did, by the monotonic clock: before the batches that come before.
    """
    console = console or _Console(highlight=False)
    board = Board(grid, configs, measured, console, plan)
    board.began = board.began if began is None else began
    if not console.is_terminal:
        try:
            yield _plain(board, console, page)
        finally:
            console.print(escape(board.conclusion()), soft_wrap=True)
        return
    try:
        with Live(board, console=console, refresh_per_second=4) as live:
            yield _lively(board, live, page)
    finally:
        console.print(escape(board.conclusion()))


def terminal(page: str | None = None) -> Observer:
    """Return an observer that shows a run in the terminal: its lines as they come, its trials as `run_display`.

    `page` is the command that serves the live page.
    """
    began = time.monotonic()
    return Observer(
        planned=announce_plan,
        note=typer.echo,
        warning=partial(typer.echo, err=True),
        batch=lambda batch: run_display(
            batch.grid, batch.configs, batch.measured, plan=batch.plan, page=page, began=began
        ),
    )


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Ignore that the reader of our output has left (`| head`): the trials matter more."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _lively(board: Board, live: Live, page: str | None) -> Observer:
    def ready(url: str | None) -> None:
        board.ready = True
        if url:
            # Above the table, because a line that is drawn again may be left behind by a resize.
            note(f"Ray dashboard: {url}")
        if page:
            note(f"live page of the results: {page}")

    def note(text: str) -> None:
        live.console.print(f"[dim]{escape(text)}[/]")

    def retried(name: str, reason: str) -> None:
        live.console.print(f"[yellow]{escape(name)}: tried again:[/] {escape(reason)}")
        board.rows.pop(name, None)

    def failed(name: str, failure: Failure) -> None:
        live.console.print(f"[red]{escape(name)}: {failure.error_class}:[/] {escape(failure.message)}")
        board.end(name, "failed", failure.error_class)

    def epoch(name: str, result: EpochResult, quality: str) -> None:
        board.record(name, result, quality)

    return Observer(
        ready=ready,
        note=note,
        started=board.start,
        epoch=epoch,
        finished=lambda name: board.end(name, "done"),
        retried=retried,
        failed=failed,
    )


def _plain(board: Board, console: Console, page: str | None) -> Observer:
    def say(text: str) -> None:
        console.print(escape(text), soft_wrap=True)

    def ready(url: str | None) -> None:
        if url:
            say(f"Ray dashboard: {url}")
        if page:
            say(f"live page of the results: {page}")

    def started(name: str, host: str, device: str) -> None:
        board.start(name, host, device)
        say(f"{name}: started on {host}, {device}")

    def resumed(name: str, row: Row) -> None:
        if row.restored:
            say(f"{name}: goes on after epoch {row.restored}/{board.epochs.get(name, row.restored)}")
            row.restored = 0

    def tick() -> None:
        now = time.monotonic()
        for name, row in board.rows.items():
            if now - row.last > QUIET_SECONDS:
                resumed(name, row)

    def epoch(name: str, result: EpochResult, quality: str) -> None:
        row = board.record(name, result, quality)
        if result.restored:
            return
        resumed(name, row)
        now, total = time.monotonic(), board.epochs.get(name, result.epoch + 1)
        if result.epoch + 1 < total and now - row.printed < PLAIN_SECONDS:
            return
        row.printed = now
        error = "" if row.error is None else f", top-1 error {row.error:.2f} %"
        left = board.left()
        rest = "" if left is None else f"; about {interval(left)} left for the grid"
        say(f"{name}: epoch {result.epoch + 1}/{total}{error}{rest}")

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
        tick=tick,
    )
