"""Register the metrics that ship; `trainer.metrics` computes them.

No torch here, so that a grid can be checked without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainer.parts import metric

if TYPE_CHECKING:
    from torch import Tensor

# The columns of the results that hold the metrics of every evaluation, by the metrics' names. These are computed
# together, on the device, and nobody has to ask for them.
ALWAYS = {"top1": "top1_error", "top5": "top5_error", "nll": "nll", "ece": "ece", "aurc": "aurc"}


@metric("top1", title="Top-1 error", unit="%", direction="lower")
def top1(probabilities: Tensor, labels: Tensor) -> float:
    """Return the share of images whose most probable class is another."""
    from trainer.metrics import compute_metrics

    return compute_metrics(probabilities, labels).top1_error


@metric("top5", title="Top-5 error", unit="%", direction="lower")
def top5(probabilities: Tensor, labels: Tensor) -> float:
    """Return the share of images whose five most probable classes are others."""
    from trainer.metrics import compute_metrics

    return compute_metrics(probabilities, labels).top5_error


@metric("nll", title="NLL", direction="lower")
def nll(probabilities: Tensor, labels: Tensor) -> float:
    """Return the mean negative log-likelihood, in nats."""
    from trainer.metrics import compute_metrics

    return compute_metrics(probabilities, labels).nll


@metric("ece", title="ECE", unit="%", direction="lower")
def ece(probabilities: Tensor, labels: Tensor) -> float:
    """Return the expected calibration error, in ten bins."""
    from trainer.metrics import compute_metrics

    return compute_metrics(probabilities, labels).ece


@metric("aurc", title="AURC", unit="\u00d710\u00b3", direction="lower")
def aurc(probabilities: Tensor, labels: Tensor) -> float:
    """Return the area under the risk-coverage curve."""
    from trainer.metrics import compute_metrics

    return compute_metrics(probabilities, labels).aurc


@metric("e_aurc", title="E-AURC", unit="\u00d710\u00b3", direction="lower")
def e_aurc(probabilities: Tensor, labels: Tensor) -> float:
    """Return the AURC above that of the same errors ranked last."""
    from trainer.metrics import excess_aurc

    return excess_aurc(probabilities, labels)
