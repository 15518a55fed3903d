"""Parts with their titles, what an attempt used of them and of data, and values of users' own metrics."""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "2"
down_revision = "1"

ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")

# The parts that version 1 had, with their titles then.
TITLES = {
    "method": {
        "label_smoothing": "Label Smoothing",
        "cskd": "CS-KD",
        "tfkd": "TF-KD",
        "dml": "DML",
        "dcm": "DCM",
        "pskd": "PS-KD",
        "byot": "BYOT",
        "dmfl": "DMFL",
    },
    "network": {
        "resnet18": "ResNet-18",
        "resnet34": "ResNet-34",
        "resnet50": "ResNet-50",
        "resnet101": "ResNet-101",
        "resnext50_32x4d": "ResNeXt-50",
        "preact_resnet18": "PreAct ResNet-18",
        "preact_resnet101": "PreAct ResNet-101",
        "densenet121": "DenseNet-121",
        "densenet264": "DenseNet-264",
        "resnext29_8x64d": "ResNeXt-29",
        "pyramidnet200": "PyramidNet-200",
        "wrn28_10": "WRN-28-10",
        "mobilenet": "MobileNet",
        "imagenet_resnet152": "ResNet-152",
    },
    "data set": {
        "cifar10": "CIFAR-10",
        "cifar100": "CIFAR-100",
        "svhn": "SVHN",
        "tinyimagenet": "Tiny-ImageNet-200",
        "imagenet": "ImageNet",
        "digits": "Digits",
        "synthetic": "Synthetic images",
    },
}


def upgrade() -> None:
    op.add_column("attempts", sa.Column("data_sha256", sa.String(64), nullable=True))
    parts = op.create_table(
        "parts",
        sa.Column("id", ID, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("facts", sa.JSON, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_parts"),
        sa.UniqueConstraint("kind", "name", "version", "digest", name="uq_parts_kind_name_version_digest"),
    )
    op.create_table(
        "attempt_parts",
        sa.Column("attempt_id", ID, nullable=False),
        sa.Column("part_id", ID, nullable=False),
        sa.PrimaryKeyConstraint("attempt_id", "part_id", name="pk_attempt_parts"),
        sa.ForeignKeyConstraint(
            ["attempt_id"], ["attempts.id"], name="fk_attempt_parts_attempt_id_attempts", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["part_id"], ["parts.id"], name="fk_attempt_parts_part_id_parts"),
    )
    op.create_index("ix_attempt_parts_part_id", "attempt_parts", ["part_id"])
    op.create_table(
        "metric_values",
        sa.Column("evaluation_id", ID, nullable=False),
        sa.Column("metric", sa.String(200), nullable=False),
        sa.Column("value", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("evaluation_id", "metric", name="pk_metric_values"),
        sa.ForeignKeyConstraint(
            ["evaluation_id"],
            ["evaluations.id"],
            name="fk_metric_values_evaluation_id_evaluations",
            ondelete="CASCADE",
        ),
    )
    used = sorted(_used(op.get_bind()))
    common = {"version": 1, "facts": {}, "digest": "", "source": ""}
    rows = [{"kind": kind, "name": name, "title": TITLES[kind][name], **common} for kind, name in used]
    if rows:
        op.bulk_insert(parts, rows)


def _used(connection: sa.Connection) -> set[tuple[str, str]]:
    """Return (kind, name) of the parts above that trials use; a configuration that cannot be read uses none."""
    used: set[tuple[str, str]] = set()
    for (text,) in connection.execute(sa.text("SELECT CAST(config AS TEXT) FROM trials")):
        try:
            config: Any = json.loads(text)
        except (TypeError, ValueError):
            continue
        if isinstance(config, dict):
            methods = config.get("methods")
            used |= {("method", str(name)) for name in (methods if isinstance(methods, dict) else ())}
            used |= {("network", str(config.get(field))) for field in ("network", "peer")}
            used |= {("data set", str(config.get(field))) for field in ("dataset", "ood_dataset")}
    return {(kind, name) for kind, name in used if name in TITLES[kind]}
