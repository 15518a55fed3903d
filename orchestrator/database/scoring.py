"""Probabilities that are kept, and values of metrics that are computed from them after the training."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, select

from orchestrator.database import attempts, parts
from orchestrator.database.errors import DatabaseError
from orchestrator.database.grids import alone
from orchestrator.database.models import (
    ACCEPTED_EPOCHS,
    AttemptPart,
    Epoch,
    Evaluation,
    Grid,
    GridTrial,
    LabelSet,
    MetricValue,
    Outcome,
    Part,
    Trial,
)
from orchestrator.database.outcomes import unpack
from orchestrator.database.values import in_parts
from orchestrator.records import PartRow


class Unreadable(DatabaseError):
    """Kept probabilities that cannot be read; the message says why."""


class Kept(NamedTuple):
    """An evaluation whose outcomes are kept; `epoch` counts from 0, `probabilities` says that these are kept too.

    `labels_sha256` is None where the labels of its test set are not kept.
    """

    trial: str
    key: str
    attempt_id: int
    epoch_id: int
    evaluation_id: int
    epoch: int
    network: int
    images: int
    labels_sha256: str | None
    probabilities: bool


class Recorded(NamedTuple):
    """The metrics' values by evaluation that are there, and the digests of a metric's code by attempt and name."""

    values: frozenset[tuple[int, str]]
    digests: Mapping[tuple[int, str], frozenset[str]]


def kept(connection: Connection, grids: Sequence[str] | None) -> list[tuple[str, list[Kept]]]:
    """Return by trial its name and the test evaluations of main classifiers with outcomes, of these grids or of all.

    Trials without an accepted epoch are left out; one with epochs and without outcomes has an empty list.
    """
    trained = select(Epoch.id).where(Epoch.trial_id == Trial.id, ACCEPTED_EPOCHS).exists()
    members = (
        select(Trial.id, Trial.key, GridTrial.name)
        .join(GridTrial, GridTrial.trial_id == Trial.id)
        .join(Grid, Grid.id == GridTrial.grid_id)
        .where(trained)
        .order_by(Grid.name, GridTrial.position)
    )
    if grids is not None:
        members = members.where(Grid.name.in_(grids))
    named: dict[int, tuple[str, str]] = {}
    for trial_id, key, name in connection.execute(members):
        # A trial of several grids is listed once, by its name in the first one.
        named.setdefault(trial_id, (key, name))
    listed: dict[int, list[Kept]] = {trial_id: [] for trial_id in named}
    rows = (
        select(
            Epoch.trial_id,
            Epoch.attempt_id,
            Epoch.id,
            Evaluation.id,
            Epoch.epoch,
            Evaluation.network,
            Evaluation.images,
            LabelSet.sha256,
            Outcome.probabilities.is_not(None),
        )
        .join(Evaluation, Evaluation.epoch_id == Epoch.id)
        .join(Outcome, Outcome.evaluation_id == Evaluation.id)
        .outerjoin(LabelSet, LabelSet.sha256 == Outcome.labels_sha256)
        .where(ACCEPTED_EPOCHS, Evaluation.split == "test", Evaluation.classifier == "main")
        .order_by(Epoch.epoch, Evaluation.network)
    )
    for part in in_parts(named):
        for trial_id, *rest in connection.execute(rows.where(Epoch.trial_id.in_(part))):
            key, name = named[trial_id]
            listed[trial_id].append(Kept._make((name, key, *rest)))
    return [(name, listed[trial_id]) for trial_id, (_, name) in named.items()]


def recorded(connection: Connection, wanted: Sequence[Kept], metrics: Sequence[str]) -> Recorded:
    """Return which values of the metrics the evaluations have, and by which code their attempts measured them."""
    values: set[tuple[int, str]] = set()
    digests: dict[tuple[int, str], set[str]] = {}
    measured = select(MetricValue.evaluation_id, MetricValue.metric).where(MetricValue.metric.in_(metrics))
    used = (
        select(AttemptPart.attempt_id, Part.name, Part.digest)
        .join(Part, Part.id == AttemptPart.part_id)
        .where(Part.kind == "metric", Part.name.in_(metrics), Part.digest != "")
    )
    for part in in_parts([each.evaluation_id for each in wanted]):
        for evaluation_id, name in connection.execute(measured.where(MetricValue.evaluation_id.in_(part))):
            values.add((evaluation_id, name))
    for part in in_parts(sorted({each.attempt_id for each in wanted})):
        for attempt_id, name, digest in connection.execute(used.where(AttemptPart.attempt_id.in_(part))):
            digests.setdefault((attempt_id, name), set()).add(digest)
    return Recorded(frozenset(values), {place: frozenset(listed) for place, listed in digests.items()})


def read(connection: Connection, one: Kept) -> tuple[Any, Any]:
    """Return kept probabilities [N, K], float16, and labels [N], int32.

    Raises Unreadable where they are no longer there, cannot be read or do not fit one another.
    """
    packed = connection.scalar(select(Outcome.probabilities).where(Outcome.evaluation_id == one.evaluation_id))
    labels = connection.scalar(select(LabelSet.labels).where(LabelSet.sha256 == one.labels_sha256))
    if packed is None or labels is None:
        raise Unreadable("the labels of its test images are missing" if packed else "they are no longer kept")
    try:
        numbers, classes = unpack(packed, "<f2"), unpack(labels, "<i4")
    except (zlib.error, TypeError, ValueError) as error:
        raise Unreadable(f"they are damaged ({error})") from error
    if len(classes) != one.images or not one.images or len(numbers) % one.images or not len(numbers):
        raise Unreadable(f"{len(numbers)} probabilities and {len(classes)} labels do not fit {one.images} images")
    return numbers.reshape(one.images, -1), classes


def record(
    connection: Connection, where: str, attempt_id: int, part: PartRow, values: Sequence[tuple[Kept, float]]
) -> int:
    """Store the values of a metric at evaluations of an attempt, and that the attempt uses it; returns how many.

    A value that is there already stays.
    """
    alone(connection)
    listed = [one.evaluation_id for one, _ in values]
    stored = select(MetricValue.evaluation_id).where(MetricValue.metric == part.name)
    present = set(connection.scalars(stored.where(MetricValue.evaluation_id.in_(listed))))
    # An evaluation may be gone: on a server, another command may have forgotten its trial meanwhile.
    living = set(connection.scalars(select(Evaluation.id).where(Evaluation.id.in_(listed))))
    fresh = [(one, value) for one, value in values if one.evaluation_id in living - present]
    if not fresh:
        return 0
    parts.record(connection, where, [part], attempt_id)
    for one, value in fresh:
        attempts.record_own_metrics(connection, one.epoch_id, {(one.network, "main", "test"): {part.name: value}})
    return len(fresh)
