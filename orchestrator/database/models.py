"""The tables of the results database, as SQLAlchemy models."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    Connection,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    event,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# Named constraints, so that a later migration can alter them on every database.
NAMING = {
    "ix": "ix_%(column_0_N_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

# SQLite auto-increments only INTEGER primary keys; other databases get 64 bits.
Id = BigInteger().with_variant(Integer, "sqlite")

# Conditions of the partial indexes. A query has to repeat them literally: SQLite does not match a bound parameter.
ACCEPTED = "accepted = 1"
MAIN_TEST = "network = 0 AND classifier = 'main' AND split = 'test'"


class Base(DeclarativeBase):
    """Base of all tables; datetimes are naive, in UTC."""

    __table__: ClassVar[Table]
    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {datetime: DateTime(), dict[str, Any]: JSON()}


class Grid(Base):
    """A named list of trials, as its file was last stored."""

    __tablename__ = "grids"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    source: Mapped[str] = mapped_column(Text, doc="path of the file")
    text: Mapped[str] = mapped_column(Text, doc="the file's text")
    report: Mapped[dict[str, Any]] = mapped_column(doc="its report section: tables, figures, selection")
    created: Mapped[datetime]
    updated: Mapped[datetime]


class Trial(Base):
    """A configuration with a seed. `state` is pending, running, done or failed."""

    __tablename__ = "trials"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    key: Mapped[str] = mapped_column(String(64), unique=True)
    config: Mapped[dict[str, Any]] = mapped_column(doc="every field of the TrainConfig, defaults included")
    state: Mapped[str] = mapped_column(String(16))
    driver: Mapped[int | None] = mapped_column(BigInteger, doc="token of the driver that claimed it")
    created: Mapped[datetime]
    finished: Mapped[datetime | None] = mapped_column(doc="when it became done or failed")


class GridTrial(Base):
    """A trial's position in a grid. `name` is unique within the grid and readable: resnet18/pskd+byot/seed0."""

    __tablename__ = "grid_trials"
    __table_args__ = (UniqueConstraint("grid_id", "name"),)

    grid_id: Mapped[int] = mapped_column(ForeignKey("grids.id", ondelete="CASCADE"), primary_key=True)
    trial_id: Mapped[int] = mapped_column(ForeignKey("trials.id"), primary_key=True, index=True)
    position: Mapped[int]
    name: Mapped[str] = mapped_column(String(300))


class Attempt(Base):
    """A try at running a trial.

    `purpose` is train, time (a timing pass) or canary. `outcome` is NULL while it runs, then done, interrupted, failed
    or lost (its driver died). `error_class` is infrastructure, out_of_memory, diverged, data or code.
    """

    __tablename__ = "attempts"
    __table_args__ = (UniqueConstraint("trial_id", "number"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    trial_id: Mapped[int] = mapped_column(ForeignKey("trials.id"))
    number: Mapped[int] = mapped_column(doc="1, 2, ... within the trial, whatever the purpose")
    purpose: Mapped[str] = mapped_column(String(16))
    driver: Mapped[int | None] = mapped_column(BigInteger, doc="token of the driver that started it")
    host: Mapped[str | None] = mapped_column(String(255))
    device: Mapped[str | None] = mapped_column(String(255), doc="cpu or cuda:0, with the model's name")
    device_uuid: Mapped[str | None] = mapped_column(String(80))
    pid: Mapped[int | None]
    environment: Mapped[dict[str, Any]] = mapped_column(
        doc="commit, dirty, diff, versions, driver, command line, places"
    )
    started: Mapped[datetime]
    ended: Mapped[datetime | None]
    outcome: Mapped[str | None] = mapped_column(String(16))
    error_class: Mapped[str | None] = mapped_column(String(32))
    error_text: Mapped[str | None] = mapped_column(Text, doc="the message and the traceback")
    fingerprint: Mapped[str | None] = mapped_column(String(16), index=True, doc="equal for failures with one cause")
    log: Mapped[str | None] = mapped_column(Text, doc="path of the attempt's log on its host")
    parameters: Mapped[int | None] = mapped_column(BigInteger, doc="of all networks trained, heads included")
    data_sha256: Mapped[str | None] = mapped_column(String(64), doc="fingerprint of the content of its data sets")


class Part(Base):
    """A method, network, data set or metric as a trial used it; `kind` is one of these words.

    The digest is of its source files, and empty where it is unknown: in databases from before parts were recorded.
    """

    __tablename__ = "parts"
    __table_args__ = (UniqueConstraint("kind", "name", "version", "digest"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(String(200))
    version: Mapped[int]
    title: Mapped[str] = mapped_column(Text, doc="its name in print")
    facts: Mapped[dict[str, Any]] = mapped_column(doc="of a metric: direction, digits, unit")
    digest: Mapped[str] = mapped_column(String(64))
    source: Mapped[str] = mapped_column(Text, doc="file and line where it was registered")


class AttemptPart(Base):
    """A part that an attempt used."""

    __tablename__ = "attempt_parts"

    attempt_id: Mapped[int] = mapped_column(ForeignKey("attempts.id", ondelete="CASCADE"), primary_key=True)
    part_id: Mapped[int] = mapped_column(ForeignKey("parts.id"), primary_key=True, index=True)


class Epoch(Base):
    """An epoch of an attempt; a loss that is not a finite number is null.

    `epoch` counts from 0 here, and from 1 in everything that is printed, logged or exported.

    `accepted` is 1 for the row that counts. It is NULL for a row that a later attempt trained again and for one of a
    timing pass; a trial has at most one accepted row per epoch. `timing_quality` is exclusive, packed, foreign load,
    throttled or unknown.
    """

    __tablename__ = "epochs"
    __table_args__ = (
        UniqueConstraint("attempt_id", "epoch"),
        Index("uq_epochs_accepted", "trial_id", "epoch", unique=True, sqlite_where=text(ACCEPTED)),
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    trial_id: Mapped[int] = mapped_column(ForeignKey("trials.id"))
    attempt_id: Mapped[int] = mapped_column(ForeignKey("attempts.id"))
    epoch: Mapped[int]
    accepted: Mapped[int | None]
    learning_rate: Mapped[float]
    train_seconds: Mapped[float]
    eval_seconds: Mapped[float]
    data_seconds: Mapped[float]
    images: Mapped[int]
    losses: Mapped[dict[str, Any]]
    peak_memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    timing_quality: Mapped[str] = mapped_column(String(16))
    recorded: Mapped[datetime]


class Evaluation(Base):
    """Metrics of one classifier of one network after one epoch; units as in `trainer.results.Metrics`.

    A metric may be infinite, never NaN.
    """

    __tablename__ = "evaluations"
    __table_args__ = (
        UniqueConstraint("epoch_id", "network", "classifier", "split"),
        # A covering index of a trial's progress, so that it never reads the rows of a million evaluations.
        Index("ix_evaluations_main_test", "epoch_id", "top1_error", sqlite_where=text(MAIN_TEST)),
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    epoch_id: Mapped[int] = mapped_column(ForeignKey("epochs.id", ondelete="CASCADE"))
    network: Mapped[int]
    classifier: Mapped[str] = mapped_column(String(16))
    split: Mapped[str] = mapped_column(String(16))
    images: Mapped[int] = mapped_column(doc="how many were evaluated")
    top1_error: Mapped[float]
    top5_error: Mapped[float]
    nll: Mapped[float]
    ece: Mapped[float]
    aurc: Mapped[float]
    ood_auroc: Mapped[float | None]


class MetricValue(Base):
    """The value of a user's own metric, a finite number; `metric` is its name."""

    __tablename__ = "metric_values"

    evaluation_id: Mapped[int] = mapped_column(ForeignKey("evaluations.id", ondelete="CASCADE"), primary_key=True)
    metric: Mapped[str] = mapped_column(String(200), primary_key=True)
    value: Mapped[float]


@event.listens_for(Epoch.__table__, "before_create")
@event.listens_for(Evaluation.__table__, "before_create")
def _partial_on_postgresql(table: Table, connection: Connection, **_: Any) -> None:
    """Give the partial indexes their condition on PostgreSQL too.

    `postgresql_where` beside `sqlite_where` would import that dialect, a tenth of a second, in every command.
    """
    if connection.dialect.name == "postgresql":
        for index in table.indexes:
            index.dialect_options["postgresql"]["where"] = index.dialect_options["sqlite"]["where"]
