"""Queries of `plan`, `status`, `watch`, `explain` and `triage`; each function reads in a few statements."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, and_, func, select, text
from sqlalchemy.orm import aliased

from orchestrator.database.models import ACCEPTED, MAIN_TEST, Attempt, Epoch, Evaluation, Grid, GridTrial, Trial
from orchestrator.database.values import in_parts
from orchestrator.records import AttemptRow, FailureRow, MeasuredRow, ProgressRow, TrialState

if TYPE_CHECKING:
    from orchestrator.records import Living

# Characters of an error text that contain its first line.
_LINE = 1000
_accepted, _main_test = text(ACCEPTED), text(MAIN_TEST)

# Number, mean seconds and lowest top-1 error (%) of a trial's accepted epochs.
Sums = tuple[int, float | None, float | None]
# A trial's id, and when it became done: one that is trained anew is another entry.
Settled = dict[tuple[int, datetime | None], Sums]


def effective_state(state: str, driver: int | None, living: Living) -> tuple[str, int | None]:
    """Treat a dead driver's trial as unclaimed (running -> pending) before the row is updated."""
    if driver is None or living(driver):
        return state, driver
    return "pending" if state == "running" else state, None


def states(connection: Connection, wanted: Sequence[str], living: Living) -> dict[str, TrialState]:
    """Return the progress of each stored trial, in the order asked."""
    epochs = select(func.count()).where(Epoch.trial_id == Trial.id, _accepted).scalar_subquery()
    trains = and_(Attempt.trial_id == Trial.id, Attempt.purpose == "train")
    tries = select(func.count()).where(trains).scalar_subquery()
    ended = select(func.max(Attempt.ended)).where(trains).scalar_subquery()
    newest_failure = select(func.max(Attempt.id)).where(trains, Attempt.outcome == "failed").scalar_subquery()
    failure = aliased(Attempt)
    query = select(
        Trial.key,
        Trial.state,
        epochs,
        tries,
        failure.error_class,
        func.substr(failure.error_text, 1, _LINE),
        Trial.driver,
        ended,
    ).outerjoin(failure, failure.id == newest_failure)
    states_by_key = {}
    for part in in_parts(wanted):
        for key, state, done, count, error_class, error, driver, last_ended in connection.execute(
            query.where(Trial.key.in_(part))
        ):
            state, driver = effective_state(state, driver, living)
            states_by_key[key] = TrialState(state, done, count, error_class, _first_line(error), driver, last_ended)
    return {key: states_by_key[key] for key in wanted if key in states_by_key}


def attempts(connection: Connection, key: str) -> list[AttemptRow]:
    """Return every attempt of a trial, the newest last."""
    columns = [getattr(Attempt, name) for name in AttemptRow.__dataclass_fields__ if name != "epochs"]
    epochs = select(func.count()).where(Epoch.attempt_id == Attempt.id).scalar_subquery()
    rows = connection.execute(
        select(*columns, epochs.label("epochs"))
        .join(Trial, Trial.id == Attempt.trial_id)
        .where(Trial.key == key)
        .order_by(Attempt.number)
    )
    return [AttemptRow(**row) for row in rows.mappings()]


def failures(connection: Connection, grid: str | None) -> list[FailureRow]:
    """Return the failed trials by cause: the fingerprint, or without one the class and first line of the error."""
    newest = (
        select(func.max(Attempt.id))
        .where(Attempt.trial_id == Trial.id, Attempt.purpose == "train", Attempt.outcome == "failed")
        .scalar_subquery()
    )
    failure = aliased(Attempt)
    query = (
        select(
            GridTrial.name,
            Trial.key,
            failure.id,
            failure.fingerprint,
            failure.error_class,
            func.substr(failure.error_text, 1, _LINE),
        )
        .join_from(Trial, failure, failure.id == newest)
        .join(GridTrial, GridTrial.trial_id == Trial.id)
        .join(Grid, Grid.id == GridTrial.grid_id)
        .where(Trial.state == "failed")
        .order_by(Grid.name, GridTrial.position)
    )
    if grid is not None:
        query = query.where(Grid.name == grid)
    causes: dict[tuple[str | None, ...], dict[str, tuple[Any, ...]]] = {}
    for name, key, attempt, fingerprint, error_class, error in connection.execute(query):
        line = _first_line(error)
        cause = (fingerprint,) if fingerprint else (None, error_class, line)
        # A trial of several grids is listed once, by its name in the first one.
        causes.setdefault(cause, {}).setdefault(key, (attempt, name, fingerprint, error_class, line, key))
    rows = []
    for trials_of_cause in causes.values():
        attempt, _, fingerprint, error_class, line, key = max(trials_of_cause.values())
        facts = (Attempt.host, Attempt.log, Attempt.error_text, Attempt.environment)
        rest = connection.execute(select(*facts).where(Attempt.id == attempt)).one()
        names = tuple(entry[1] for entry in trials_of_cause.values())
        rows.append(
            FailureRow(fingerprint, error_class, line, len(trials_of_cause), names, tuple(trials_of_cause), key, *rest)
        )
    return sorted(rows, key=lambda row: -row.count)


def progress(connection: Connection, grid: str | None, settled: Settled, living: Living) -> list[ProgressRow]:
    """Return every trial of one grid, or of all, with its accepted epochs and newest training attempt.

    `settled` caches the sums of done trials, which do not change, from one call to the next.
    """
    members = select(GridTrial.trial_id).join(Grid, Grid.id == GridTrial.grid_id)
    rows = select(GridTrial.trial_id, GridTrial.name).join(Grid, Grid.id == GridTrial.grid_id)
    if grid is not None:
        members, rows = members.where(Grid.name == grid), rows.where(Grid.name == grid)
    last_error = (
        select(Evaluation.top1_error)
        .join(Epoch, Epoch.id == Evaluation.epoch_id)
        .where(Epoch.trial_id == Trial.id, _accepted, _main_test)
        .order_by(Epoch.epoch.desc())
        .limit(1)
        .scalar_subquery()
    )
    newest = select(func.max(Attempt.id)).where(Attempt.trial_id == Trial.id, Attempt.purpose == "train")
    attempt = aliased(Attempt)
    facts = (
        select(
            Trial.id,
            Trial.key,
            Trial.config,
            Trial.state,
            Trial.driver,
            Trial.finished,
            last_error,
            attempt.started,
            attempt.error_class,
            attempt.host,
            attempt.device,
            Trial.numbers_sha256,
        )
        .outerjoin(attempt, attempt.id == newest.scalar_subquery())
        .where(Trial.id.in_(members))
    )
    # Read before the epochs: all epochs of a trial that is done by then are stored.
    trials = {trial: tuple(rest) for trial, *rest in connection.execute(facts)}
    kept = {trial: settled.get((trial, facts[4])) for trial, facts in trials.items() if facts[2] == "done"}
    sums = _sums(connection, [trial for trial in trials if not kept.get(trial)])
    settled.update(((trial, trials[trial][4]), found) for trial, found in sums.items() if trials[trial][2] == "done")

    answer = []
    # A trial of several grids is returned once for each.
    for trial, name in connection.execute(rows.order_by(Grid.name, GridTrial.position)):
        key, config, state, driver, _, last, started, error_class, host, device, numbers = trials[trial]
        state, holder = effective_state(state, driver, living)
        done, seconds, best = kept.get(trial) or sums.get(trial) or (0, None, None)
        total = config["epochs"]
        answer.append(
            ProgressRow(
                name,
                key,
                config,
                state,
                done,
                total,
                last,
                best,
                seconds,
                started,
                error_class,
                host,
                device,
                begun=started is not None or done > 0,
                claimed=holder is not None,
                numbers=numbers if state == "done" else None,
            )
        )
    return answer


def _sums(connection: Connection, trial_ids: Sequence[int]) -> dict[int, Sums]:
    """Return the sums over all accepted epochs of each trial that has any."""
    query = (
        select(
            Epoch.trial_id,
            func.count(),
            func.avg(Epoch.seconds),
            func.min(Evaluation.top1_error),
        )
        .outerjoin(Evaluation, and_(Evaluation.epoch_id == Epoch.id, _main_test))
        .where(_accepted)
        .group_by(Epoch.trial_id)
    )
    return {
        trial: (count, seconds, best)
        for part in in_parts(trial_ids)
        for trial, count, seconds, best in connection.execute(query.where(Epoch.trial_id.in_(part)))
    }


def measured(connection: Connection, purposes: Sequence[str]) -> list[MeasuredRow]:
    """Return the measurements of training and canaries; of several canaries of a trial, the newest that passed."""
    rows = []
    if "train" in purposes:
        sums = (
            select(
                Epoch.trial_id,
                func.avg(Epoch.seconds).label("seconds"),
                func.max(Epoch.peak_memory_bytes).label("peak"),
                func.max(Epoch.attempt_id).label("attempt_id"),
            )
            .where(_accepted)
            .group_by(Epoch.trial_id)
            .subquery()
        )
        query = (
            select(
                Trial.key,
                Trial.config,
                Attempt.device,
                sums.c.seconds,
                sums.c.peak,
                Attempt.environment["engine_asked"].as_string(),
            )
            .join_from(sums, Trial, Trial.id == sums.c.trial_id)
            .join(Attempt, Attempt.id == sums.c.attempt_id)
            .order_by(Trial.id)
        )
        for key, config, device, seconds, peak, engine in connection.execute(query):
            rows.append(MeasuredRow(key, config, "train", device, seconds, peak, engine=engine or "auto"))
    if "canary" in purposes:
        newest = (
            select(func.max(Attempt.id))
            .where(Attempt.purpose == "canary", Attempt.outcome == "done")
            .group_by(Attempt.trial_id)
        )
        query = (
            select(Trial.key, Trial.config, Attempt.device, Attempt.environment)
            .join(Attempt, Attempt.trial_id == Trial.id)
            .where(Attempt.id.in_(newest))
            .order_by(Trial.id)
        )
        for key, config, device, environment in connection.execute(query):
            names = (
                "seconds_per_epoch",
                "peak_memory_bytes",
                "checkpoint_bytes",
                "reserved_memory_bytes",
                "launch_share",
            )
            rehearsal = {name: environment["canary"].get(name) for name in names}
            total = environment.get("device", {}).get("memory_bytes")
            engine = environment.get("engine_asked", "auto")
            rows.append(
                MeasuredRow(key, config, "canary", device, device_memory_bytes=total, engine=engine, **rehearsal)
            )
    return rows


def _first_line(error_text: str | None) -> str | None:
    return None if error_text is None else error_text.strip().split("\n", 1)[0].rstrip()
