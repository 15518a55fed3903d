"""States of trials, for plans without a database."""

from __future__ import annotations

from orchestrator.database import TrialState


def trial_state(
    state: str,
    epochs: int = 0,
    attempts: int = 1,
    error_class: str | None = None,
    error: str | None = None,
    driver: int | None = None,
) -> TrialState:
    """Return a trial's state as the database gives it to a plan, of one attempt that is not over."""
    return TrialState(state, epochs, attempts, error_class, error, driver, None)
