"""The display of a run: plain lines for programs, a live table in a terminal."""

from __future__ import annotations

import re
from io import StringIO
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from orchestrator.console import run_display, terminal
from orchestrator.console.live import Board
from orchestrator.failures import Failure
from orchestrator.planning import Measured, Plan, PlannedTrial
from orchestrator.scheduler import Batch
from orchestrator.text import duration, size
from tests.orchestrator.databases import samples
from trainer.results import EpochResult

CONFIGS = {f"resnet18/pskd/seed{seed}": {"network": "resnet18", "epochs": 3, "seed": seed} for seed in range(4)}
ONE, TWO, THREE, FOUR = CONFIGS
FAILURE = Failure("code", "ValueError: [x] is bad\ntrace", "f" * 16)


def result(epoch: int, seconds: float = 10.0, **changes: Any) -> EpochResult:
    """An epoch that took so long."""
    return samples.result(epoch, train_seconds=seconds, eval_seconds=0.0, data_seconds=0.0, **changes)


class Clock:
    """Stands in for the module `time`."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in ("live", "run_view"):
        monkeypatch.setattr(f"orchestrator.console.{module}.time", clock)
    return clock


def run(clock: Clock, observer) -> None:
    """One trial ends, one fails, one runs, one waits; an epoch takes ten seconds."""
    observer.ready("http://127.0.0.1:8265")
    observer.started(ONE, "node1", "cuda:0 (H200)")
    observer.started(TWO, "node1", "cuda:1 (H200)")
    for epoch in range(3):
        clock.now += 10
        observer.epoch(ONE, result(epoch, error=20.0 - epoch), "exclusive")
    observer.finished(ONE)
    observer.retried(TWO, "the node [was] lost")
    observer.started(TWO, "node2", "cuda:0 (H200)")
    observer.failed(TWO, FAILURE)
    observer.started(THREE, "node1", "cuda:0 (H200)")
    clock.now += 10
    observer.epoch(THREE, result(0), "exclusive")
    observer.tick()


def test_plain_lines_where_nobody_looks(clock):
    console = Console(file=StringIO(), width=40)
    with run_display("table1", CONFIGS, console=console, page="orchestrate watch --serve") as observer:
        run(clock, observer)
    assert console.file.getvalue().splitlines() == [
        "Ray dashboard: http://127.0.0.1:8265",
        "live page of the results: orchestrate watch --serve",
        f"{ONE}: started on node1, cuda:0 (H200)",
        f"{TWO}: started on node1, cuda:1 (H200)",
        # Two at once: the second has 30 s left, by what the first took, and then another of 30 s follows.
        f"{ONE}: epoch 1/3, top-1 error 20.00 %; about 1 min 00 s (55 s to 1 min 06 s) left for the grid",
        f"{ONE}: epoch 2/3, top-1 error 19.00 %; about 1 min 00 s (55 s to 1 min 06 s) left for the grid",
        f"{ONE}: epoch 3/3, top-1 error 18.00 %; about 1 min 00 s (55 s to 1 min 06 s) left for the grid",
        f"{ONE}: done",
        f"{TWO}: tried again: the node [was] lost",
        f"{TWO}: started on node2, cuda:0 (H200)",
        f"{TWO}: failed (code): ValueError: [x] is bad",
        f"{THREE}: started on node1, cuda:0 (H200)",
        f"{THREE}: epoch 1/3, top-1 error 25.00 %; about 30 s (27 s to 33 s) left for the grid",
        "table1: 1 of 4 done, 1 failed, 1 interrupted, 1 not started in 40 s",
    ]


def test_lines_of_one_trial_are_seconds_apart_in_a_log(clock):
    console = Console(file=StringIO(), width=40)
    with run_display("table1", {ONE: {**CONFIGS[ONE], "epochs": 100}}, console=console) as observer:
        observer.started(ONE, "node1", "cpu")
        for epoch in range(100):
            clock.now += 1
            observer.epoch(ONE, result(epoch), "exclusive")
    assert 10 <= console.file.getvalue().count("epoch ") <= 12


def test_a_live_table_in_a_terminal(clock):
    console = Console(
        file=StringIO(), width=110, height=30, force_terminal=True, color_system=None, legacy_windows=False
    )
    with run_display("table1", CONFIGS, console=console, page="orchestrate watch --serve") as observer:
        run(clock, observer)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())
    assert f"{TWO}: tried again: the node [was] lost" in text
    assert f"{TWO}: code: ValueError: [x] is bad" in text
    last = text[text.rindex("table1  ") :]
    assert re.match(
        r"table1  1 of 4 done, 1 running, 1 waiting, 1 failed  \|  40 s so far, about 30 s \(27 s to 33 s\) left", last
    )
    # Above the table, not in it.
    assert text.count("Ray dashboard: http://127.0.0.1:8265") == 1
    assert text.count("live page of the results: orchestrate watch --serve") == 1
    assert re.search(rf"{ONE} +cuda:0 on node1 +3/3 .* 18\.00 % +done", last)
    assert re.search(rf"{TWO} +code +0/3 .* failed", last)
    assert re.search(rf"{THREE} +cuda:0 on node1 +1/3 .* 25\.00 % +20 s", last)
    assert FOUR not in last
    assert text.rstrip().endswith("table1: 1 of 4 done, 1 failed, 1 interrupted, 1 not started in 40 s")


def test_what_is_known_beforehand_counts_from_the_first_moment(clock):
    console = Console(
        file=StringIO(), width=110, height=30, force_terminal=True, color_system=None, legacy_windows=False
    )
    with run_display("table1", CONFIGS, [Measured(CONFIGS[ONE], 5.0)], console=console) as observer:
        observer.ready(None)
        observer.started(ONE, "node1", "cpu")
    assert "about 1 min 00 s (55 s to 1 min 06 s) left" in console.file.getvalue()


def test_epochs_that_a_checkpoint_held_have_no_speed(clock):
    console = Console(file=StringIO(), width=110)
    with run_display("table1", {ONE: CONFIGS[ONE]}, console=console) as observer:
        observer.started(ONE, "node1", "cpu")
        clock.now += 50
        observer.epoch(ONE, result(0, restored=True), "unknown")
        clock.now += 20
        observer.epoch(ONE, result(1, 20.0), "exclusive")
    assert "epoch 2/3, top-1 error 25.00 %; about 20 s (19 s to 21 s) left for the grid" in console.file.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (18120, "5 h 02 min"), (183600, "2 d 3 h")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_sizes():
    assert [size(count) for count in (900, 1536, 3 * 2**30, 5 * 2**40)] == ["900 B", "1.5 KiB", "3 GiB", "5 TiB"]


def plan_of(**statuses: int) -> Plan:
    """A plan of the trials of `CONFIGS`, of which the first has two epochs, and of others by status."""
    own = [planned(name, "interrupted" if name == ONE else "new", 2 if name == ONE else 0) for name in CONFIGS]
    elsewhere = [
        planned(f"{status}{number}", status, 3) for status, count in statuses.items() for number in range(count)
    ]
    return Plan(own + elsewhere)


def planned(name: str, status: str, epochs: int) -> PlannedTrial:
    return PlannedTrial(SimpleNamespace(name=name), status, "because", epochs)


@pytest.mark.parametrize(
    ("elsewhere", "words"),
    [
        ({"done": 24}, "25 of 28 done, 1 failed, 1 interrupted, 1 not started in 40 s"),
        ({"failed": 2}, "1 of 6 done, 1 failed, 1 interrupted, 1 not started, 2 failed earlier in 40 s"),
        (
            {"done": 1, "running": 1, "waiting": 2},
            "2 of 8 done, 1 failed, 1 interrupted, 1 not started, 3 with another run in 40 s",
        ),
    ],
)
def test_the_last_line_is_about_the_whole_grid(clock, elsewhere, words):
    console = Console(file=StringIO(), width=110)
    with run_display("table1", CONFIGS, console=console, plan=plan_of(**elsewhere)) as observer:
        run(clock, observer)
    assert console.file.getvalue().splitlines()[-1] == f"table1: {words}"


def test_the_start_of_a_process_is_no_part_of_an_epochs_time(clock):
    console = Console(file=StringIO(), width=110)
    with run_display("g", {ONE: CONFIGS[ONE]}, console=console) as observer:
        observer.started(ONE, "node1", "cpu")
        # Importing PyTorch and reading the data takes as long as the epoch; `status` counts the epoch alone.
        clock.now += 20
        observer.epoch(ONE, result(0, 10.0), "exclusive")
    assert "epoch 1/3, top-1 error 25.00 %; about 20 s (19 s to 21 s) left" in console.file.getvalue()


def test_a_resumed_trial_is_told_from_where_it_goes_on(clock):
    console = Console(file=StringIO(), width=110)
    config = {ONE: {**CONFIGS[ONE], "epochs": 30}}
    measured = [Measured(config[ONE], 1.0)]
    plan = Plan([planned(ONE, "interrupted", 17)])
    with run_display("table1", config, measured, console=console, plan=plan) as observer:
        observer.started(ONE, "node1", "cpu")
        clock.now += 50
        for epoch in range(17):
            observer.epoch(ONE, result(epoch, restored=True), "unknown")
            observer.tick()
        clock.now += 2
        observer.epoch(ONE, result(17, 2.0, error=20.0), "exclusive")
        clock.now += 20
        for epoch in range(18, 28):
            observer.epoch(ONE, result(epoch, error=20.0), "exclusive")
    assert console.file.getvalue().splitlines()[1:3] == [
        f"{ONE}: goes on after epoch 17/30",
        f"{ONE}: epoch 18/30, top-1 error 20.00 %; about 24 s (23 s to 25 s) left for the grid",
    ]
    assert console.file.getvalue().count("goes on") == 1


def test_a_resumed_trial_is_told_of_before_its_next_epoch_ends(clock):
    console = Console(file=StringIO(), width=110)
    with run_display("table1", {ONE: CONFIGS[ONE]}, console=console) as observer:
        observer.started(ONE, "node1", "cpu")
        observer.tick()
        for epoch in range(2):
            observer.epoch(ONE, result(epoch, restored=True), "unknown")
        clock.now += 5
        observer.tick()
        observer.tick()
        assert console.file.getvalue().splitlines()[1:] == [f"{ONE}: goes on after epoch 2/3"]


def test_the_time_left_counts_only_what_earlier_runs_left(clock):
    console = Console(
        file=StringIO(), width=160, height=30, force_terminal=True, color_system=None, legacy_windows=False
    )
    measured = [Measured(CONFIGS[ONE], 10.0)]
    with run_display("table1", CONFIGS, measured, console=console, plan=plan_of(failed=1)) as observer:
        observer.ready(None)
        observer.started(ONE, "node1", "cpu")
    # An epoch of the first and three of each other.
    text = console.file.getvalue()
    assert "about 1 min 40 s (1 min 31 s to 1 min 50 s) left" in text
    assert "0 of 5 done, 1 running, 3 waiting, 1 failed earlier" in text


def table(clock: Clock, width: int, names: list[str]) -> list[str]:
    """The lines of the live table's last state, of trials that have ended their second of twelve epochs."""
    console = Console(
        file=StringIO(), width=width, height=40, force_terminal=True, color_system=None, legacy_windows=False
    )
    with run_display("g", {name: {"network": "n", "epochs": 12} for name in names}, console=console) as observer:
        observer.ready(None)
        for name in names:
            observer.started(name, "node1.example.org", "cuda:0 (H200)")
        clock.now += 60
        for name in names:
            observer.epoch(name, result(0, 60.0), "exclusive")
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())
    return [line.rstrip() for line in text[text.rindex("trial ") : text.index("\ng: ")].splitlines()]


NAMES = ["resnet18/byot+dmfl+pskd/seed0", "resnet18/byot+dmfl+pskd/seed1"]


@pytest.mark.parametrize(
    ("width", "rest"),
    [
        (120, r" +cuda:0 on node1\.example\.org +1/12 +━.* 25\.00 % +11 min 00 s"),
        (80, r" +1/12 +━.* 25\.00 % +11 min 00 s"),
        (60, r" +1/12 +25\.00 % +11 min 00 s"),
    ],
)
def test_a_narrow_terminal_costs_columns_and_no_part_of_a_name(clock, width, rest):
    lines = table(clock, width, NAMES)
    for name in NAMES:
        assert any(re.fullmatch(re.escape(name) + rest, line) for line in lines), lines


def test_names_are_folded_where_nothing_else_can_go(clock):
    heads, *rows = table(clock, 40, NAMES)
    assert heads.split() == ["trial", "epoch", "error", "time", "left"]
    parts = [line.split(" ")[0] for line in rows]
    assert ["".join(parts[:3]), "".join(parts[3:])] == NAMES
    assert re.fullmatch(r"resnet18/by +1/12  25\.00 %  11 min 00 s", rows[0])


@pytest.mark.parametrize(("width", "heads"), [(110, 1), (80, 2), (60, 2)])
def test_the_head_is_one_line_or_two_and_the_cursor_stands_below_the_table(clock, width, heads):
    console = Console(file=StringIO(), width=width, height=30, legacy_windows=False)
    board = Board("table1", CONFIGS, [Measured(CONFIGS[ONE], 1000.0)], console, None)
    board.start(ONE, "node1", "cpu")
    lines = ["".join(part.text for part in line).rstrip() for line in console.render_lines(board, pad=False)]
    clock_text = "0 s so far, about 3 h 20 min (3 h 01 min to 3 h 40 min) left"
    state = "table1  0 of 4 done, 1 running, 3 waiting"
    assert lines[:heads] == ([f"{state}  |  {clock_text}"] if heads == 1 else [state, clock_text])
    assert lines[heads].startswith("trial ") and lines[-1] == ""


def test_the_last_line_counts_the_time_of_all_batches(clock, capsys):
    observer = terminal()
    for name in (ONE, TWO):
        with observer.batch(Batch("table1", {name: CONFIGS[name]})) as watched:
            watched.started(name, "node1", "cpu")
            clock.now += 100
            watched.finished(name)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("table1: ")]
    assert [line.rpartition(" in ")[2] for line in lines] == ["1 min 40 s", "3 min 20 s"]
