"""Outcomes per image: which are kept, and the digest of a trial's numbers that tells one computation from another."""

from __future__ import annotations

import hashlib
import struct
import zlib
from base64 import b64decode
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, delete, insert, select, text, update

from orchestrator.database.errors import DatabaseError
from orchestrator.database.models import ACCEPTED_EPOCHS, MAIN_TEST, Epoch, Evaluation, Outcome, Trial

if TYPE_CHECKING:
    from trainer.results import EpochResult

evaluations, epochs = Evaluation.__table__, Epoch.__table__


def record(connection: Connection, where: str, trial_id: int, epoch_id: int, result: EpochResult) -> None:
    """Store the outcomes of an epoch, and remove those of the trial that are neither of a best nor of the last one."""
    measured = {
        (evaluation.network, evaluation.classifier): evaluation.outcomes
        for evaluation in result.evaluations
        if evaluation.outcomes is not None and evaluation.split == "test"
    }
    if not measured:
        return
    rows = connection.execute(
        select(Evaluation.id, Evaluation.network, Evaluation.classifier, Evaluation.images).where(
            Evaluation.epoch_id == epoch_id, Evaluation.split == "test"
        )
    )
    ids = {(network, classifier): (number, images) for number, network, classifier, images in rows}
    fresh = []
    for place, outcomes in measured.items():
        evaluation_id, images = ids[place]
        correct = b64decode(outcomes.correct)
        if len(correct) != (images + 7) // 8:
            raise DatabaseError(f"{where}: {len(correct)} bytes of outcomes do not fit {images} images")
        probabilities = b64decode(outcomes.probabilities) if outcomes.probabilities else None
        row = {"evaluation_id": evaluation_id, "labels_sha256": outcomes.labels_sha256, "correct": correct}
        fresh.append(row | {"probabilities": probabilities})
        if outcomes.labels:
            _keep_labels(connection, outcomes.labels_sha256, images, b64decode(outcomes.labels))
    connection.execute(insert(Outcome.__table__), fresh)
    _forget_surpassed(connection, trial_id)


def _keep_labels(connection: Connection, sha256: str, images: int, labels: bytes) -> None:
    # In one statement: another driver may store the same labels at the same time.
    connection.execute(
        text(
            "INSERT INTO label_sets (sha256, images, labels) VALUES (:sha256, :images, :labels) "
            "ON CONFLICT (sha256) DO NOTHING"
        ),
        {"sha256": sha256, "images": images, "labels": labels},
    )


def _forget_surpassed(connection: Connection, trial_id: int) -> None:
    """Remove a trial's outcomes but those of the best epoch on each split and of the newest, of each network."""
    other = evaluations.alias("other")
    validation = (
        select(other.c.top1_error)
        .where(
            other.c.epoch_id == epochs.c.id,
            other.c.network == evaluations.c.network,
            other.c.classifier == "main",
            other.c.split == "validation",
        )
        .correlate(epochs, evaluations)
        .scalar_subquery()
    )
    rows = connection.execute(
        select(
            Outcome.evaluation_id,
            Evaluation.network,
            Epoch.epoch,
            Epoch.accepted,
            Evaluation.top1_error,
            validation.label("validation"),
        )
        .join(Evaluation, Evaluation.id == Outcome.evaluation_id)
        .join(Epoch, Epoch.id == Evaluation.epoch_id)
        .where(Epoch.trial_id == trial_id)
    ).all()
    kept = set()
    for network in {row.network for row in rows}:
        own = [row for row in rows if row.network == network and row.accepted]
        if not own:
            continue
        kept.add(max(own, key=lambda row: row.epoch).evaluation_id)
        kept.add(min(own, key=lambda row: (row.top1_error, row.epoch)).evaluation_id)
        if validated := [row for row in own if row.validation is not None]:
            kept.add(min(validated, key=lambda row: (row.validation, row.epoch)).evaluation_id)
    gone = [row.evaluation_id for row in rows if row.evaluation_id not in kept]
    if gone:
        connection.execute(delete(Outcome).where(Outcome.evaluation_id.in_(gone)))


def store_numbers(connection: Connection, trial_id: int) -> None:
    """Store the digest of a finished trial's numbers: the main classifier's test metrics of all epochs, bit by bit.

    Two trials of one digest are one computation, whatever their configurations say.
    """
    rows = connection.execute(
        select(Evaluation.top1_error, Evaluation.top5_error, Evaluation.nll, Evaluation.ece, Evaluation.aurc)
        .join(Epoch, Epoch.id == Evaluation.epoch_id)
        .where(Epoch.trial_id == trial_id, ACCEPTED_EPOCHS, text(MAIN_TEST))
        .order_by(Epoch.epoch)
    )
    if (digest := numbers_sha256(rows)) is not None:
        connection.execute(update(Trial).where(Trial.id == trial_id).values(numbers_sha256=digest))


def numbers_sha256(rows: Iterable[Any]) -> str | None:
    """Return the digest of rows of five numbers, None for no rows."""
    numbers = b"".join(struct.pack("<5d", *row) for row in rows)
    return hashlib.sha256(numbers).hexdigest() if numbers else None


def unpack(packed: bytes, dtype: str) -> Any:
    """Return the numbers of a compressed blob as a flat array."""
    import numpy as np

    return np.frombuffer(zlib.decompress(packed), dtype)
