"""The columns that tables are made of: what they measure, which way is better, and how they are printed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


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
# The columns that a declared table names.
COLUMNS = {column.key: column for column in (*QUALITY, AUROC, ACCURACY, TRAINING, EPOCH)}
