"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "1"
down_revision = None

ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
ACCEPTED = sa.text("accepted = 1")
MAIN_TEST = sa.text("network = 0 AND classifier = 'main' AND split = 'test'")


def upgrade() -> None:
    op.create_table(
        "grids",
        sa.Column("id", ID, nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("report", sa.JSON, nullable=False),
        sa.Column("created", sa.DateTime, nullable=False),
        sa.Column("updated", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_grids"),
        sa.UniqueConstraint("name", name="uq_grids_name"),
    )
    op.create_table(
        "trials",
        sa.Column("id", ID, nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("config", sa.JSON, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("driver", sa.BigInteger, nullable=True),
        sa.Column("created", sa.DateTime, nullable=False),
        sa.Column("finished", sa.DateTime, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_trials"),
        sa.UniqueConstraint("key", name="uq_trials_key"),
    )
    op.create_table(
        "attempts",
        sa.Column("id", ID, nullable=False),
        sa.Column("trial_id", ID, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("purpose", sa.String(16), nullable=False),
        sa.Column("driver", sa.BigInteger, nullable=True),
        sa.Column("host", sa.String(255), nullable=True),
        sa.Column("device", sa.String(255), nullable=True),
        sa.Column("device_uuid", sa.String(80), nullable=True),
        sa.Column("pid", sa.Integer, nullable=True),
        sa.Column("environment", sa.JSON, nullable=False),
        sa.Column("started", sa.DateTime, nullable=False),
        sa.Column("ended", sa.DateTime, nullable=True),
        sa.Column("outcome", sa.String(16), nullable=True),
        sa.Column("error_class", sa.String(32), nullable=True),
        sa.Column("error_text", sa.Text, nullable=True),
        sa.Column("fingerprint", sa.String(16), nullable=True),
        sa.Column("log", sa.Text, nullable=True),
        sa.Column("parameters", sa.BigInteger, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_attempts"),
        sa.UniqueConstraint("trial_id", "number", name="uq_attempts_trial_id_number"),
        sa.ForeignKeyConstraint(["trial_id"], ["trials.id"], name="fk_attempts_trial_id_trials"),
    )
    op.create_index("ix_attempts_fingerprint", "attempts", ["fingerprint"])
    op.create_table(
        "grid_trials",
        sa.Column("grid_id", ID, nullable=False),
        sa.Column("trial_id", ID, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("name", sa.String(300), nullable=False),
        sa.PrimaryKeyConstraint("grid_id", "trial_id", name="pk_grid_trials"),
        sa.UniqueConstraint("grid_id", "name", name="uq_grid_trials_grid_id_name"),
        sa.ForeignKeyConstraint(["grid_id"], ["grids.id"], name="fk_grid_trials_grid_id_grids", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["trial_id"], ["trials.id"], name="fk_grid_trials_trial_id_trials"),
    )
    op.create_index("ix_grid_trials_trial_id", "grid_trials", ["trial_id"])
    op.create_table(
        "epochs",
        sa.Column("id", ID, nullable=False),
        sa.Column("trial_id", ID, nullable=False),
        sa.Column("attempt_id", ID, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("accepted", sa.Integer, nullable=True),
        sa.Column("learning_rate", sa.Double, nullable=False),
        sa.Column("train_seconds", sa.Double, nullable=False),
        sa.Column("eval_seconds", sa.Double, nullable=False),
        sa.Column("data_seconds", sa.Double, nullable=False),
        sa.Column("images", sa.Integer, nullable=False),
        sa.Column("losses", sa.JSON, nullable=False),
        sa.Column("peak_memory_bytes", sa.BigInteger, nullable=True),
        sa.Column("timing_quality", sa.String(16), nullable=False),
        sa.Column("recorded", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_epochs"),
        sa.UniqueConstraint("attempt_id", "epoch", name="uq_epochs_attempt_id_epoch"),
        sa.ForeignKeyConstraint(["trial_id"], ["trials.id"], name="fk_epochs_trial_id_trials"),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name="fk_epochs_attempt_id_attempts"),
    )
    op.create_index(
        "uq_epochs_accepted",
        "epochs",
        ["trial_id", "epoch"],
        unique=True,
        sqlite_where=ACCEPTED,
        postgresql_where=ACCEPTED,
    )
    op.create_table(
        "evaluations",
        sa.Column("id", ID, nullable=False),
        sa.Column("epoch_id", ID, nullable=False),
        sa.Column("network", sa.Integer, nullable=False),
        sa.Column("classifier", sa.String(16), nullable=False),
        sa.Column("split", sa.String(16), nullable=False),
        sa.Column("images", sa.Integer, nullable=False),
        sa.Column("top1_error", sa.Double, nullable=False),
        sa.Column("top5_error", sa.Double, nullable=False),
        sa.Column("nll", sa.Double, nullable=False),
        sa.Column("ece", sa.Double, nullable=False),
        sa.Column("aurc", sa.Double, nullable=False),
        sa.Column("ood_auroc", sa.Double, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_evaluations"),
        sa.UniqueConstraint(
            "epoch_id", "network", "classifier", "split", name="uq_evaluations_epoch_id_network_classifier_split"
        ),
        sa.ForeignKeyConstraint(["epoch_id"], ["epochs.id"], name="fk_evaluations_epoch_id_epochs", ondelete="CASCADE"),
    )
    op.create_index(
        "ix_evaluations_main_test",
        "evaluations",
        ["epoch_id", "top1_error"],
        sqlite_where=MAIN_TEST,
        postgresql_where=MAIN_TEST,
    )
