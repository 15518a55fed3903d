"""The loss terms against values and gradient norms computed in float64 with the authors' released code."""

import json
from pathlib import Path

import pytest
import torch

from trainer.losses import cross_entropy, log_softmax, one_hot
from trainer.method import Batch, Output
from trainer.objective import Objective, build_methods

CASES = json.loads((Path(__file__).parent / "golden" / "golden_losses.json").read_text())


@pytest.fixture(params=CASES, ids=lambda case: f"seed{case['seed']}")
def case(request):
    return request.param


def leaves(case, kind):
    """The deepest classifier's tensor comes first in the file."""
    return [torch.tensor(values, dtype=torch.float64, requires_grad=True) for values in case["inputs"][kind]]


def terms_of(case, methods, soft=False):
    logits, features = leaves(case, "logits"), leaves(case, "features")
    labels = torch.tensor(case["inputs"]["targets"])
    methods = dict(methods, pskd={"alpha": case["alpha_t"]}) if soft else methods
    objective = Objective([m.resolve(len(logits) - 1) for m in build_methods(methods)], logits[0].shape[1])
    for method in objective.methods:
        method.setup(labels, objective.num_classes, networks=1)
        method.start_epoch(0, 1)
        if soft and method.name == "pskd":
            previous = torch.tensor(case["inputs"]["previous_predictions"], dtype=torch.float64)
            method.load_state_dict({"tables": [previous]})
    output = Output(logits[0], features[0], tuple(logits[1:]), tuple(features[1:]))
    batch = Batch(torch.empty(0), labels, torch.arange(len(labels)))
    return objective.terms([], [output], batch), [*logits, *features]


def byot(case):
    heads = range(1, len(case["inputs"]["logits"]))
    names = ("temperature", "alpha", "feature_weight")
    blocks = [block for block in heads if block >= case["byot_from_block"]]
    return {"byot": {"blocks": blocks, **{name: case[name] for name in names}}}


def exactly(value):
    return pytest.approx(value, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("target", ["hard", "soft"])
def test_cross_entropy(case, target):
    terms, _ = terms_of(case, {}, soft=target == "soft")
    assert terms["cross_entropy"].item() == exactly(case["expected"][f"ce_{target}"])


@pytest.mark.parametrize("target", ["hard", "soft"])
def test_byot(case, target):
    terms, inputs = terms_of(case, byot(case), soft=target == "soft")
    deepest = terms.pop("cross_entropy")
    total = sum(terms.values())
    expected = case["expected"]

    # The file's distillation terms hold T^2 already.
    assert terms["byot/distillation"].item() == exactly(case["alpha"] * sum(expected["byot_distill_ce"]))
    assert terms["byot/features"].item() == exactly(case["feature_weight"] * sum(expected["byot_feature_sq"]))
    classified = sum(expected[f"byot_head_ce_{target}"]) + deepest.item()
    assert terms["byot/cross_entropy"].item() == exactly((1 - case["alpha"]) * classified)
    assert total.item() == exactly(expected[f"byot_total_{target}"])
    assert gradient_norms(total, inputs) == norms(case, f"byot_total_{target}")


def test_distillation_is_kl_up_to_a_constant(case):
    """The file holds both; the difference is the entropy of the softened teacher, for every head the same."""
    terms, inputs = terms_of(case, byot(case))
    teacher = log_softmax(inputs[0], case["temperature"])
    entropy = case["temperature"] ** 2 * cross_entropy(teacher, teacher.exp()).item()
    used = len(byot(case)["byot"]["blocks"])
    divergence = terms["byot/distillation"].item() / case["alpha"] - used * entropy
    assert divergence == pytest.approx(sum(case["expected"]["byot_distill_kl"]), rel=1e-9)


def test_dmfl(case):
    terms, inputs = terms_of(case, {"dmfl": {}})
    assert terms["dmfl/features"].item() == exactly(case["expected"]["dmfl_equation3"])
    assert gradient_norms(terms["dmfl/features"], inputs) == norms(case, "dmfl_equation3")


def test_dmfl_released(case):
    terms, _ = terms_of(case, {"dmfl": {"variant": "released"}})
    assert terms["dmfl/features"].item() == exactly(case["expected"]["dmfl_released"])
    assert not terms["dmfl/features"].requires_grad


def test_one_hot_targets_give_the_hard_cross_entropy(case):
    logits = leaves(case, "logits")[0]
    labels = torch.tensor(case["inputs"]["targets"])
    value = cross_entropy(log_softmax(logits), one_hot(labels, logits.shape[1], like=logits))
    assert value.item() == exactly(case["expected"]["ce_hard"])


def gradient_norms(term, inputs):
    gradients = torch.autograd.grad(term, inputs, allow_unused=True)
    return [None if gradient is None else gradient.norm().item() for gradient in gradients]


def norms(case, name):
    return [None if norm is None else exactly(norm) for norm in case["expected_gradient_norms"][name]]
