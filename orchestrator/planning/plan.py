"""What running a grid would do, trial by trial, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol

from orchestrator.text import counted

if TYPE_CHECKING:
    from orchestrator.grid import Grid, Trial

Status = Literal["new", "interrupted", "done", "failed", "running", "waiting"]

# What becomes of each in the next run, in the order of the summary.
OUTLOOK: dict[Status, str] = {
    "new": "new",
    "interrupted": "to continue",
    "done": "done",
    "failed": "failed (--retry-failed tries again)",
    "running": "running elsewhere",
    "waiting": "waiting elsewhere",
}


class State(Protocol):
    """What the database knows of a trial; see `orchestrator.database.TrialState`."""

    @property
    def state(self) -> str: ...
    @property
    def epochs(self) -> int: ...
    @property
    def attempts(self) -> int: ...
    @property
    def error_class(self) -> str | None: ...
    @property
    def error(self) -> str | None: ...
    @property
    def driver(self) -> int | None: ...


@dataclass(frozen=True)
class PlannedTrial:
    """A trial, how far it is, and a sentence that says why it would run or not; `epochs` are recorded."""

    trial: Trial
    status: Status
    reason: str
    epochs: int = 0

    @property
    def would_run(self) -> bool:
        """Whether the next run trains it."""
        return self.status in ("new", "interrupted")


@dataclass(frozen=True)
class Plan:
    """The trials of a grid in its order; `devices` says where those run that leave it open."""

    entries: list[PlannedTrial]
    devices: str | None = None

    @property
    def pending(self) -> list[PlannedTrial]:
        """The trials that the next run trains."""
        return [entry for entry in self.entries if entry.would_run]

    def count(self, status: Status) -> int:
        """How many trials are of this status."""
        return self._counts()[status]

    def summary(self) -> str:
        """One line: `28 trials: 4 new, 24 done`, and what a run would do."""
        counts = self._counts()
        listed = ", ".join(f"{counts[status]:,} {words}" for status, words in OUTLOOK.items() if counts[status])
        pending = counts["new"] + counts["interrupted"]
        verdict = f"{counted(pending, 'trial')} to run" if pending else "nothing to run"
        return f"{counted(len(self.entries), 'trial')}: {listed}; {verdict}"

    def together(self) -> list[str]:
        """Lines that say how trials run, where that is not in one process on a device that the grid names."""
        shapes = Counter(entry.trial.resources for entry in self.entries if entry.trial.resources.processes > 1)
        return (
            ([] if self.devices is None else [self.devices])
            + [
                f"{counted(count, 'trial')} in {shape.processes} processes{' each' * (count > 1)}, a process with "
                f"{counted(shape.gpu or 0, 'GPU')} and {counted(shape.cpu, 'CPU')}"
                for shape, count in shapes.items()
            ]
            + self._manners()
        )

    def _manners(self) -> list[str]:
        """Lines that say how steps are run, where the grid says it."""
        manners = Counter((entry.trial.resources.engine, entry.trial.resources.deterministic) for entry in self.entries)
        return [
            f"{counted(count, 'trial')} with "
            + " and ".join([f"engine: {engine}"] * (engine != "auto") + ["deterministic: true"] * deterministic)
            for (engine, deterministic), count in manners.items()
            if engine != "auto" or deterministic
        ]

    def _counts(self) -> Counter[str]:
        return Counter(entry.status for entry in self.entries)


def make_plan(grid: Grid, states: Mapping[str, State]) -> Plan:
    """Compare a grid with what the database knows of its trials, by key; a trial it does not know is new."""
    known = ((trial, states.get(trial.key)) for trial in grid.trials)
    return Plan([PlannedTrial(trial, *_judged(trial, state), state.epochs if state else 0) for trial, state in known])


def with_devices(plan: Plan, gpus: int) -> Plan:
    """Return a plan whose trials have their number of GPUs, on a machine with so many, and what it says of them."""
    from orchestrator.grid import placed

    if all(entry.trial.resources.gpu is not None for entry in plan.entries):
        return plan
    trials = placed((entry.trial for entry in plan.entries), gpus > 0)
    entries = [replace(entry, trial=trial) for entry, trial in zip(plan.entries, trials, strict=True)]
    return Plan(entries, devices_line(gpus))


def devices_line(gpus: int, where: str = "here") -> str:
    """Return where trials run whose grid does not say `gpu`, by the number of GPUs that there are."""
    if gpus:
        return f"{counted(gpus, 'GPU')} {where}: each trial takes one, as the grid does not say `gpu` under `resources`"
    return f"no GPU {where}: trials run on the processor, as the grid does not say `gpu` under `resources`"


def is_interrupted(state: str, *, begun: bool, claimed: bool) -> bool:
    """Return whether a trial has begun and nobody trains it now: what `plan`, `run`, `status` and `watch` count so.

    It has `begun` with its first attempt, before any epoch is over; another driver that has `claimed` it goes on.
    """
    return state == "pending" and begun and not claimed


def _judged(trial: Trial, known: State | None) -> tuple[Status, str]:
    if known is None:
        return "new", "never ran"
    progress = f"{known.epochs} of {counted(trial.config.epochs, 'epoch')}"
    failure = ": ".join(part for part in (known.error_class, _first_line(known.error)) if part)
    if known.state == "done":
        total = counted(trial.config.epochs, "epoch")
        return "done", f"all {total} recorded" if trial.config.epochs > 1 else f"its {total} is recorded"
    if known.state == "failed":
        return "failed", f"{failure or 'without a message'}; after {progress}; --retry-failed tries it again"
    if known.driver is not None and known.state == "running":
        return "running", f"another driver trains it; {progress}"
    if known.driver is not None:
        return "waiting", f"another driver has it and will start it; {progress}"
    if not is_interrupted("pending", begun=bool(known.attempts or known.epochs), claimed=False):
        return "new", "never ran"
    return "interrupted", f"stopped after {progress}" + (f"; last error: {failure}" if failure else "")


def _first_line(text: str | None) -> str:
    return next((line.strip() for line in (text or "").splitlines() if line.strip()), "")
