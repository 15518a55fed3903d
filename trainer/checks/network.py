"""Check a network: what it gives for any number of classes, its weights, and that it trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from trainer.checks.training import CPU, config_of, difference, first_trial, learned, ready
from trainer.config import TrainConfig
from trainer.method import Output
from trainer.parts import NetworkFacts
from trainer.registry import Part
from trainer.state import build_networks

CLASSES = (3, 7)
WIDTH = 4
IMAGES = 4


def takes_classes(part: Part[NetworkFacts]) -> str | None:
    """Find a network whose logits are not one for each class."""
    for classes in CLASSES:
        for heads in (None, *part.facts.heads):
            network = _built(part, classes, heads).eval()
            with torch.no_grad():
                output = network(torch.zeros(IMAGES, 3, 32, 32))
            logits = output.logits if isinstance(output, Output) else output
            if not isinstance(logits, Tensor):
                return f"gives {type(logits).__name__} for images; return logits [B, K], or an Output with them"
            if logits.shape != (IMAGES, classes):
                ignored = "it does not use num_classes; " if logits.ndim == 2 and len(logits) == IMAGES else ""
                return (
                    f"gives logits {list(logits.shape)} for {IMAGES} images of {classes} classes: {ignored}make the "
                    "last layer num_classes wide"
                )
            if problem := _of_heads(part.facts, output, classes, heads):
                return problem
    return None


def _of_heads(facts: NetworkFacts, output: Any, classes: int, heads: str | None) -> str | None:
    if not isinstance(output, Output):
        declared = [name for name in ("heads", "features") if getattr(facts, name)]
        return f"declares {' and '.join(declared)} and gives logits alone; return an Output" if declared else None
    count = facts.stages - 1 if heads else 0
    if len(output.head_logits) != count or any(logits.shape != (IMAGES, classes) for logits in output.head_logits):
        shapes = [list(logits.shape) for logits in output.head_logits]
        return f"with heads {heads!r} it gives head_logits {shapes}; give {count} of shape [{IMAGES}, {classes}]"
    if facts.features and (output.features.ndim != 2 or len(output.features) != IMAGES):
        return f"gives features {list(output.features.shape)}; give [B, D]"
    return None


def weights_depend_on_the_seed(part: Part[NetworkFacts]) -> str | None:
    """Find initial weights that are not those of the seed."""
    config = _trial(part)
    states: list[dict[str, Any]] = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(states))
        networks = build_networks(TrainConfig(**{**config.model_dump(), "seed": seed}), 10, CPU)
        states.append(dict(networks.state_dict()))
    if place := difference(states[0], states[1]):
        return f"{place} is another in a second network of the same seed; draw weights from torch's generator alone"
    if difference(states[0], states[2]) is None:
        return (
            "has equal weights for two seeds: several seeds would be one training; draw weights from torch's generator"
        )
    return None


def trains(part: Part[NetworkFacts]) -> str | None:
    """Find a network that no gradient reaches."""
    training = ready(_trial(part))
    batch = next(iter(training.loader.epoch(0)))
    terms, _ = training.objective(list(training.networks), batch)
    loss = torch.stack(list(terms.values())).sum()
    if not loss.isfinite():
        return f"the loss of the first step is {loss.item()}"
    if loss.requires_grad:
        loss.backward()
    reached = [
        parameter.grad is not None and bool(parameter.grad.any()) for parameter in training.networks.parameters()
    ]
    return None if any(reached) else "no gradient reaches a parameter; compute logits from them without detach()"


def resumes(part: Part[NetworkFacts]) -> str | None:
    """Find state of a network that an interrupted training does not get back."""
    config = _trial(part)
    place = difference(first_trial(config), learned(config, stop=True))
    return place and (
        f"two epochs with a stop between them give other numbers than two without ({place}): keep what changes in "
        "training in parameters or buffers (register_buffer)"
    )


def images_stand_alone(part: Part[NetworkFacts]) -> str | None:
    """Find a network that says in evaluation something else of an image beside other images."""
    networks = build_networks(_trial(part), 10, CPU).eval()
    images = torch.rand(IMAGES, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together, alone = (_logits(networks[0](values)) for values in (images, images[:1]))
    if torch.allclose(together[:1], alone, rtol=1e-3, atol=1e-4):
        return None
    return "gives other logits for an image beside others in eval(): use running statistics there, as BatchNorm2d does"


CHECKS: dict[str, Callable[[Part[Any]], str | None]] = {
    "it takes any number of classes": takes_classes,
    "its weights depend on the seed alone": weights_depend_on_the_seed,
    "a gradient reaches its parameters": trains,
    "1 + 1 epochs give the bits of 2": resumes,
    "an image's logits do not depend on others": images_stand_alone,
}


def _built(part: Part[NetworkFacts], classes: int, heads: str | None) -> nn.Module:
    """Return the module that the part makes, not wrapped into what the trainer expects."""
    given = {"width": WIDTH, "stages": part.facts.stages, "heads": heads}
    built: nn.Module = part.make(num_classes=classes, **{name: given[name] for name in part.facts.takes})
    return built


def _trial(part: Part[NetworkFacts]) -> TrainConfig:
    width = {"width": WIDTH} if "width" in part.facts.takes else {}
    return config_of(**{"network": part.name, "subset": 2, "width": 64, **width})


def _logits(output: Any) -> Tensor:
    logits: Tensor = output.logits if isinstance(output, Output) else output
    return logits
