"""Retries of a transaction: a few times, and by a driver for as long as a server may be away."""

from __future__ import annotations

import math
import os
import sqlite3
import time
from collections.abc import Callable
from itertools import chain, repeat
from typing import Protocol, TypeVar

from sqlalchemy.exc import StatementError

from orchestrator.database.errors import DatabaseAway, DatabaseError, describe, transient
from orchestrator.text import duration

T = TypeVar("T")

# Seconds between the retries of a transaction that met a lock, a deadlock or a lost connection.
PAUSES = (0.1, 0.5, 2.0)
# A driver goes on for PATIENCE seconds, with a retry after each LONG_PAUSE: a server's fail-over takes minutes.
LONG_PAUSE = 5.0
PATIENCE = 900.0
PATIENCE_VARIABLE = "ORCHESTRATE_DB_PATIENCE"


class Connected(Protocol):
    """Facts about a database that decide whether a transaction is retried."""

    where: str
    network: bool
    readonly: bool
    wrote: bool
    patience: float
    tell: Callable[[str], None]


def persist(work: Callable[[], T], database: Connected) -> T:
    """Run a transaction, with retries where they may help; a driver retries as long as its patience lasts.

    Raises DatabaseError, with the time that was waited.
    """
    # A user can type a reader's command again in the time that retries would take.
    short = PAUSES[:1] if database.readonly else PAUSES
    began, away = time.monotonic(), False
    for tries, pause in enumerate(chain(short, repeat(LONG_PAUSE)), start=1):
        try:
            answer = work()
        except (StatementError, sqlite3.Error) as error:
            problem = describe(error, database.where)
            mistaken = not database.wrote and not isinstance(problem, DatabaseAway)
            if mistaken or not transient(error, network=database.network):
                raise problem from error
            waited = time.monotonic() - began
            if tries > len(short) and waited + pause > database.patience:
                lasted = f"; waited {duration(waited)} for it ({PATIENCE_VARIABLE})" if away else ""
                raise type(problem)(f"{problem}{lasted}") from error
        else:
            if away:
                database.tell(f"the database is back after {duration(time.monotonic() - began)}")
            return answer
        if tries == len(short) and database.patience:
            away = True
            allowed = duration(database.patience)
            database.tell(f"waiting for the database, up to {allowed}; running trials go on: {problem}")
        time.sleep(pause)
    raise AssertionError("the last try returns or raises")


def patience() -> float:
    """Return the seconds that a driver waits; raises DatabaseError for a bad ORCHESTRATE_DB_PATIENCE."""
    given = os.environ.get(PATIENCE_VARIABLE, "")
    try:
        seconds = float(given or PATIENCE)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise DatabaseError(f"{PATIENCE_VARIABLE} is {given!r}; it is a number of seconds, such as {PATIENCE:g}")
    return seconds
