"""Claims of trials by drivers, and what becomes of them when a driver ends; each function is one transaction's work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, Connection, func, literal, or_, select, update

from orchestrator.database.backends.postgresql import holder_of
from orchestrator.database.errors import Busy, Holder
from orchestrator.database.grids import alone
from orchestrator.database.models import Attempt, Trial
from orchestrator.database.values import in_parts, now

trials, attempts = Trial.__table__, Attempt.__table__


def claim(connection: Connection, wanted: Sequence[str], token: int) -> set[str]:
    """Claim the pending trials that no driver has; returns the wanted ones that this driver has now."""
    alone(connection)
    obtained: set[str] = set()
    for part in in_parts(wanted):
        # Only keys choose the rows: with a condition on the state PostgreSQL may read every pending trial.
        rows = connection.execute(
            select(Trial.id, Trial.key, Trial.state, Trial.driver).where(Trial.key.in_(part)).with_for_update()
        )
        free = {row.id: row.key for row in rows if row.state == "pending" and row.driver in (None, token)}
        connection.execute(update(Trial.__table__).where(Trial.id.in_(free)).values(driver=token))
        obtained.update(free.values())
    return obtained


def release(connection: Connection, token: int) -> None:
    """Release the trials and attempts of a driver that ends."""
    alone(connection)
    _give_back(connection, "interrupted", trials.c.driver == token, attempts.c.driver == token)


def release_stale(connection: Connection, own: int) -> int:
    """Release the trials and attempts of dead drivers; returns how many trials were running."""
    alone(connection)
    tokens = set(connection.scalars(select(trials.c.driver).where(trials.c.driver.is_not(None)).distinct()))
    open_attempts = select(attempts.c.driver).where(attempts.c.outcome.is_(None), attempts.c.driver.is_not(None))
    tokens |= set(connection.scalars(open_attempts.distinct()))
    # A living driver on PostgreSQL holds the lock of its token; on an SQLite file this driver is the only one.
    living = {own}
    if connection.dialect.name == "postgresql":
        living |= {
            token
            for token in tokens - living
            if not connection.scalar(select(func.pg_try_advisory_xact_lock(literal(token, BigInteger))))
        }
    return _give_back(
        connection,
        "lost",
        or_(trials.c.driver.is_(None), trials.c.driver.not_in(living)),
        or_(attempts.c.driver.is_(None), attempts.c.driver.not_in(living)),
    )


def take_up(connection: Connection, where: str, token: int) -> None:
    """Claim a driver's open trials again after its connection was lost, where another driver released them.

    Raises Busy when another driver has begun with one of them since.
    """
    alone(connection)
    own_attempts = (
        select(attempts.c.id, attempts.c.trial_id, attempts.c.purpose, trials.c.state, trials.c.driver)
        .join(trials, trials.c.id == attempts.c.trial_id)
        .where(attempts.c.driver == token, attempts.c.outcome == "lost")
    )
    for row in connection.execute(own_attempts).all():
        newer = select(attempts.c.id).where(
            attempts.c.trial_id == row.trial_id, attempts.c.purpose == "train", attempts.c.id > row.id
        )
        if row.purpose == "train":
            if row.driver not in (None, token):
                raise Busy(where, taker(connection, row.driver))
            if row.state != "pending" or connection.scalar(newer.limit(1)) is not None:
                # A later attempt of its own has superseded it, or another run has begun or ended it.
                continue
            connection.execute(update(trials).where(trials.c.id == row.trial_id).values(state="running", driver=token))
        connection.execute(update(attempts).where(attempts.c.id == row.id).values(outcome=None, ended=None))


def taker(connection: Connection, token: int) -> Holder:
    """Return the facts about the driver that has a trial, as far as they are known."""
    return holder_of(connection, token) if connection.dialect.name == "postgresql" else Holder()


def _give_back(connection: Connection, outcome: str, of_trials: Any, of_attempts: Any) -> int:
    """End the open attempts and make their trials pending, where the conditions hold."""
    connection.execute(
        update(attempts).where(attempts.c.outcome.is_(None), of_attempts).values(outcome=outcome, ended=now())
    )
    running = connection.execute(
        update(trials).where(trials.c.state == "running", of_trials).values(state="pending", driver=None)
    )
    connection.execute(
        update(trials).where(trials.c.state == "pending", trials.c.driver.is_not(None), of_trials).values(driver=None)
    )
    return running.rowcount
