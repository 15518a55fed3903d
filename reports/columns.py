"""The columns that tables are made of: what they measure, which way is better, and how they are printed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from reports.catalogue import metrics


@dataclass(frozen=True)
class Column:
    """A column: what it measures and how it is printed.

    `quantity` is `seconds`, `epoch_seconds`, or [network:]classifier/metric such as `main/top1_error`; `form` is
    number, signed, minutes (min / sec), p (a small one as <0.001) or text. `group` is the heading that it shares with
    the columns beside it.
    """

    key: str
    title: str
    unit: str = ""
    quantity: str = ""
    direction: Literal["lower", "higher"] | None = None
    digits: int = 2
    form: Literal["number", "signed", "minutes", "p", "text"] = "number"
    group: str = ""

    @property
    def own(self) -> bool:
        """Return whether it is a metric of a user's own, which some trials may lack."""
        return self.quantity.rpartition("/")[2] not in _EVERY_TRIAL and "/" in self.quantity

    @property
    def heading(self) -> str:
        """Return the heading in one line: that of the columns it belongs to, the title, the unit."""
        title = ": ".join(filter(None, (self.group, self.title)))
        return f"{title} ({self.unit})" if self.unit else title


TOP1 = Column("top1", "Top-1 error", "%", "main/top1_error", "lower")
TOP5 = Column("top5", "Top-5 error", "%", "main/top5_error", "lower")
NLL = Column("nll", "NLL", "", "main/nll", "lower")
ECE = Column("ece", "ECE", "%", "main/ece", "lower")
AURC = Column("aurc", "AURC", "\u00d710³", "main/aurc", "lower")
TRAINING = Column("train_time", "Train time", "min / sec", "seconds", "lower", form="minutes")
EPOCH = Column("epoch_time", "Time per epoch", "s", "epoch_seconds", "lower")
AUROC = Column("auroc", "AUROC", "%", "main/ood_auroc", "higher")
ACCURACY = Column("accuracy", "Top-1 accuracy", "%", "main/accuracy", "higher")
QUALITY = (TOP1, TOP5, NLL, ECE, AURC)
ABOUT_TRAINING = (
    "Train time: training, evaluation and data seconds of every epoch to the end of the selected one, pauses left out."
)
ABOUT_EPOCH = (
    "Time per epoch: median of a timing pass or, without one, mean of the exclusive epochs after the first; where no "
    "epoch was exclusive, mean of all."
)
# What every trial measures, or lacks for a reason of its configuration.
_EVERY_TRIAL = {column.quantity.rpartition("/")[2] for column in (*QUALITY, AUROC, ACCURACY)}
# The columns that a declared table names.
COLUMNS = {column.key: column for column in (*QUALITY, AUROC, ACCURACY, TRAINING, EPOCH)}


def own_columns() -> dict[str, Column]:
    """Return the columns of users' own metrics, by name, as the database being reported has them."""
    return {
        name: Column(name, part.title, str(part.facts.get("unit", "")), f"main/{name}", **_printed(part.facts))
        for name, part in metrics().items()
        if name not in COLUMNS
    }


def column_of(name: str) -> Column:
    """Return the column that a declared table names; a column whose metric the database lacks has its name as title."""
    return COLUMNS.get(name) or own_columns().get(name) or Column(name, name, quantity=f"main/{name}")


def _printed(facts: Mapping[str, Any]) -> dict[str, Any]:
    direction, digits = facts.get("direction"), facts.get("digits")
    printed: dict[str, Any] = {"direction": direction if direction in ("lower", "higher") else None}
    return printed | ({"digits": digits} if isinstance(digits, int) and 0 <= digits <= 12 else {})
