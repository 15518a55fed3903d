"""Define the base of all errors of this package."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from orchestrator.exit_codes import BAD_INPUT

if TYPE_CHECKING:
    from trainer.errors import FailureClass


class OrchestrateError(Exception):
    """An end that was foreseen; the message says what is wrong and what to do.

    `exit_code` is that of a command that ends with it, `failure` the class of a trial that does (see
    `orchestrator.failures`).
    """

    exit_code: int = BAD_INPUT
    failure: ClassVar[FailureClass] = "code"
