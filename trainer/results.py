"""Results of one epoch of training, as plain data that any process can read without torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

# How a training step reaches the device: each operation launched, a recorded step replayed (equal bits), or with
# compiled networks (other rounding). `auto` is the fastest of those with equal bits. Never part of an identity.
LAUNCHED, REPLAYED, COMPILED = "launched", "replayed", "compiled"
ENGINES = ("auto", LAUNCHED, REPLAYED, COMPILED)
# What is kept of each image at the best and the last epochs. Never part of an identity.
OUTCOMES = ("none", "correct", "probabilities")


@dataclass(frozen=True)
class Metrics:
    """Quality of one classifier on one split.

    `top1_error`, `top5_error` and `ece` are percentages, `nll` is in nats, `aurc` is times 1000.
    """

    top1_error: float
    top5_error: float
    nll: float
    ece: float
    aurc: float


@dataclass(frozen=True)
class Outcomes:
    """Images of the test set that a classifier has right; every field but the digest is base64, so that JSON has it.

    `correct` are packed bits, the first image the highest bit of the first byte; `labels_sha256` is the digest of the
    labels in their order. `probabilities` (float16 [images, classes]) and `labels` (int32), both compressed by zlib,
    are empty where only the bits are kept.
    """

    labels_sha256: str
    correct: str
    probabilities: str = ""
    labels: str = ""


@dataclass(frozen=True)
class Evaluation:
    """The metrics of one classifier of one network over `images` images.

    `classifier` is `main`, `head1`, `head2`, ... (shallow to deep) or `ensemble`; `split` is `test` or
    `validation`; `ood_auroc` (percent) is there when a second data set was given for out-of-distribution
    detection; `own_metrics` holds the values of the metrics that the configuration asks for, by name; `outcomes` are
    there for `main` on the test split, in the best and the last epochs, where they are kept.
    """

    network: int
    classifier: str
    metrics: Metrics
    images: int
    split: str = "test"
    ood_auroc: float | None = None
    own_metrics: dict[str, float] = field(default_factory=dict)
    outcomes: Outcomes | None = None


@dataclass(frozen=True)
class EpochResult:
    """One trained and evaluated epoch (0-based); `learning_rate` is that of its last step.

    The three clocks are seconds, read after the device has finished: `train_seconds` holds the steps,
    `data_seconds` what was spent preparing the order and augmentation of the epoch, `eval_seconds` all
    evaluations. `losses` are means over the epoch's training images. `parameters` counts those of all networks
    trained, heads included. `restored` marks a result that was read
    back from a checkpoint when training resumed, so that a caller that missed it can still record it.
    """

    epoch: int
    learning_rate: float
    train_seconds: float
    eval_seconds: float
    data_seconds: float
    images: int
    losses: dict[str, float]
    evaluations: list[Evaluation] = field(default_factory=list)
    parameters: int = 0
    peak_memory_bytes: int | None = None
    restored: bool = False

    @property
    def seconds(self) -> float:
        """Return the seconds of the epoch in all: training, data and evaluation."""
        return self.train_seconds + self.eval_seconds + self.data_seconds

    @property
    def main(self) -> Evaluation | None:
        """Return the evaluation of the first network's main classifier on the test split; None where there is none."""
        return next((e for e in self.evaluations if (e.network, e.classifier, e.split) == (0, "main", "test")), None)

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings, lists and dicts, as JSON and checkpoints hold them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> EpochResult:
        """Build a result from the values of `to_dict`."""
        evaluations = [
            Evaluation(
                **{
                    **evaluation,
                    "metrics": Metrics(**evaluation["metrics"]),
                    "outcomes": Outcomes(**outcomes) if (outcomes := evaluation.get("outcomes")) else None,
                }
            )
            for evaluation in values["evaluations"]
        ]
        return cls(**{**values, "evaluations": evaluations})
