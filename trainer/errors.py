"""Define the errors of the trainer."""

from __future__ import annotations

from typing import ClassVar, Literal

# The class of a failed trial: `orchestrator.failures` says what is done about it.
FailureClass = Literal["infrastructure", "out_of_memory", "diverged", "data", "code"]


class TrainerError(Exception):
    """An end that was foreseen; the message says what is wrong and what to do.

    `exit_code` is that of a command that ends with it (2: bad input), `failure` the class of a trial that does.
    """

    exit_code: int = 2
    failure: ClassVar[FailureClass] = "code"


class Diverged(TrainerError):
    """A loss term became NaN or infinite; the message names the term, the step and the epoch (counted from 1)."""

    exit_code = 1
    failure = "diverged"


class RankLost(TrainerError, ConnectionError):
    """Another process that trains the same network has ended; why is for that one to say."""

    exit_code = 1
    failure = "infrastructure"
