"""Define the error of the reports."""

from __future__ import annotations


class ReportError(ValueError):
    """A request that a report cannot fulfil; the message says what to ask instead."""

    # Of the command: bad input, see `orchestrator.exit_codes`.
    exit_code = 2
