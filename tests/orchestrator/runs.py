"""`orchestrate` in processes of its own, as a person starts it, and what it leaves in the database and the machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
PACKAGES = ("trainer", "orchestrator", "reports")
# Far above what a busy machine needs: it ends a test that hangs, and decides nothing else.
PATIENCE = 240.0

# A few seconds of work.
SMALL = {
    "fixed": {
        "dataset": "digits",
        "network": "resnet18",
        "width": 4,
        "subset": 20,
        "batch_size": 32,
        "learning_rate": 0.05,
        "precision": "float32",
    },
    "resources": {"gpu": 0, "cpu": 1},
}

COMMAND = "from orchestrator.cli import main\n\nmain()\n"
ONE_PROCESSOR = "from orchestrator.scheduler import cluster\n\ncluster.processors = lambda: 1\n\n"

# Per trial key and epoch everything that must not depend on what happened on the way.
Results = dict[str, dict[int, dict[str, Any]]]


class Run(subprocess.Popen[bytes]):
    """A started `orchestrate`, both of whose outputs go to a file."""

    output: Path

    def text(self) -> str:
        """Return what the run has printed so far."""
        return self.output.read_text()

    def over(self) -> bool:
        """Return whether the run has ended."""
        return self.poll() is not None

    def code(self) -> int:
        """Wait for the end of the run and return its exit code, as a shell reports it."""
        try:
            code = self.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {PATIENCE:g} s:\n{self.text()}") from None
        return code if code >= 0 else 128 - code

    def press_ctrl_c(self) -> None:
        """Send SIGINT to its whole group, as a terminal does."""
        if not self.over():
            os.killpg(self.pid, signal.SIGINT)


class Workplace:
    """A folder with a copy of the program in `code`, grid files and a results database.

    The copy keeps a run apart from edits of the checkout; a test may edit it, or add a method of its own.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.code = folder, folder / "code"
        self.database = folder / "results.db"
        self.python = sys.executable
        for package in PACKAGES:
            # With what is compiled already (another process may be writing more), which no longer counts for a source
            # that a test edits.
            shutil.copytree(ROOT / package, self.code / package, ignore=shutil.ignore_patterns("*.pyc.*"))
        self.command = folder / "bin" / "orchestrate"
        self.command.parent.mkdir()
        self.command.write_text(COMMAND)

    def keep_to_one_processor(self) -> None:
        """Have Ray count one processor, so that trials come one after the other, and short ones in one process.

        For tests that show nothing of trials beside one another: importing PyTorch is most of the work of a short one.
        """
        self.command.write_text(ONE_PROCESSOR + COMMAND)

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace a text that stands in a file of the copy once."""
        path = self.code / file
        text = path.read_text()
        assert text.count(old) == 1, f"{old!r} stands in {file} {text.count(old)} times"
        path.write_text(text.replace(old, new))

    def move_python(self, name: str) -> None:
        """Have the program run from a virtual environment in a folder of this name, with the same packages."""
        folder = self.folder / name
        venv.create(folder, symlinks=True)
        (packages,) = folder.glob("lib/python*/site-packages")
        (packages / "same.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
        self.python = str(folder / "bin/python")

    def grid(self, name: str, axes: dict[str, Any] | list[Any], *, epochs: int = 3, **more: Any) -> Path:
        """Write the grid file `<name>.yaml`; `more` goes over `SMALL`, and a fixed value of None takes one away."""
        fixed = {**SMALL["fixed"], "epochs": epochs, **more.pop("fixed", {})}
        fixed = {key: value for key, value in fixed.items() if value is not None}
        path = self.folder / f"{name}.yaml"
        # JSON is YAML, too.
        path.write_text(json.dumps({**SMALL, "name": name, "fixed": fixed, "grid": axes, **more}))
        return path

    def start(self, *arguments: object, output: str = "output.txt", **variables: str) -> Run:
        """Start `orchestrate ARGUMENTS` in the folder; both of its outputs go to the file `output` there."""
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "ORCHESTRATE"))
        }
        environment |= {"PYTHONPATH": str(self.code), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "200"}
        # Ray's sessions are found, and removed, with the folder.
        environment |= {"RAY_TMPDIR": str(self.folder), **variables}
        if arguments[0] == "run" and "--checkpoint-seconds" not in arguments:
            # Tests end runs at epochs of their choice, and look for the checkpoint of each.
            arguments = (*arguments, "--checkpoint-seconds", "0")
        command = [self.python, str(self.command), *map(str, arguments)]
        with open(self.folder / output, "wb") as file:
            # A group of its own, so that a test can press Ctrl-C in it.
            run = Run(
                command, cwd=self.folder, env=environment, stdout=file, stderr=file, stdin=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        run.output = self.folder / output
        return run

    def run(self, *arguments: object, output: str = "output.txt", **variables: str) -> tuple[int, str]:
        """Run `orchestrate ARGUMENTS` to its end; the exit code and everything it printed."""
        with ended(self.start(*arguments, output=output, **variables)) as run:
            return run.code(), run.text()

    def undisturbed(self, grid: Path, *options: object) -> Results:
        """Run a grid to its end, its trials one after the other; return the results and forget them."""
        command = self.command.read_text()
        self.keep_to_one_processor()
        code, output = self.run("run", grid, "--no-dashboard", "--no-canary", *options)
        self.command.write_text(command)
        assert code == 0, output
        assert self.doubtful() == []
        results = self.results()
        self.clear()
        return results

    def clear(self) -> None:
        """Forget every result, checkpoint and log."""
        for path in self.folder.glob("results*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def ask(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of the database; none while it does not exist."""
        if not self.database.exists():
            return []
        with closing(sqlite3.connect(f"{self.database.as_uri()}?mode=ro", uri=True, timeout=60)) as connection:
            try:
                return connection.execute(query, values).fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):
                    return []
                raise

    def epochs(self) -> int:
        """Accepted epochs of all trials."""
        return sum(count for (count,) in self.ask("SELECT count(*) FROM epochs WHERE accepted = 1"))

    def finished(self) -> bool:
        """Return whether every trial is done."""
        return {state for (state,) in self.ask("SELECT DISTINCT state FROM trials")} == {"done"}

    def states(self) -> dict[str, str]:
        """The state of each trial by its name in any grid."""
        query = "SELECT g.name, t.state FROM grid_trials g JOIN trials t ON t.id = g.trial_id"
        return dict(self.ask(query))

    def results(self) -> Results:
        """Return every value of every accepted epoch by trial, and nothing that a clock has measured."""
        by_trial: Results = {}
        query = """
            SELECT t.key, e.epoch, e.learning_rate, e.images, e.losses, v.network, v.classifier, v.split,
                   v.images, v.top1_error, v.top5_error, v.nll, v.ece, v.aurc, v.ood_auroc
            FROM trials t JOIN epochs e ON e.trial_id = t.id AND e.accepted = 1
            JOIN evaluations v ON v.epoch_id = e.id"""
        for key, epoch, rate, images, losses, network, classifier, split, *metrics in self.ask(query):
            values = by_trial.setdefault(key, {}).setdefault(epoch, {})
            values["learning_rate"], values["images"], values["losses"] = rate, images, json.loads(losses)
            values[f"{network}/{classifier}/{split}"] = metrics
        return by_trial

    def unfinished(self) -> list[str]:
        """Name what no run may leave behind, however it was ended: trials that are claimed, attempts that are open."""
        claimed = self.ask("SELECT key, state FROM trials WHERE driver IS NOT NULL OR state = 'running'")
        attempts = self.ask("SELECT id FROM attempts WHERE outcome IS NULL")
        return [f"trial {key[:8]} is claimed ({state})" for key, state in claimed] + [
            f"attempt {attempt} is open" for (attempt,) in attempts
        ]

    def doubtful(self) -> list[str]:
        """Name what must not be once every trial is done: an epoch trained twice, a trial done twice or not at all."""
        trials = self.ask("SELECT id, key, state, config FROM trials")
        doubts = [f"trial {key[:8]} is {state}" for _, key, state, _ in trials if state != "done"]
        for number, key, _, config in trials:
            (done,) = self.ask("SELECT count(*) FROM attempts WHERE trial_id = ? AND outcome = 'done'", number)
            if done != (1,):
                doubts.append(f"trial {key[:8]} was done {done[0]} times")
            epochs = self.ask("SELECT epoch, accepted FROM epochs WHERE trial_id = ? ORDER BY epoch", number)
            if epochs != [(epoch, 1) for epoch in range(json.loads(config)["epochs"])]:
                doubts.append(f"trial {key[:8]} has the epochs {epochs}")
        doubts += [f"{path.name} was left" for path in self.folder.glob("results-checkpoints/*.writing")]
        return doubts + self.unfinished()

    def processes(self) -> list[psutil.Process]:
        """Return every process that was started here: they stay in the folder where their ancestor began."""
        alive = []
        for process in psutil.process_iter():
            try:
                if Path(process.cwd()).is_relative_to(self.folder) and process.status() != psutil.STATUS_ZOMBIE:
                    alive.append(process)
            except (psutil.Error, OSError):
                continue
        return alive

    def workers(self) -> list[psutil.Process]:
        """The processes that train trials."""
        return [process for process in self.processes() if is_worker(process)]

    def processes_left(self, seconds: float = 60.0) -> list[str]:
        """Wait for all processes here to end, for Ray takes a moment; return those that still run after that long."""
        wait_for(lambda: not self.processes(), seconds)
        return [describe(process) for process in self.processes()]


@contextmanager
def workplace() -> Iterator[Workplace]:
    """A new workplace; at the end nothing may still be running there, and it is removed."""
    # Not pytest's own folder: the paths of Ray's sockets must be short.
    folder = Path(tempfile.mkdtemp(prefix="orchestrate-"))
    try:
        place = Workplace(folder)
        yield place
        left = place.processes_left()
        assert not left, left
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def is_worker(process: psutil.Process) -> bool:
    """Return whether a process trains trials; Ray names its workers after the class of the actor."""
    try:
        return (process.cmdline() or [""])[0].startswith("ray::") and "Agent" not in process.cmdline()[0]
    except psutil.Error:
        return False


def name_of(process: psutil.Process) -> str:
    """Return the name of a process's program; empty when the process has ended."""
    try:
        return process.name()
    except psutil.Error:
        return ""


def describe(process: psutil.Process) -> str:
    """Return the number and the command line of a process."""
    try:
        return f"{process.pid} {' '.join(process.cmdline())}"
    except psutil.Error:
        return f"{process.pid} (ended)"


def wait_for(condition: Callable[[], object], seconds: float = PATIENCE) -> bool:
    """Wait until a condition holds; False when it does not hold in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@contextmanager
def ended(run: Run) -> Iterator[Run]:
    """Have a run end, in whatever way the block is left."""
    try:
        yield run
    finally:
        if not run.over():
            run.send_signal(signal.SIGTERM)
            try:
                run.wait(60)
            except subprocess.TimeoutExpired:
                run.kill()
                run.wait()


def differences(results: Results, expected: Results) -> list[str]:
    """Return the places where two sets of results differ, bit for bit."""
    lines = [f"trial {key[:8]} is missing" for key in expected.keys() - results.keys()]
    lines += [f"trial {key[:8]} is not expected" for key in results.keys() - expected.keys()]
    for key in expected.keys() & results.keys():
        for epoch in expected[key].keys() | results[key].keys():
            wanted, got = expected[key].get(epoch), results[key].get(epoch)
            if wanted != got:
                lines.append(f"trial {key[:8]}, epoch {epoch}: {got} instead of {wanted}")
    return lines
