"""Plan a run of a grid: what happens to each trial, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from orchestrator.identity import Difference, words
from orchestrator.records import TrialState
from orchestrator.text import counted

if TYPE_CHECKING:
    from orchestrator.grid import Grid, Trial

Status = Literal["new", "interrupted", "done", "failed", "running", "waiting"]

# What the next run does with trials of each status, in the order of the summary.
OUTLOOK: dict[Status, str] = {
    "new": "new",
    "interrupted": "to continue",
    "done": "done",
    "failed": "failed (--retry-failed tries again)",
    "running": "running elsewhere",
    "waiting": "waiting elsewhere",
}


@dataclass(frozen=True)
class PlannedTrial:
    """A trial, its number of recorded `epochs`, and a sentence that says why it would run or not.

    `changes` are those of its code and data since these epochs were trained; `data_checked` is true where the data is
    here and was compared.
    """

    trial: Trial
    status: Status
    reason: str
    epochs: int = 0
    changes: tuple[Difference, ...] = ()
    data_checked: bool = False

    @property
    def would_run(self) -> bool:
        """Return whether the next run trains the trial."""
        return self.status in ("new", "interrupted")


@dataclass(frozen=True)
class Plan:
    """The trials of a grid in its order; `devices` tells where trials run whose grid leaves it open."""

    entries: list[PlannedTrial]
    devices: str | None = None

    @property
    def pending(self) -> list[PlannedTrial]:
        """Return the trials that the next run trains."""
        return [entry for entry in self.entries if entry.would_run]

    def count(self, status: Status) -> int:
        """Return the number of trials of this status."""
        return self._counts()[status]

    def summary(self) -> str:
        """Return one line: `28 trials: 4 new, 24 done`, and what a run would do."""
        counts = self._counts()
        listed = ", ".join(f"{counts[status]:,} {words}" for status, words in OUTLOOK.items() if counts[status])
        pending = counts["new"] + counts["interrupted"]
        verdict = f"{counted(pending, 'trial')} to run" if pending else "nothing to run"
        return f"{counted(len(self.entries), 'trial')}: {listed}; {verdict}"

    def outdated(self) -> list[str]:
        """Return a line per change of code or data since trials were trained, with their number and state."""
        groups = Counter((entry.status, entry.changes) for entry in self.entries if entry.changes)
        return [
            f"{counted(count, 'trial')} {OUTLOOK[status] if status == 'interrupted' else status}, {words(changes)}"
            for (status, changes), count in groups.items()
        ]

    def together(self) -> list[str]:
        """Return lines about trials that run otherwise than in one process on a device that the grid names."""
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
        """Return lines about how steps are run, where the grid sets it."""
        manners = Counter((entry.trial.resources.engine, entry.trial.resources.deterministic) for entry in self.entries)
        return [
            f"{counted(count, 'trial')} with "
            + " and ".join([f"engine: {engine}"] * (engine != "auto") + ["deterministic: true"] * deterministic)
            for (engine, deterministic), count in manners.items()
            if engine != "auto" or deterministic
        ]

    def _counts(self) -> Counter[str]:
        return Counter(entry.status for entry in self.entries)


def make_plan(grid: Grid, states: Mapping[str, TrialState]) -> Plan:
    """Compare a grid with the database's states of its trials, by key; a trial without a state is new."""
    pairs = ((trial, states.get(trial.key)) for trial in grid.trials)
    return Plan([PlannedTrial(trial, *_judged(trial, state), state.epochs if state else 0) for trial, state in pairs])


def with_changes(plan: Plan, changes: Mapping[str, Sequence[Difference]], checked: Collection[str]) -> Plan:
    """Return a plan that says of trials, by key, what changed of their code and data since they were trained.

    `checked` are the keys of the trials whose data was compared.
    """

    def changed(entry: PlannedTrial) -> PlannedTrial:
        own = tuple(changes.get(entry.trial.key, ()))
        reason = words(own) if entry.status == "done" else f"{entry.reason}; trained {words(own)}"
        checks = entry.trial.key in checked
        return replace(entry, reason=reason if own else entry.reason, changes=own, data_checked=checks)

    return replace(plan, entries=[changed(entry) for entry in plan.entries])


def with_devices(plan: Plan, gpus: int) -> Plan:
    """Return a plan whose trials have their number of GPUs, on a machine with `gpus` of them, and a line about it."""
    from orchestrator.grid import placed

    if all(entry.trial.resources.gpu is not None for entry in plan.entries):
        return plan
    trials = placed((entry.trial for entry in plan.entries), gpus > 0)
    entries = [replace(entry, trial=trial) for entry, trial in zip(plan.entries, trials, strict=True)]
    return Plan(entries, devices_line(gpus))


def devices_line(gpus: int, where: str = "here") -> str:
    """Return where trials run whose grid does not set `gpu`, by the number of GPUs."""
    if gpus:
        return f"{counted(gpus, 'GPU')} {where}: each trial takes one, as the grid does not say `gpu` under `resources`"
    return f"no GPU {where}: trials run on the processor, as the grid does not say `gpu` under `resources`"


def is_interrupted(state: str, *, begun: bool, claimed: bool) -> bool:
    """Return whether a trial has begun and nobody trains it now; `plan`, `run`, `status` and `watch` agree on this.

    A trial has `begun` with its first attempt, before any epoch is over; one that another driver has `claimed` goes on.
    """
    return state == "pending" and begun and not claimed


def _judged(trial: Trial, state: TrialState | None) -> tuple[Status, str]:
    if state is None:
        return "new", "never ran"
    progress = f"{state.epochs} of {counted(trial.config.epochs, 'epoch')}"
    failure = ": ".join(part for part in (state.error_class, state.error) if part)
    if state.state == "done":
        total = counted(trial.config.epochs, "epoch")
        return "done", f"all {total} recorded" if trial.config.epochs > 1 else f"its {total} is recorded"
    if state.state == "failed":
        return "failed", f"{failure or 'without a message'}; after {progress}; --retry-failed tries it again"
    if state.driver is not None and state.state == "running":
        return "running", f"another driver trains it; {progress}"
    if state.driver is not None:
        return "waiting", f"another driver has it and will start it; {progress}"
    if not is_interrupted("pending", begun=bool(state.attempts or state.epochs), claimed=False):
        return "new", "never ran"
    return "interrupted", f"stopped after {progress}" + (f"; last error: {failure}" if failure else "")
