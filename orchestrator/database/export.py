"""Statements that select what `export` writes, one per tidy file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Select, select

from orchestrator.database.models import (
    ACCEPTED_EPOCHS,
    Attempt,
    AttemptPart,
    Epoch,
    Evaluation,
    Grid,
    GridTrial,
    MetricValue,
    Outcome,
    Part,
    Trial,
)
from orchestrator.database.queries import trials_of


def statements(grid_ids: Sequence[int] | None = None, own_metrics: Iterable[str] = ()) -> dict[str, Select[Any]]:
    """Return one statement per tidy file: trials of grids by name, trials, attempts, their parts, epochs and so on.

    They are of all grids and trials, or of these grids and their trials; epochs are the accepted ones.
    `own_metrics` are columns of the evaluations.
    """
    evaluations: list[Any] = [
        column for column in Evaluation.__table__.columns if column.name not in ("id", "epoch_id")
    ]
    for name in own_metrics:
        value = select(MetricValue.value).where(MetricValue.evaluation_id == Evaluation.id, MetricValue.metric == name)
        evaluations.append(value.scalar_subquery().label(name))
    epochs = [
        column
        for column in Epoch.__table__.columns
        if column.name not in ("id", "trial_id", "attempt_id", "accepted", "epoch", "losses")
    ]
    # Stored from 0; files count from 1, as the screen and the logs do.
    counted_epoch = (Epoch.epoch + 1).label("epoch")
    environment = Attempt.environment
    grids: Any = (
        select(Trial.key, Grid.name.label("grid"), GridTrial.position, GridTrial.name.label("trial"))
        .join(GridTrial, GridTrial.trial_id == Trial.id)
        .join(Grid, Grid.id == GridTrial.grid_id)
        .order_by(Grid.id, GridTrial.position)
    )
    chosen: dict[str, Any] = {
        "grids": grids,
        "trials": select(Trial.key, Trial.state, Trial.finished, Trial.config).order_by(Trial.id),
        "attempts": select(
            Trial.key,
            Attempt.number.label("attempt"),
            Attempt.purpose,
            Attempt.host,
            Attempt.device,
            Attempt.started,
            Attempt.ended,
            Attempt.outcome,
            Attempt.error_class,
            environment["commit"].as_string().label("commit"),
            environment["dirty"].as_boolean().label("dirty"),
            environment["code_digest"].as_string().label("code_digest"),
            Attempt.data_sha256,
        )
        .join(Attempt, Attempt.trial_id == Trial.id)
        .order_by(Attempt.trial_id, Attempt.number),
        "parts": select(
            Trial.key,
            Attempt.number.label("attempt"),
            *(Part.kind, Part.name, Part.version),
            *(Part.title, Part.digest, Part.source),
        )
        .join(Attempt, Attempt.trial_id == Trial.id)
        .join(AttemptPart, AttemptPart.attempt_id == Attempt.id)
        .join(Part, Part.id == AttemptPart.part_id)
        .order_by(Attempt.trial_id, Attempt.number, Part.kind, Part.name),
        "epochs": select(Trial.key, counted_epoch, Attempt.number.label("attempt"), *epochs)
        .join(Epoch, Epoch.trial_id == Trial.id)
        .join(Attempt, Attempt.id == Epoch.attempt_id)
        .where(ACCEPTED_EPOCHS)
        .order_by(Epoch.trial_id, Epoch.epoch),
        "losses": select(Trial.key, counted_epoch, Epoch.losses)
        .join(Epoch, Epoch.trial_id == Trial.id)
        .where(ACCEPTED_EPOCHS)
        .order_by(Epoch.trial_id, Epoch.epoch),
        "evaluations": select(Trial.key, counted_epoch, *evaluations)
        .join(Epoch, Epoch.trial_id == Trial.id)
        .join(Evaluation, Evaluation.epoch_id == Epoch.id)
        .where(ACCEPTED_EPOCHS)
        .order_by(Epoch.trial_id, Epoch.epoch, Evaluation.id),
        "outcomes": select(
            *(Trial.key, counted_epoch, Evaluation.network, Evaluation.images),
            *(Outcome.labels_sha256, Outcome.correct),
        )
        .join(Epoch, Epoch.trial_id == Trial.id)
        .join(Evaluation, Evaluation.epoch_id == Epoch.id)
        .join(Outcome, Outcome.evaluation_id == Evaluation.id)
        .where(ACCEPTED_EPOCHS)
        .order_by(Epoch.trial_id, Epoch.epoch, Evaluation.id),
    }
    if grid_ids is None:
        return chosen
    chosen = {name: statement.where(Trial.id.in_(trials_of(grid_ids))) for name, statement in chosen.items()}
    return chosen | {"grids": grids.where(Grid.id.in_(grid_ids))}
