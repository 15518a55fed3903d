"""Check a method: its terms, its state, its random numbers, and what it does to other methods."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainer.checks.training import config_of, difference, first_trial, learned, ready
from trainer.config import TrainConfig
from trainer.method import Batch, Method, Output
from trainer.objective import Objective
from trainer.registry import Part
from trainer.train import Training

STEPS = 3
# Of the global random numbers.
SEEDINGS: tuple[Callable[[int], Any], ...] = (torch.manual_seed, random.seed, np.random.seed)


def trial_of(part: Part[Any]) -> TrainConfig:
    """Return the configuration of a short training with the method alone, as it is by default."""
    return config_of(methods={part.name: {}})


def moves_parameters(part: Part[Any]) -> str | None:
    """Find a term of the loss that is no number, is not finite, or moves no parameter in the first steps."""
    training = ready(trial_of(part))
    parameters = list(training.networks.parameters())
    still: dict[str, bool] = {}
    for batch, _ in zip(training.loader.epoch(0), range(STEPS), strict=False):
        terms, _ = training.objective(_modules(training), batch)
        for name, term in terms.items():
            if not isinstance(term, Tensor) or term.shape != ():
                return f"the term {name!r} is {_shown(term)}; return a tensor without dimensions, such as a mean"
            if not term.isfinite():
                return f"the term {name!r} is {term.item()}; keep logarithms and quotients away from 0"
            moving = term.requires_grad and _moved(term, parameters)
            still[name] = still.get(name, True) and not moving
        _step(training, batch)
    unmoved = [name for name, unread in still.items() if unread]
    # The cross-entropy may have been given no weight.
    if unmoved == ["cross_entropy"] and training.objective.cross_entropy_weight == 0:
        return None
    if unmoved:
        return (
            f"the term {unmoved[0]!r} has no gradient: it is reported and changes nothing; compute it from the outputs "
            "without detach(), torch.tensor() or no_grad()"
        )
    return None


def names_its_terms(part: Part[Any]) -> str | None:
    """Find a term whose name another method might use too, or that is there in one step and not in another."""
    training = ready(trial_of(part))
    seen: list[list[str]] = []
    for batch, _ in zip(training.loader.epoch(0), range(STEPS), strict=False):
        seen.append(list(_step(training, batch)))
        for name in seen[-1][1:]:
            if name != part.name and not name.startswith(f"{part.name}/"):
                return f"the term {name!r} does not say whose it is; name it {part.name!r} or '{part.name}/...'"
        if seen[-1] != seen[0]:
            return f"the terms are {seen[0]} in one step and {seen[-1]} in another; return the same in every step"
    return None


def resumes(part: Part[Any]) -> str | None:
    """Find state that an interrupted training does not get back."""
    config = trial_of(part)
    place = difference(first_trial(config), learned(config, stop=True))
    if place is None:
        return None
    return (
        f"two epochs with a stop between them give other numbers than two without ({place}): put everything that "
        "changes in training into state_dict, and restore it in load_state_dict"
    )


def repeats(part: Part[Any]) -> str | None:
    """Find a training that depends on those before it in the process, or on the global random numbers."""
    config = trial_of(part)
    first = first_trial(config)
    # Another trial of the method in between, as in a worker that runs several.
    learned(TrainConfig(**{**config.model_dump(), "seed": 7, "epochs": 1}))
    for seeding in SEEDINGS:
        seeding(1)
    place = difference(first, learned(config))
    if place is None:
        return None
    return (
        f"a second trial in one process gives other numbers than the first ({place}): keep state in `self`, made new "
        "in setup, not in the class or the module, and draw random numbers from torch or the generator of `augment`"
    )


def state_returns(part: Part[Any]) -> str | None:
    """Find state that a checkpoint cannot hold, or that is another after it was loaded."""
    training, fresh = ready(trial_of(part)), ready(trial_of(part))
    for batch, _ in zip(training.loader.epoch(0), range(STEPS), strict=False):
        _step(training, batch)
    state = _of(training, part).state_dict()
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    try:
        loaded = torch.load(file, weights_only=True)
    except Exception as error:
        first = str(error).strip().splitlines()[0]
        return f"state_dict holds what a checkpoint cannot give back ({first}); keep tensors, numbers, strings, lists"
    _of(fresh, part).load_state_dict(loaded)
    place = difference(state, _of(fresh, part).state_dict(), "state")
    return place and f"{place} is another after load_state_dict; restore there all that state_dict gives"


class _Probe(Method):
    """A method that looks at everything that methods are given."""

    def losses(
        self, networks: Sequence[nn.Module], outputs: Sequence[Output], batch: Batch, targets: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        seen = [batch.inputs, *targets, *(output.logits for output in outputs)]
        seen += [values for output in outputs for values in (*output.head_logits, output.features)]
        total = torch.stack([values.double().square().sum() for values in seen]).sum()
        return {self.name: total + (batch.labels * batch.indices).sum()}


class _First(_Probe):
    pass


class _Last(_Probe):
    pass


def leaves_others_alone(part: Part[Any]) -> str | None:
    """Find a method that changes what others see, so that the order of methods matters, or that sees them."""
    # Not registered, because they had no name while they were defined.
    _First.name, _Last.name = " first", "~last"
    company, alone = ready(trial_of(part)), ready(trial_of(part))
    company.objective = Objective([*company.objective.methods, _First(), _Last()], company.num_classes)
    for batch, _ in zip(company.loader.epoch(0), range(STEPS), strict=False):
        before = batch.map(torch.clone)
        terms, outputs = company.objective(_modules(company), batch)
        own, _ = alone.objective(_modules(alone), before)
        if not torch.equal(terms[_First.name], terms[_Last.name]) or _changed(before, batch):
            return (
                "changes the batch, the targets or the outputs in place, so that methods after it see others than "
                "those before it: compute new tensors, or clone first"
            )
        if any(not torch.equal(value, terms[name]) for name, value in own.items()):
            return "its terms are others beside other methods than alone: read nothing but the arguments and `self`"
        for method in company.objective.methods:
            method.after_step(outputs, batch)
        for method in alone.objective.methods:
            method.after_step(outputs, before)
    return None


def draws_from_its_generator(part: Part[Any]) -> str | None:
    """Find an augment that draws elsewhere, changes its batch, or gives what does not fit."""
    config = trial_of(part)
    method = _of(ready(config), part)
    if type(method).augment is Method.augment:
        return None
    plain = ready(TrainConfig(**{**config.model_dump(), "methods": {}}))
    batch = next(iter(plain.loader.epoch(0)))
    batch = batch._replace(pair_inputs=batch.inputs.flip(0))
    kept = batch.map(torch.clone)
    given = []
    for seed in range(2):
        for seeding in SEEDINGS:
            seeding(seed)
        given.append(method.augment(batch, torch.Generator().manual_seed(5)))
        if _changed(kept, batch):
            return "augment changes its batch in place; clone what it changes, and return a new batch"
    first, second = given
    if _changed(first, second):
        return "augment gives other inputs for one generator: draw every random number from the generator it is given"
    if first.inputs.shape != batch.inputs.shape or len(first.labels) != len(batch.labels):
        shapes = f"{list(first.inputs.shape)} for {list(batch.inputs.shape)}"
        return f"augment gives inputs {shapes}; keep the number and the size of the images"
    if first.inputs.dtype != batch.inputs.dtype:
        return f"augment gives inputs of {first.inputs.dtype}, not {batch.inputs.dtype}; convert them back"
    if first.parts and not method.mixes:
        return "augment mixes images and does not say so; set mixes = True, so that it comes last and can be refused"
    if first.parts:
        shares = torch.stack([part.weights for part in first.parts]).sum(0)
        if not torch.allclose(shares, torch.ones_like(shares), atol=1e-5):
            return f"the shares of mixed targets add up to {shares[0].item():.4g}, not to 1"
    return None


def changes_something(part: Part[Any]) -> str | None:
    """Find a method with which the first network learns the weights and the metrics of the training without it.

    Heads that are only run gather statistics of their batches, which change no weight and nothing in the network.
    """
    config = trial_of(part)
    without = TrainConfig(**{**config.model_dump(), "methods": {}, "peer": None})
    weights = {name for name, _ in ready(config).networks[0].named_parameters(prefix="0")}
    one, other = (
        {
            "weights": {name: values for name, values in trained["networks"].items() if name in weights},
            "metrics": [
                evaluation["metrics"]
                for result in trained["results"]
                for evaluation in result["evaluations"]
                if (evaluation["network"], evaluation["classifier"]) == (0, "main")
            ],
        }
        for trained in (first_trial(config), first_trial(without))
    )
    if difference(one, other) is not None:
        return None
    return (
        "changes nothing: the weights and the metrics of two epochs are those of the training without it, to the last "
        "bit; see that its terms have a gradient, and that its default hyperparameters are not 0"
    )


CHECKS: dict[str, Callable[[Part[Any]], str | None]] = {
    "every term of the loss moves a parameter": moves_parameters,
    "terms carry its name, the same in every step": names_its_terms,
    "augment draws from its generator alone": draws_from_its_generator,
    "its state survives a checkpoint": state_returns,
    "1 + 1 epochs give the bits of 2": resumes,
    "a trial does not depend on those before it": repeats,
    "it leaves what other methods see alone": leaves_others_alone,
    "it changes what is learned": changes_something,
}


def _modules(training: Training) -> Sequence[nn.Module]:
    return list(training.networks)


def _of(training: Training, part: Part[Any]) -> Method:
    return next(method for method in training.objective.methods if method.name == part.name)


def _step(training: Training, batch: Batch) -> dict[str, Tensor]:
    """Take a step; return the terms."""
    terms, outputs = training.objective(_modules(training), batch)
    training.optimizer.zero_grad()
    torch.stack(list(terms.values())).sum().backward()
    training.optimizer.step()
    for method in training.objective.methods:
        method.after_step(outputs, batch)
    return terms


def _moved(term: Tensor, parameters: list[nn.Parameter]) -> bool:
    gradients = torch.autograd.grad(term, parameters, allow_unused=True, retain_graph=True)
    return any(gradient is not None and bool(gradient.any()) for gradient in gradients)


def _changed(one: Batch, other: Batch) -> bool:
    return difference(one.tensors(), other.tensors()) is not None


def _shown(value: object) -> str:
    return f"a tensor of shape {list(value.shape)}" if isinstance(value, Tensor) else f"{value!r}, no tensor"
