"""TF-KD: teacher-free knowledge distillation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import exp, log
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from trainer.losses import cross_entropy, kl_divergence, log_softmax, one_hot
from trainer.method import Batch, Method, Output, Requires, over_parts, predict, summed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from torch.nn import Module

# The values of the authors' code for ResNet-18 on CIFAR-100.
PUBLISHED = {"self": {"alpha": 0.95, "temperature": 6.0}, "virtual": {"alpha": 0.1, "temperature": 20.0}}


@dataclass
class TFKD(Method):
    """Learn from an earlier copy of the network, or from a distribution made by hand, in the place of a teacher.

    The cross-entropy gets the factor 1 - alpha. `self` adds alpha T^2 KL(softmax(z_t / T) || softmax(z / T)), z_t the
    logits of the same network trained beforehand, frozen. `virtual` adds alpha KL(softmax(u / T) || softmax(z)) with
    u = `confidence` for the label and (1 - confidence) / (K - 1) for every other class; T softens the teacher
    alone, as in the authors' code. alpha and T default to the published values of the variant. Of a mixed input, the
    earlier copy sees the mixture; u is mixed like the labels, and the divergences from each u are averaged.
    Source: Yuan et al., Revisiting Knowledge Distillation via Label Smoothing Regularization, section 5.
    """

    name: ClassVar[str] = "tfkd"
    title: ClassVar[str] = "TF-KD"
    variant: Literal["self", "virtual"] = "self"
    alpha: Annotated[float, Field(ge=0, le=1)] | None = None
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.99

    @property
    def requires(self) -> Requires:
        return Requires(teacher=self.variant == "self")

    @property
    def cross_entropy_weight(self) -> float:
        return 1 - self._setting("alpha")

    def resolve(self, num_heads: int) -> Method:
        if self.variant == "self" and self.confidence != TFKD.confidence:
            raise ValueError(
                f"confidence: {self.confidence} is not used by variant 'self'; leave it out or use variant 'virtual'"
            )
        published = PUBLISHED[self.variant]
        alpha = None if self.alpha == published["alpha"] else self.alpha
        temperature = None if self.temperature == published["temperature"] else self.temperature
        return replace(self, alpha=alpha, temperature=temperature)

    def setup(self, labels: Tensor, num_classes: int, networks: int, teacher: Module | None = None) -> None:
        self.teacher = None
        if self.variant == "self":
            if teacher is None:
                raise ValueError("tfkd with variant 'self' needs a trained teacher")
            self.teacher = teacher.eval().requires_grad_(False)

    def losses(
        self, networks: Sequence[Module], outputs: Sequence[Output], batch: Batch, targets: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        alpha, temperature = self._setting("alpha"), self._setting("temperature")
        if self.teacher is None:
            divergences = [self._from_virtual_teacher(output.logits, batch) for output in outputs]
        else:
            taught = log_softmax(predict(self.teacher, batch.inputs), temperature)
            divergences = [kl_divergence(log_softmax(output.logits, temperature), taught) for output in outputs]
            alpha *= temperature**2
        return summed({"tfkd/teacher": alpha * divergence} for divergence in divergences)

    def state_dict(self) -> dict[str, Any]:
        return {} if self.teacher is None else {"teacher": self.teacher.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.teacher is not None:
            self.teacher.load_state_dict(state["teacher"])

    def _from_virtual_teacher(self, logits: Tensor, batch: Batch) -> Tensor:
        classes = logits.shape[-1]
        temperature = self._setting("temperature")
        right = exp(self.confidence / temperature)
        wrong = exp((1 - self.confidence) / (classes - 1) / temperature)
        total = right + (classes - 1) * wrong
        right, wrong = right / total, wrong / total
        teacher = wrong + (right - wrong) * over_parts(batch, lambda part: one_hot(part.labels, classes, like=logits))
        negative_entropy = right * log(right) + (classes - 1) * wrong * log(wrong)
        return cross_entropy(log_softmax(logits), teacher) + negative_entropy

    def _setting(self, name: str) -> float:
        given = getattr(self, name)
        return PUBLISHED[self.variant][name] if given is None else given
