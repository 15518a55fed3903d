"""Rules that hold for every method in the registry, whatever it does."""

import inspect
import io
import itertools
import subprocess
import sys
from copy import deepcopy
from dataclasses import fields

import pytest
import torch
from torch import nn

from tests.trainer.toy import (
    CLASSES,
    RefuseWaiting,
    ToyNetwork,
    augmented,
    toy_batch,
    toy_labels,
    toy_objective,
    train_step,
)
from trainer.method import Method, Output, Requires
from trainer.objective import Objective, build_methods, method_parameters
from trainer.parts import METHODS

# Every method as it is by default, and what hyperparameters switch to.
VARIANTS = [
    *({name: {}} for name in sorted(METHODS)),
    {"byot": {"blocks": [2]}},
    {"dmfl": {"variant": "released"}},
    {"tfkd": {"variant": "virtual"}},
]
RELEASED_DMFL = {"dmfl": {"variant": "released"}}
ADDING_TERMS = [given for given in VARIANTS if METHODS[next(iter(given))].make.losses is not Method.losses]
PAIRS = [pair for pair in itertools.combinations(ADDING_TERMS, 2) if pair[0].keys() != pair[1].keys()]


def title(methods):
    return "+".join([*methods, *(str(value) for given in methods.values() for value in given.values())]) or "none"


each_method = pytest.mark.parametrize("methods", VARIANTS, ids=title)


def values(terms):
    return {name: term.item() for name, term in terms.items()}


def gradient_of(term, networks):
    if not term.requires_grad:
        return torch.zeros(1, dtype=torch.float64)
    gradients = torch.autograd.grad(term, networks.parameters(), allow_unused=True, retain_graph=True)
    parts = zip(gradients, networks.parameters(), strict=True)
    return torch.cat([torch.zeros_like(p).flatten() if g is None else g.flatten() for g, p in parts])


def test_the_registry_holds_every_method():
    names = ["byot", "cskd", "cutmix", "cutout", "dcm", "dmfl", "dml", "label_smoothing", "mixup", "pskd", "tfkd"]
    assert sorted(METHODS) == names


@each_method
def test_every_loss_term_reaches_a_parameter(methods):
    objective, networks = toy_objective(methods)
    terms, _ = objective(networks, toy_batch())
    for name, term in terms.items():
        assert term.shape == ()
        without_gradient = methods == RELEASED_DMFL and name == "dmfl/features"
        assert term.requires_grad != without_gradient, name
        assert bool(gradient_of(term, networks).any()) != without_gradient, name


# The toy's images of 2 x 2 pixels are too small for a rectangle of CutMix.
@pytest.mark.parametrize("methods", [given for given in VARIANTS if "cutmix" not in given], ids=title)
def test_every_method_but_the_released_dmfl_changes_what_is_learned(methods):
    """Measured after a step, since the first predictions of PS-KD are the labels themselves."""
    objective, networks = toy_objective(methods)
    plain, _ = toy_objective({}, networks=len(networks))
    batch = toy_batch()
    train_step(objective, networks, augmented(objective, batch))
    total = sum(objective(networks, augmented(objective, batch))[0].values())
    baseline = sum(plain(networks, batch)[0].values())
    assert torch.equal(gradient_of(total, networks), gradient_of(baseline, networks)) == (methods == RELEASED_DMFL)


@pytest.mark.parametrize(
    "methods", [given for given in VARIANTS if METHODS[next(iter(given))].make().requires.networks == 1], ids=title
)
def test_two_networks_have_the_sum_of_their_terms(methods):
    objective, networks = toy_objective(methods, networks=2)
    terms, outputs = objective(networks, toy_batch())
    alone, _ = toy_objective(methods)
    alone_terms = [alone.terms([n], [o], toy_batch()) for n, o in zip(networks, outputs, strict=True)]
    for name, term in terms.items():
        torch.testing.assert_close(term, alone_terms[0][name] + alone_terms[1][name])


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: " and ".join(map(title, pair)))
def test_the_terms_of_a_method_do_not_depend_on_its_company(pair):
    together, networks = toy_objective({**pair[0], **pair[1]}, networks=2)
    terms = values(together(networks, toy_batch())[0])
    for methods in pair:
        alone = values(toy_objective(methods, networks=2)[0](networks, toy_batch())[0])
        own = {name: value for name, value in alone.items() if name != "cross_entropy"}
        assert own == {name: terms[name] for name in own}


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_methods_never_matters(seed):
    order = torch.randperm(len(METHODS), generator=torch.Generator().manual_seed(seed)).tolist()
    results = []
    for names in (sorted(METHODS), [sorted(METHODS)[i] for i in order]):
        objective, networks = toy_objective({name: {} for name in names})
        by_name = {method.name: method for method in objective.methods}
        objective = Objective([by_name[name] for name in names], CLASSES)
        steps = [train_step(objective, networks, toy_batch(step)) for step in range(3)]
        results.append([list(values(terms).items()) for terms in steps])
    assert results[0] == results[1]


@each_method
def test_state_survives_a_checkpoint(methods):
    objective, networks = toy_objective(methods)
    for step in range(3):
        train_step(objective, networks, toy_batch(step))
    file = io.BytesIO()
    torch.save([method.state_dict() for method in objective.methods], file)
    file.seek(0)
    states = torch.load(file, weights_only=True)

    resumed, _ = toy_objective(methods)
    for method, state in zip(resumed.methods, states, strict=True):
        # Other labels, another network, another epoch: the state must come from the checkpoint.
        method.setup((toy_labels() + 1) % CLASSES, CLASSES, len(networks), ToyNetwork(seed=8).double())
        method.start_epoch(1, 4)
        method.load_state_dict(state)
    copies = [(objective, networks), (resumed, deepcopy(networks))]
    for step in range(3, 6):
        undisturbed, continued = (values(train_step(*copy, toy_batch(step))) for copy in copies)
        assert continued == undisturbed


def test_loaded_state_is_not_shared_with_its_source():
    objective, networks = toy_objective({"pskd": {}})
    resumed, _ = toy_objective({"pskd": {}})
    state = objective.methods[0].state_dict()
    resumed.methods[0].load_state_dict(state)
    kept = [table.clone() for table in state["tables"]]
    train_step(resumed, networks, toy_batch())
    assert all(torch.equal(a, b) for a, b in zip(state["tables"], kept, strict=True))


@each_method
def test_hyperparameters_round_trip(methods):
    (method,) = build_methods(methods)
    name = next(iter(methods))
    assert build_methods({name: method_parameters(method)}) == [method]
    assert method_parameters(METHODS[name].make()) == {}
    assert all(field.default == getattr(METHODS[name].make(), field.name) for field in fields(method))


def test_losses_that_are_no_dict_are_named_with_what_to_return(monkeypatch):
    objective, networks = toy_objective({"byot": {}})
    (method,) = objective.methods
    monkeypatch.setattr(type(method), "losses", lambda *given: torch.tensor(1.0))
    with pytest.raises(TypeError, match=r'BYOT.losses gives a Tensor, not a dict .*; return {"byot": ...}'):
        objective(networks, toy_batch())


class InDouble(nn.Module):
    """Gives the outputs of a network under autocast, in float64."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, inputs, heads=True):
        with torch.autocast("cpu", torch.bfloat16):
            output = self.network(inputs, heads)
        doubled = [[v.double() for v in value] if isinstance(value, tuple) else value.double() for value in output]
        return Output(*doubled)


@each_method
def test_losses_are_computed_in_float32_under_autocast(methods):
    """Against the same outputs in float64: what remains is the rounding of float32, not of bfloat16."""
    objective, networks = toy_objective(methods, dtype=torch.float32)
    batch = toy_batch(dtype=torch.float32)
    # Larger logits: a divergence of nearly equal distributions is the small difference of large numbers.
    batch = batch._replace(inputs=10 * batch.inputs, pair_inputs=10 * batch.pair_inputs)
    with torch.autocast("cpu", torch.bfloat16):
        terms, outputs = objective(networks, batch)
    assert outputs[0].logits.dtype == torch.bfloat16

    exact, _ = toy_objective(methods)
    for method in exact.methods:
        method.setup(toy_labels(), CLASSES, len(networks), InDouble(ToyNetwork(seed=9)))
        method.start_epoch(1, 4)
    for name, term in exact([InDouble(network) for network in networks], batch)[0].items():
        assert (terms[name].dtype, term.dtype) == (torch.float32, torch.float64)
        assert terms[name].item() == pytest.approx(term.item(), rel=1e-5, abs=1e-7), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_predictions_are_kept_in_the_precision_of_the_losses(dtype):
    objective, _ = toy_objective({"pskd": {}})
    logits = torch.randn(4, CLASSES, dtype=dtype)
    objective.methods[0].losses([], [Output(logits, logits)], toy_batch(), [])
    objective.methods[0].after_step([Output(logits, logits)], toy_batch())
    table = objective.methods[0].tables[0]
    assert table.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.equal(table[toy_batch().indices], logits.to(table.dtype).softmax(1))


@each_method
def test_a_step_never_waits_for_the_device(methods):
    objective, networks = toy_objective(methods)
    with RefuseWaiting():
        batch = augmented(objective, toy_batch())
        terms, outputs = objective(networks, batch)
        torch.stack(list(terms.values())).sum().backward()
        for method in objective.methods:
            method.after_step(outputs, batch)
            method.start_epoch(2, 4)


def test_waiting_would_be_noticed():
    with RefuseWaiting(), pytest.raises(AssertionError, match="waits for the device"):
        torch.ones(()).item()


@each_method
def test_a_step_is_one_graph_to_the_compiler(methods):
    torch.compiler.reset()
    objective, networks = toy_objective(methods)
    step = torch.compile(lambda batch: objective(networks, batch), backend="eager", fullgraph=True)
    batch = augmented(objective, toy_batch())
    expected, _ = objective(networks, batch)
    for name, term in step(batch)[0].items():
        torch.testing.assert_close(term, expected[name])


def test_requirements_are_merged():
    first = Requires(networks=2, heads=True)
    merged = first | Requires(features=True, class_pairs=True, teacher=True)
    assert merged == Requires(networks=2, heads=True, features=True, class_pairs=True, teacher=True)
    mixed = Objective(build_methods({"dml": {}, "byot": {}, "cskd": {}}), CLASSES).requires
    assert mixed == Requires(networks=2, heads=True, features=True, class_pairs=True)
    assert Objective([], CLASSES).requires == Requires()


def test_heads_are_run_only_where_a_method_needs_them():
    for methods, heads in (({}, 0), ({"pskd": {}}, 0), ({"byot": {"blocks": [1]}}, 3)):
        objective, networks = toy_objective(methods)
        _, outputs = objective(networks, toy_batch())
        assert len(outputs[0].head_logits) == heads


def test_each_method_says_what_it_is():
    for name, method in METHODS.items():
        assert method.name == method.make.name == name and method.title == method.make.title
        assert "Source: " in inspect.getdoc(method.make)


def test_nothing_here_imports_torch():
    code = (
        "import sys, trainer.config, trainer.losses, trainer.objective as o, trainer.parts as p;"
        "o.build_methods({name: {} for name in p.METHODS}); assert len(p.METHODS) == 11;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
