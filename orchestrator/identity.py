"""Compare the code, the data and the numbers of trials: which differ, and how a person reads it. Pure.

A part at one version should have one code, and a data set one content; where two trials differ in these, their mean is
of two experiments. The trainer's own code changes with every release, most often without changing a number: that is
said as well, and stops nothing.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Literal, NamedTuple

from orchestrator.records import Origin

# Digits of a digest in messages.
SHOWN = 8


class Difference(NamedTuple):
    """A thing that differs: the code of a part, the trainer's own code, or the data, with both digests."""

    kind: Literal["code", "trainer", "data"]
    what: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.what} {self.before[:SHOWN]} -> {self.after[:SHOWN]}"

    def to_dict(self) -> dict[str, str]:
        """Return plain values, with whole digests."""
        return self._asdict()


def differences(before: Origin, after: Origin) -> list[Difference]:
    """Return what differs between two origins: parts of one name and version, the trainer's own code, the data.

    What only one of them has recorded is unknown, and no difference.
    """
    listed = []
    parts = {(part.kind, part.name, part.version): part for part in after.parts}
    for part in before.parts:
        other = parts.get((part.kind, part.name, part.version))
        if other is not None and part.digest and other.digest and other.digest != part.digest:
            listed.append(Difference("trainer" if part.ships else "code", other.file, part.digest, other.digest))
    if before.trainer and after.trainer and before.trainer != after.trainer:
        listed.append(Difference("trainer", "trainer", before.trainer, after.trainer))
    if before.data and after.data and before.data != after.data:
        listed.append(Difference("data", "data", before.data, after.data))
    # Several parts of one file are one change.
    return list(dict.fromkeys(listed))


def changes(recorded: Iterable[Origin], present: Origin) -> list[Difference]:
    """Return what differs between the origins of a trial's epochs and the present code and data."""
    return list(dict.fromkeys(each for origin in recorded for each in differences(origin, present)))


def words(changed: Sequence[Difference]) -> str:
    """Return changes in words, empty for none: `by other code: my_parts.py 3f2a91bc -> 91bc03d1; raise ...`."""
    code = [str(each) for each in changed if each.kind != "data"]
    data = [str(each).removeprefix("data ") for each in changed if each.kind == "data"]
    sentences = [f"by other code: {', '.join(code)}"] * bool(code) + [f"on other data: {', '.join(data)}"] * bool(data)
    if not sentences:
        return ""
    raised = "raise its version, or " if any(each.kind == "code" for each in changed) else ""
    return f"{', and '.join(sentences)}; {raised}--retrain"


class Mixed(NamedTuple):
    """Trials of one number that differ: footnotes on code of parts and data, and notes on the trainer's own code."""

    footnotes: tuple[str, ...]
    notes: tuple[str, ...]


def mixed(trials: Mapping[str, Sequence[Origin]]) -> Mixed:
    """Return what to say of trials that one number is the mean of, by name with the origins of their epochs.

    A trial's own epochs may differ as well, where it was interrupted.
    """
    if len({replace(origin, number=0) for origins in trials.values() for origin in origins}) < 2:
        return Mixed((), ())
    named = [(name, origin) for name, origins in trials.items() for origin in origins]
    kinds: dict[tuple[str, str], dict[str, dict[str, None]]] = {}
    for (one, first), (two, second) in combinations(named, 2):
        for kind, what, before, after in differences(first, second):
            groups = kinds.setdefault((kind, what), {})
            groups.setdefault(before, {})[one] = None
            groups.setdefault(after, {})[two] = None
    footnotes, notes = [], []
    for (sort, what), groups in kinds.items():
        listed = "; ".join(f"{digest[:SHOWN]}: {', '.join(names)}" for digest, names in groups.items())
        if sort == "data":
            footnotes.append(f"trained on data that differs ({listed})")
        elif sort == "code":
            footnotes.append(f"trained by code that differs at one version, {what} ({listed})")
        else:
            notes.append(f"trained by different code of the trainer, {what} ({listed})")
    return Mixed(tuple(footnotes), tuple(notes))


class Numbers(NamedTuple):
    """The digest of a done trial's metrics in all epochs, and how many epochs these are."""

    sha256: str
    epochs: int


def same_numbers(first: Mapping[Hashable, Numbers], second: Mapping[Hashable, Numbers]) -> str:
    """Return `the same numbers in all 20 epochs of 3 seeds` where that holds for every seed that both have, else ``.

    The trials of both are given by seed. Where it holds, both are one computation, whatever their configurations say.
    """
    shared = first.keys() & second.keys()
    if not shared or any(first[seed].sha256 != second[seed].sha256 for seed in shared):
        return ""
    epochs = max(first[seed].epochs for seed in shared)
    seeds = "1 seed" if len(shared) == 1 else f"{len(shared)} seeds"
    return f"the same numbers in all {epochs:,} epochs of {seeds}" if epochs > 1 else f"the same numbers in {seeds}"
