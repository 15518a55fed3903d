"""The live table of a run, at any width of the terminal, and the state behind it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.planning import Estimate, Measured, Work, interval, make_estimate
from orchestrator.text import duration

if TYPE_CHECKING:
    from orchestrator.planning import Plan
    from trainer.results import EpochResult

SHOWN_ENDED = 6

WHERE, BAR, ERROR = "where", "", "top-1 error"
BAR_WIDTH, MOST_WHERE, GAP = 12, 30, 2


@dataclass
class Row:
    """Progress of one trial that has started."""

    device: str
    # Seconds of its new epochs, as the database counts them: without the start of a process.
    seconds: float = 0.0
    # When it reported last, by the monotonic clock.
    last: float = 0.0
    # Restored epochs not reported yet.
    restored: int = 0
    new_epochs: int = 0
    error: float | None = None
    quality: str = ""
    state: str = "running"
    note: str = ""
    printed: float = 0.0

    def seconds_per_epoch(self) -> float | None:
        return self.seconds / self.new_epochs if self.new_epochs else None


class Board:
    """The state behind both displays, and the live table itself."""

    def __init__(
        self,
        grid: str,
        configs: Mapping[str, Mapping[str, Any]],
        measured: Sequence[Measured],
        console: Console,
        plan: Plan | None,
    ) -> None:
        self.grid, self.configs, self.measured, self.console = grid, configs, measured, console
        self.epochs: dict[str, int] = {name: config["epochs"] for name, config in configs.items()}
        entries = plan.entries if plan else []
        self.others = Counter(entry.status for entry in entries if entry.trial.name not in configs)
        # Epochs that need no more training, by trial.
        self.reached = Counter({entry.trial.name: entry.epochs for entry in entries if entry.trial.name in configs})
        # Trials that an earlier run began.
        self.begun = {entry.trial.name for entry in entries if entry.status == "interrupted"} & configs.keys()
        self.rows: dict[str, Row] = {}
        self.ready = False
        self.began = time.monotonic()
        self.slots = 1
        self._left: Estimate | None = None
        self._estimate_again = 0.0

    def start(self, name: str, host: str, device: str) -> None:
        self.rows[name] = Row(f"{device.split(' ')[0]} on {host}")
        self.slots = max(self.slots, self.counts()["running"])

    def record(self, name: str, result: EpochResult, quality: str) -> Row:
        row = self.rows[name]
        row.quality = quality
        row.last = time.monotonic()
        if result.restored:
            row.restored = result.epoch + 1
            # Restored epochs arrive one by one, and a checkpoint holds hardly fewer epochs than were recorded.
            self.reached[name] = max(self.reached[name], row.restored)
        else:
            row.new_epochs += 1
            row.seconds += result.seconds
            self.reached[name] = result.epoch + 1
        row.error = main.metrics.top1_error if (main := result.main) else None
        return row

    def end(self, name: str, state: str, note: str = "") -> None:
        row = self.rows.setdefault(name, Row(""))
        row.state, row.note = state, note

    def counts(self) -> dict[str, int]:
        states = [row.state for row in self.rows.values()]
        counted = {state: states.count(state) for state in ("done", "running", "failed")}
        return counted | {"waiting": len(self.epochs) - sum(counted.values())}

    def left(self) -> Estimate | None:
        """Return the time that the remaining trials take; cached where a large grid makes computing it slow."""
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
            Work(self.configs[name], max(0, self.epochs[name] - self.reached[name]), paces.get(name)) for name in order
        ]
        return make_estimate(work, [*self.measured, *measured], self.slots)

    def progress(self) -> str:
        """Return the progress of the whole grid, as `21 of 28 done`."""
        return f"{self.others['done'] + self.counts()['done']} of {self.others.total() + len(self.epochs)} done"

    def conclusion(self) -> str:
        counts = self.counts()
        left_again = len(self.begun - self.rows.keys())
        counts |= {"running": counts["running"] + left_again, "waiting": counts["waiting"] - left_again}
        named = {"failed": "failed", "running": "interrupted", "waiting": "not started"}
        words = [f"{counts[state]} {name}" for state, name in named.items() if counts[state]]
        words = [self.progress(), *words, *self.elsewhere()]
        return f"{self.grid}: {', '.join(words)} in {duration(time.monotonic() - self.began)}"

    def elsewhere(self) -> list[str]:
        """Return the counts of the grid's trials that are neither done nor part of this run, as `1 failed earlier`."""
        failed = self.others["failed"]
        kept = {"failed earlier": failed, "with another run": self.others.total() - self.others["done"] - failed}
        return [f"{count} {words}" for words, count in kept.items() if count]

    def __rich__(self) -> RenderableType:
        now, counts, left = time.monotonic(), self.counts(), self.left()
        state = Text.assemble(
            (self.grid, "bold"),
            f"  {self.progress()}, {counts['running']} running, {counts['waiting']} waiting",
            (f", {counts['failed']} failed" if counts["failed"] else "", "red"),
            *(f", {words}" for words in self.elsewhere()),
        )
        clock = f"{duration(now - self.began)} so far, "
        clock += f"about {interval(left)} left" if left is not None else "..."
        line = Text("  |  ").join([state, Text(clock)])
        head = [line] if len(line) <= self.console.width else [state, Text(clock)]
        if self.rows:
            shown = self._table()
        else:
            shown = [Text("starting the first trials ..." if self.ready else "starting Ray ...", "dim")]
        # The empty line is where the cursor stands: text that the terminal echoes at the end of a full line (^C) would
        # begin another line, and leave a copy of the table's first one.
        return Group(*head, *shown, Text())

    def _table(self) -> list[RenderableType]:
        """Return the running trials and those that ended last, as many as there is room for."""
        running = [(name, row) for name, row in self.rows.items() if row.state == "running"]
        ended = [(name, row) for name, row in self.rows.items() if row.state != "running"][-SHOWN_ENDED:]
        cells = {name: self._cells(name, row) for name, row in ended + running}
        columns, for_names = _columns(cells, self.console.width)
        lines = max(-(-len(name) // for_names) for name in cells)
        room = max(4 // lines, (self.console.height - 8) // lines - len(ended), 1)
        table = Table(box=None, pad_edge=False)
        table.add_column("trial", overflow="fold", min_width=for_names)
        for heading, width in columns.items():
            right = heading not in (WHERE, BAR)
            table.add_column(
                heading,
                justify="right" if right else "left",
                width=width,
                no_wrap=heading == WHERE,
                overflow="ellipsis",
            )
        for name, _ in ended + running[:room]:
            table.add_row(escape(name), *(cells[name][heading] for heading in columns))
        more = [Text(f"... and {len(running) - room} more running", "dim")] if len(running) > room else []
        return [table, *more]

    def _cells(self, name: str, row: Row) -> dict[str, Text | ProgressBar]:
        reached = self.reached[name]
        total, pace = self.epochs.get(name, reached), row.seconds_per_epoch()
        last = Text("done", "green") if row.state == "done" else Text(row.state, "red")
        if row.state == "running":
            last = Text(duration(pace * (total - reached)) if pace else "...")
        return {
            WHERE: Text(row.note or row.device),
            "epoch": Text(f"{reached}/{total}"),
            BAR: ProgressBar(total=total, completed=reached, width=BAR_WIDTH),
            ERROR: Text("" if row.error is None else f"{row.error:.2f} %", no_wrap=True),
            "time left": Text(last.plain, last.style, no_wrap=True),
        }


def _width(cell: Text | ProgressBar) -> int:
    return len(cell) if isinstance(cell, Text) else BAR_WIDTH


def _columns(cells: Mapping[str, Mapping[str, Text | ProgressBar]], width: int) -> tuple[dict[str, int], int]:
    """Return the column widths for a terminal of `width` characters, and the width left for names.

    Names tell the trials apart: they wrap and are never cut. The device column is dropped first, then the bar.
    """
    longest = max(map(len, cells))
    columns = {
        heading: max(len(heading), *(_width(row[heading]) for row in cells.values()))
        for heading in next(iter(cells.values()))
    }
    columns[WHERE] = min(columns[WHERE], MOST_WHERE)

    def left() -> int:
        return width - sum(column + GAP for column in columns.values())

    for heading in (WHERE, BAR):
        if left() < longest:
            del columns[heading]
    if left() < longest:
        # The heading takes two lines.
        columns[ERROR] = max(_width(row[ERROR]) for row in cells.values())
    return columns, max(8, min(longest, left()))
