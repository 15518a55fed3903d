"""Outcomes per image with their labels, a digest of each trial's numbers, and the looks of sequential seeds."""

import hashlib
import struct

import sqlalchemy as sa
from alembic import op

revision = "3"
down_revision = "2"

ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.add_column("trials", sa.Column("numbers_sha256", sa.String(64), nullable=True))
    op.create_table(
        "outcomes",
        sa.Column("evaluation_id", ID, nullable=False),
        sa.Column("labels_sha256", sa.String(64), nullable=False),
        sa.Column("correct", sa.LargeBinary, nullable=False),
        sa.Column("probabilities", sa.LargeBinary, nullable=True),
        sa.PrimaryKeyConstraint("evaluation_id", name="pk_outcomes"),
        sa.ForeignKeyConstraint(
            ["evaluation_id"], ["evaluations.id"], name="fk_outcomes_evaluation_id_evaluations", ondelete="CASCADE"
        ),
    )
    op.create_table(
        "label_sets",
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("images", sa.Integer, nullable=False),
        sa.Column("labels", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("sha256", name="pk_label_sets"),
    )
    op.create_table(
        "looks",
        sa.Column("id", ID, nullable=False),
        sa.Column("grid_id", ID, nullable=False),
        sa.Column("row_key", sa.String(64), nullable=False),
        sa.Column("baseline_key", sa.String(64), nullable=False),
        sa.Column("row_name", sa.String(300), nullable=False),
        sa.Column("baseline_name", sa.String(300), nullable=False),
        sa.Column("look", sa.Integer, nullable=False),
        sa.Column("seeds", sa.Integer, nullable=False),
        sa.Column("shared", sa.Integer, nullable=False),
        sa.Column("difference", sa.Double, nullable=True),
        sa.Column("p", sa.Double, nullable=True),
        sa.Column("level", sa.Double, nullable=False),
        sa.Column("separated", sa.Integer, nullable=False),
        sa.Column("rule", sa.JSON, nullable=False),
        sa.Column("recorded", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_looks"),
        sa.UniqueConstraint(
            "grid_id", "row_key", "baseline_key", "look", name="uq_looks_grid_id_row_key_baseline_key_look"
        ),
        sa.ForeignKeyConstraint(["grid_id"], ["grids.id"], name="fk_looks_grid_id_grids", ondelete="CASCADE"),
    )
    _digest_numbers(op.get_bind())


def _digest_numbers(connection: sa.Connection) -> None:
    """Give every done trial the digest of its numbers, as version 3 computes it."""
    numbers = sa.text(
        "SELECT top1_error, top5_error, nll, ece, aurc FROM epochs JOIN evaluations ON evaluations.epoch_id = epochs.id"
        " WHERE epochs.trial_id = :trial AND epochs.accepted = 1 AND network = 0 AND classifier = 'main'"
        " AND split = 'test' ORDER BY epochs.epoch"
    )
    store = sa.text("UPDATE trials SET numbers_sha256 = :digest WHERE id = :trial")
    for (trial,) in connection.execute(sa.text("SELECT id FROM trials WHERE state = 'done'")).all():
        try:
            packed = b"".join(struct.pack("<5d", *row) for row in connection.execute(numbers, {"trial": trial}))
        except struct.error:
            # A damaged row, which `check` names.
            continue
        if packed:
            connection.execute(store, {"trial": trial, "digest": hashlib.sha256(packed).hexdigest()})
