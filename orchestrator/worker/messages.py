"""Define the messages from a worker to the driver.

Ray Tune carries them as plain values, beside keys of its own: `to_values` and `from_values` are the two ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.failures import Failure
from orchestrator.records import AttemptFacts, PartRow
from orchestrator.timing import Timing
from trainer.results import EpochResult


@dataclass(frozen=True)
class Started:
    """An attempt has begun; of a canary, it has ended well.

    `began` is in seconds of the host's monotonic clock. `device_id` differs between the GPUs of a host where the UUID
    cannot be read. `pids` are those of all ranks on this host; `parts` are the parts that the trial uses, as this
    worker has them.
    """

    facts: AttemptFacts
    device_id: str
    pids: tuple[int, ...]
    began: float
    parts: tuple[PartRow, ...] = ()


@dataclass(frozen=True)
class EpochDone:
    """An epoch was trained, evaluated and saved; it `began` and `ended` in seconds of the host's monotonic clock."""

    result: EpochResult
    timing: Timing
    began: float
    ended: float


@dataclass(frozen=True)
class EngineChanged:
    """The trial goes on with another engine than `Started` named, see `trainer.step`."""

    engine: str


@dataclass(frozen=True)
class TeacherEpoch:
    """An epoch of the teacher was trained: the trial is alive, though it has no epoch of its own yet."""


@dataclass(frozen=True)
class DataProgress:
    """The data set is being fetched: the trial is alive, though it has not started to train."""


@dataclass(frozen=True)
class DataIdentity:
    """The data is there, and its content has this fingerprint."""

    sha256: str


@dataclass(frozen=True)
class Done:
    """The attempt ended well."""


@dataclass(frozen=True)
class Failed:
    """The attempt failed."""

    failure: Failure


Message = Started | EpochDone | EngineChanged | TeacherEpoch | DataProgress | DataIdentity | Done | Failed
_BY_NAME = {kind.__name__: kind for kind in (EngineChanged, TeacherEpoch, DataProgress, DataIdentity, Done)}


def to_values(message: Message) -> dict[str, Any]:
    """Return a message as plain values."""
    return {"kind": type(message).__name__, "message": asdict(message)}


def from_values(values: Mapping[str, Any]) -> Message:
    """Build the message from the values of `to_values`, whatever stands beside them."""
    kind, fields = values["kind"], values["message"]
    if kind == EpochDone.__name__:
        result, timing = EpochResult.from_dict(fields["result"]), Timing(**fields["timing"])
        return EpochDone(result, timing, fields["began"], fields["ended"])
    if kind == Failed.__name__:
        return Failed(Failure(**fields["failure"]))
    if kind == Started.__name__:
        facts, parts = AttemptFacts(**fields["facts"]), tuple(PartRow(**part) for part in fields["parts"])
        return Started(**{**fields, "facts": facts, "parts": parts})
    message: Message = _BY_NAME[kind](**fields)
    return message
