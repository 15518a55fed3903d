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
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    event,
    text,
)
from sqlalchemy.ext.hybrid import hybrid_property
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
ACCEPTED_EPOCHS = text(f"epochs.{ACCEPTED}")
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
    name: Mapped[str] = mapped_column(String(200), unique=True, doc="as the file gives it")
    source: Mapped[str] = mapped_column(Text, doc="path of the file")
    text: Mapped[str] = mapped_column(Text, doc="the file's text")
    report: Mapped[dict[str, Any]] = mapped_column(doc="its report section: tables, figures, selection")
    created: Mapped[datetime] = mapped_column(doc="when it was stored first (UTC)")
    updated: Mapped[datetime] = mapped_column(doc="when it was stored last (UTC)")


class Trial(Base):
    """A configuration with a seed. `state` is pending, running, done or failed."""

    __tablename__ = "trials"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    key: Mapped[str] = mapped_column(String(64), unique=True, doc="hash of what differs from the defaults")
    config: Mapped[dict[str, Any]] = mapped_column(doc="every field of the TrainConfig, defaults included")
    state: Mapped[str] = mapped_column(String(16), doc="pending, running, done or failed")
    driver: Mapped[int | None] = mapped_column(BigInteger, doc="token of the driver that claimed it")
    created: Mapped[datetime] = mapped_column(doc="when it was stored first (UTC)")
    finished: Mapped[datetime | None] = mapped_column(doc="when it became done or failed (UTC)")
    numbers_sha256: Mapped[str | None] = mapped_column(
        String(64), doc="digest of the main classifier's test metrics of all epochs, once done"
    )


class GridTrial(Base):
    """A trial's position in a grid. `name` is unique within the grid and readable: resnet18/pskd+byot/seed0."""

    __tablename__ = "grid_trials"
    __table_args__ = (UniqueConstraint("grid_id", "name"),)

    grid_id: Mapped[int] = mapped_column(ForeignKey("grids.id", ondelete="CASCADE"), primary_key=True)
    trial_id: Mapped[int] = mapped_column(ForeignKey("trials.id"), primary_key=True, index=True)
    position: Mapped[int] = mapped_column(doc="its place in the grid, from 0")
    name: Mapped[str] = mapped_column(String(300), doc="such as resnet18/pskd+byot/seed0; unique within the grid")


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
    purpose: Mapped[str] = mapped_column(String(16), doc="train, time or canary")
    driver: Mapped[int | None] = mapped_column(BigInteger, doc="token of the driver that started it")
    host: Mapped[str | None] = mapped_column(String(255), doc="name of the machine")
    device: Mapped[str | None] = mapped_column(String(255), doc="cpu or cuda:0, with the model's name")
    device_uuid: Mapped[str | None] = mapped_column(String(80), doc="of a GPU, as nvidia-smi names it")
    pid: Mapped[int | None] = mapped_column(doc="number of its process on the host")
    environment: Mapped[dict[str, Any]] = mapped_column(
        doc="commit, dirty, diff, versions, driver, command line, places, dashboards"
    )
    started: Mapped[datetime] = mapped_column(doc="in UTC")
    ended: Mapped[datetime | None] = mapped_column(doc="in UTC; NULL while it runs")
    outcome: Mapped[str | None] = mapped_column(String(16), doc="done, interrupted, failed or lost; NULL while it runs")
    error_class: Mapped[str | None] = mapped_column(
        String(32), doc="infrastructure, out_of_memory, diverged, data or code"
    )
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
    kind: Mapped[str] = mapped_column(String(16), doc="method, network, dataset or metric")
    name: Mapped[str] = mapped_column(String(200), doc="as a grid file names it")
    version: Mapped[int] = mapped_column(doc="as its author counts")
    title: Mapped[str] = mapped_column(Text, doc="its name in print")
    facts: Mapped[dict[str, Any]] = mapped_column(doc="of a metric: direction, digits, unit; of a method: defaults")
    digest: Mapped[str] = mapped_column(String(64), doc="hash of its source files; empty where it is unknown")
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
    epoch: Mapped[int] = mapped_column(doc="counted from 0; everything that is printed counts from 1")
    accepted: Mapped[int | None] = mapped_column(doc="1 for the row that counts, else NULL")
    learning_rate: Mapped[float] = mapped_column(doc="of its last step")
    train_seconds: Mapped[float] = mapped_column(doc="of its training steps")
    eval_seconds: Mapped[float] = mapped_column(doc="of all its evaluations")
    data_seconds: Mapped[float] = mapped_column(doc="of preparing its order and augmentation")
    images: Mapped[int] = mapped_column(doc="how many were trained on")
    losses: Mapped[dict[str, Any]] = mapped_column(doc="mean of each loss term over the images")
    peak_memory_bytes: Mapped[int | None] = mapped_column(BigInteger, doc="of a GPU; NULL on a CPU")
    timing_quality: Mapped[str] = mapped_column(String(16), doc="exclusive, packed, foreign load, throttled or unknown")
    recorded: Mapped[datetime] = mapped_column(doc="when the row was written (UTC)")

    @hybrid_property
    def seconds(self) -> float:
        """Return the seconds of the epoch in all, as `trainer.results.EpochResult.seconds`."""
        return self.train_seconds + self.eval_seconds + self.data_seconds


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
    network: Mapped[int] = mapped_column(doc="0 for the first of the networks that are trained together")
    classifier: Mapped[str] = mapped_column(String(16), doc="main; head1, head2, ... from shallow to deep; or ensemble")
    split: Mapped[str] = mapped_column(String(16), doc="test or validation")
    images: Mapped[int] = mapped_column(doc="how many were evaluated")
    top1_error: Mapped[float] = mapped_column(doc="in percent")
    top5_error: Mapped[float] = mapped_column(doc="in percent")
    nll: Mapped[float] = mapped_column(doc="negative log-likelihood, in nats")
    ece: Mapped[float] = mapped_column(doc="expected calibration error, in percent")
    aurc: Mapped[float] = mapped_column(doc="area under the risk-coverage curve, times 1,000")
    ood_auroc: Mapped[float | None] = mapped_column(doc="out-of-distribution AUROC, in percent; NULL without such data")


class MetricValue(Base):
    """The value of a user's own metric, a finite number; `metric` is its name."""

    __tablename__ = "metric_values"

    evaluation_id: Mapped[int] = mapped_column(ForeignKey("evaluations.id", ondelete="CASCADE"), primary_key=True)
    metric: Mapped[str] = mapped_column(String(200), primary_key=True, doc="its name")
    value: Mapped[float] = mapped_column(doc="a finite number, in the metric's own unit")


class Outcome(Base):
    """A bit per test image, set where a network's main classifier is right, at a trial's best and last epochs."""

    __tablename__ = "outcomes"

    evaluation_id: Mapped[int] = mapped_column(
        ForeignKey("evaluations.id", ondelete="CASCADE"), primary_key=True, doc="the evaluation it belongs to"
    )
    labels_sha256: Mapped[str] = mapped_column(
        String(64), doc="digest of the test labels in their order: where it is equal, two trials saw the same images"
    )
    correct: Mapped[bytes] = mapped_column(
        LargeBinary, doc="a bit per image, packed; the first image is the highest bit of the first byte"
    )
    probabilities: Mapped[bytes | None] = mapped_column(
        LargeBinary, doc="float16 [images, classes], compressed by zlib, where the grid asks for them"
    )


class LabelSet(Base):
    """The labels of a test set whose probabilities are kept."""

    __tablename__ = "label_sets"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True, doc="digest of the labels in their order")
    images: Mapped[int] = mapped_column(doc="how many there are")
    labels: Mapped[bytes] = mapped_column(LargeBinary, doc="int32, compressed by zlib")


class Look(Base):
    """A look of sequential seeds at one pair of rows: its test, and whether the pair was separated there."""

    __tablename__ = "looks"
    __table_args__ = (UniqueConstraint("grid_id", "row_key", "baseline_key", "look"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True, doc="number of this row")
    grid_id: Mapped[int] = mapped_column(ForeignKey("grids.id", ondelete="CASCADE"), doc="the grid with the rule")
    row_key: Mapped[str] = mapped_column(String(64), doc="key of the row's configuration with seed 0")
    baseline_key: Mapped[str] = mapped_column(String(64), doc="key of the configuration that it is compared with")
    row_name: Mapped[str] = mapped_column(String(300), doc="name of the row in its grid, without the seed")
    baseline_name: Mapped[str] = mapped_column(String(300), doc="name of the row that it is compared with")
    look: Mapped[int] = mapped_column(doc="1, 2, ... for the pair")
    seeds: Mapped[int] = mapped_column(doc="number of seeds that the rule has for this look")
    shared: Mapped[int] = mapped_column(doc="how many of these both rows have a value of")
    difference: Mapped[float | None] = mapped_column(doc="mean of row minus baseline over the shared seeds")
    p: Mapped[float | None] = mapped_column(doc="two-sided p-value of the paired t test; NULL where there is no test")
    level: Mapped[float] = mapped_column(doc="the p-value at or below which the pair is separated at this look")
    separated: Mapped[int] = mapped_column(doc="1 where the pair was separated here and stopped, else 0")
    rule: Mapped[dict[str, Any]] = mapped_column(doc="the rule of seeds: start, step, most, against, metric, selection")
    recorded: Mapped[datetime] = mapped_column(doc="when this row was written, UTC")


@event.listens_for(Epoch.__table__, "before_create")
@event.listens_for(Evaluation.__table__, "before_create")
def _partial_on_postgresql(table: Table, connection: Connection, **_: Any) -> None:
    """Give the partial indexes their condition on PostgreSQL too.

    `postgresql_where` beside `sqlite_where` would import that dialect, a tenth of a second, in every command.
    """
    if connection.dialect.name == "postgresql":
        for index in table.indexes:
            index.dialect_options["postgresql"]["where"] = index.dialect_options["sqlite"]["where"]
