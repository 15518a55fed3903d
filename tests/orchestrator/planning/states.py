"""States of trials, for plans without a database."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class State:
    """A trial's state as the database gives it to a plan."""

    state: str
    epochs: int = 0
    attempts: int = 1
    error_class: str | None = None
    error: str | None = None
    driver: int | None = None
