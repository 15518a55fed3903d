"""Tell whether the nodes of a cluster, or one machine, can ever hold a trial. Pure: amounts in, words out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from orchestrator.text import counted

if TYPE_CHECKING:
    from orchestrator.grid import Resources, Trial


def unfit(nodes: Sequence[Mapping[str, float]], trials: Iterable[Trial]) -> dict[Resources, list[Trial]]:
    """Return the trials that the nodes can never hold, by what a trial asks for.

    A node is its number of `CPU` and `GPU`, as Ray gives it.
    """
    shapes: dict[Resources, list[Trial]] = {}
    for trial in trials:
        shapes.setdefault(trial.resources, []).append(trial)
    return {
        shape: members
        for shape, members in shapes.items()
        if sum(_places(node, shape) for node in nodes) < shape.processes
    }


def unfit_lines(cpus: float, gpus: float, trials: Iterable[Trial]) -> list[str]:
    """Return a line for every request that a machine with so many processors and GPUs can never meet."""
    return [
        f"this machine has {amounts(cpus, gpus)}, and {counted(len(members), 'trial')} "
        f"{'asks' if len(members) == 1 else 'ask'} for {asked(shape)}{'' if len(members) == 1 else ' each'}: `run` "
        "will refuse that here; change `resources` in the grid file, or run where such a node is (--address)"
        for shape, members in unfit([{"CPU": cpus, "GPU": gpus}], trials).items()
    ]


def asked(shape: Resources) -> str:
    """Return what a trial asks for: `2 processes with 4 CPUs and 1 GPU each`."""
    per_process = amounts(shape.cpu, shape.gpu or 0)
    return f"{shape.processes} processes with {per_process} each" if shape.processes > 1 else per_process


def amounts(cpus: float, gpus: float) -> str:
    """Return amounts in words: `4 CPUs and 1 GPU`."""
    return f"{counted(cpus, 'CPU')} and {counted(gpus, 'GPU')}"


def _places(node: Mapping[str, float], shape: Resources) -> int:
    """Return how many processes of this shape a node has room for."""
    asked_for = {"CPU": shape.cpu, "GPU": shape.gpu}
    return min(int(node.get(kind, 0) / amount) for kind, amount in asked_for.items() if amount)
