"""Define the error of the reports."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class ReportError(ValueError):
    """A request that a report cannot fulfil; the message says what to ask instead."""

    # Of the command: bad input, see `orchestrator.exit_codes`.
    exit_code = 2


def unknown(kind: str, name: str, names: Iterable[str]) -> ReportError:
    """Return the error of a name that nothing has, with the names that are near, or else those that there are."""
    allowed = list(names)
    near = get_close_matches(name, allowed, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else f" (there are: {', '.join(allowed[:20]) or 'none'})"
    return ReportError(f"there is no {kind} {name!r}{hint}")
