"""Two runs at the same time on one PostgreSQL, whose grids share trials: each trial is trained once."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.database import AttemptRow, open_database
from tests.orchestrator.databases.postgresql_server import Server
from tests.orchestrator.runs import Run, Workplace, ended, wait_for, workplace

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

EPOCHS = 3


@pytest.fixture
def place() -> Iterator[Workplace]:
    with workplace() as folder:
        folder.keep_to_one_processor()
        shutil.copy(Path(__file__).parents[1] / "sabotage.py", folder.code / "trainer/methods")
        launch = folder.code / "orchestrator/run.py"
        text = launch.read_text()
        # A test has no time to wait for a connection that may come back.
        for name, seconds in (("POLL", "0.5"), ("GRACE", "1.0")):
            text, count = re.subn(rf"^{name}_SECONDS = .*$", f"{name}_SECONDS = {seconds}", text, flags=re.MULTILINE)
            assert count == 1
        launch.write_text(text)
        yield folder


@pytest.fixture
def gate(place: Workplace) -> Path:
    """The file for which trials wait in an epoch of theirs while it is there."""
    path = place.folder / "gate"
    path.touch()
    return path


def waits(gate: Path, at: int) -> dict[str, Any]:
    """The method that waits at the gate."""
    return {"sabotage": {"how": "wait", "flag": str(gate), "at": at}}


@pytest.fixture
def url(postgresql: Server) -> str:
    return postgresql.new_database()


def start(place: Workplace, grid: Path, url: str, *options: str) -> Run:
    return place.start("run", grid, "--db", url, "--no-dashboard", *options, output=f"{grid.stem}.txt")


def epochs_of(url: str, grid: str) -> int:
    """Recorded epochs of a grid's trials; 0 while the database is being made."""
    try:
        with open_database(url, readonly=True) as database:
            return sum(row.epochs_done for row in database.progress(grid))
    except Exception:
        return 0


def attempts_of(url: str, grid: str) -> dict[str, list[AttemptRow]]:
    with open_database(url, readonly=True) as database:
        return {key: database.attempts(key) for key, _ in database.grid_keys(grid)}


def test_shared_trials_are_trained_once_and_taken_over_from_a_dead_driver(
    place: Workplace, url: str, gate: Path
) -> None:
    shared = [waits(gate, 1), {"pskd": {}, **waits(gate, 1)}]
    one = place.grid("one", {"methods": shared, "seed": [0, 1]}, epochs=EPOCHS)
    two = place.grid("two", {"methods": [*shared, {"label_smoothing": {}}], "seed": [0, 1]}, epochs=EPOCHS)
    with ended(start(place, one, url)) as first:
        assert wait_for(lambda: epochs_of(url, "one") >= 1 or first.over()), first.text()
        assert not first.over(), first.text()
        owner = f"`orchestrate` for one, process {first.pid} on {os.uname().nodename}, since "

        # One that does not wait: it has nothing to do, and says so in its exit code.
        three = place.grid("three", {"methods": shared, "seed": [0, 1]}, epochs=EPOCHS)
        with ended(start(place, three, url, "--no-wait")) as third:
            assert third.code() == 3, third.text()
        assert re.search(rf"\d of this grid's trials belong to another run: \d by {re.escape(owner)}", third.text())
        assert "this run leaves" in third.text()
        assert "running elsewhere" in third.text()

        with ended(start(place, two, url)) as second:
            assert wait_for(lambda: "belong to another run" in second.text() or second.over()), second.text()
            assert f"by {owner}" in second.text()
            assert "this run waits for it (--no-wait does not)" in second.text()
            # While it trains its own, the other one dies.
            first.send_signal(signal.SIGKILL)
            gate.unlink()
            assert second.code() == 0, second.text()
        assert "6 trials: 6 done; nothing to run" in second.text()
    attempts_by_key = attempts_of(url, "two")
    assert len(attempts_by_key) == 6
    for key, attempts in attempts_by_key.items():
        outcomes = Counter(attempt.outcome for attempt in attempts if attempt.purpose == "train")
        assert outcomes["done"] == 1, key
        assert set(outcomes) <= {"done", "lost"}, outcomes
    assert epochs_of(url, "two") == EPOCHS * 6
    assert place.processes_left() == []


def test_waiting_ends_with_what_the_other_run_made_of_it(place: Workplace, url: str, gate: Path) -> None:
    """The other one's failures are this grid's failures, too."""
    axes = {"methods": [waits(gate, 0)], "learning_rate": [0.05, 1e30]}
    one, two = (place.grid(name, axes, epochs=2, fixed={"learning_rate": None}) for name in ("one", "two"))
    with ended(start(place, one, url)) as first:
        assert wait_for(lambda: "started" in first.text() or first.over()), first.text()
        with ended(start(place, two, url)) as second:
            assert wait_for(lambda: "belong to another run" in second.text() or second.over()), second.text()
            gate.unlink()
            assert second.code() == 1, second.text()
        assert first.code() == 1
    assert "belong to another run" in second.text()
    assert "2 trials: 1 done, 1 failed (--retry-failed tries again); nothing to run" in second.text()
