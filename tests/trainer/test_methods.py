"""Each method against a slow formula written out sample by sample."""

import math

import pytest
import torch

from tests.trainer.toy import BATCH, CLASSES, SAMPLES, ToyNetwork, toy_batch, toy_labels, toy_objective, train_step
from trainer.method import Output
from trainer.objective import build_methods


def softmax(values, temperature=1.0):
    powers = [math.exp(value / temperature) for value in values]
    return [power / sum(powers) for power in powers]


def ce(target, probabilities):
    return -sum(t * math.log(p) for t, p in zip(target, probabilities, strict=True))


def kl(target, probabilities):
    return sum(t * math.log(t / p) for t, p in zip(target, probabilities, strict=True))


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def hard(label):
    return [float(label == k) for k in range(CLASSES)]


def rows(tensor):
    return tensor.detach().tolist()


def run(methods, networks=None, heads=3):
    """Terms as floats, and outputs, of one batch in float64."""
    objective, modules = toy_objective(methods, networks, heads)
    terms, outputs = objective(modules, toy_batch())
    return {name: term.item() for name, term in terms.items()}, outputs, modules


def close(value):
    return pytest.approx(value, rel=1e-10, abs=1e-14)


LABELS = toy_batch().labels.tolist()


def test_baseline_is_the_cross_entropy_of_every_network():
    terms, outputs, _ = run({}, networks=2)
    expected = sum(
        mean(ce(hard(y), softmax(z)) for y, z in zip(LABELS, rows(output.logits), strict=True)) for output in outputs
    )
    assert terms == {"cross_entropy": close(expected)}


def test_label_smoothing():
    terms, outputs, _ = run({"label_smoothing": {"smoothing": 0.3}})
    targets = [[0.7 * t + 0.3 / CLASSES for t in hard(y)] for y in LABELS]
    expected = mean(ce(t, softmax(z)) for t, z in zip(targets, rows(outputs[0].logits), strict=True))
    assert terms == {"cross_entropy": close(expected)}


def test_cskd():
    terms, outputs, modules = run({"cskd": {"temperature": 2, "weight": 3}})
    others = rows(modules[0](toy_batch().pair_inputs).logits)
    expected = mean(
        3 * 4 * kl(softmax(other, 2), softmax(z, 2)) for other, z in zip(others, rows(outputs[0].logits), strict=True)
    )
    assert terms["cskd/pairs"] == close(expected)


def test_cskd_teaches_without_gradient_from_the_other_image():
    objective, networks = toy_objective({"cskd": {}})
    batch = toy_batch()
    pair_inputs = batch.pair_inputs.clone().requires_grad_()
    terms, _ = objective(networks, batch._replace(pair_inputs=pair_inputs))
    assert torch.autograd.grad(terms["cskd/pairs"], pair_inputs, allow_unused=True) == (None,)


def test_tfkd_learns_from_the_teacher():
    terms, outputs, _ = run({"tfkd": {}})
    plain, _, _ = run({})
    teacher = rows(ToyNetwork(seed=9).double()(toy_batch().inputs).logits)
    expected = mean(
        0.95 * 36 * kl(softmax(t, 6), softmax(z, 6)) for t, z in zip(teacher, rows(outputs[0].logits), strict=True)
    )
    assert terms["tfkd/teacher"] == close(expected)
    assert terms["cross_entropy"] == close(0.05 * plain["cross_entropy"])


def test_tfkd_freezes_its_teacher():
    teacher = ToyNetwork(seed=9)
    method = build_methods({"tfkd": {}})[0]
    method.setup(toy_labels(), CLASSES, 1, teacher)
    assert not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    with pytest.raises(ValueError, match="needs a trained teacher"):
        method.setup(toy_labels(), CLASSES, 1, None)


def test_tfkd_virtual_teacher():
    terms, outputs, _ = run({"tfkd": {"variant": "virtual"}})
    plain, _, _ = run({})
    expected = 0.0
    for label, z in zip(LABELS, rows(outputs[0].logits), strict=True):
        u = [0.99 if k == label else 0.01 / (CLASSES - 1) for k in range(CLASSES)]
        expected += 0.1 * kl(softmax(u, 20), softmax(z)) / BATCH
    assert terms["tfkd/teacher"] == close(expected)
    assert terms["cross_entropy"] == close(0.9 * plain["cross_entropy"])


def test_byot_on_chosen_blocks_of_two_networks():
    terms, outputs, _ = run({"byot": {"blocks": [3, 1], "temperature": 2, "alpha": 0.3}}, networks=2)
    classified = distilled = compared = 0.0
    for output in outputs:
        for sample, label in enumerate(LABELS):
            z, features = rows(output.logits)[sample], rows(output.features)[sample]
            classified += ce(hard(label), softmax(z)) / BATCH
            for head in (0, 2):
                own = rows(output.head_logits[head])[sample]
                classified += ce(hard(label), softmax(own)) / BATCH
                distilled += ce(softmax(z, 2), softmax(own, 2)) / BATCH
                for a, b in zip(rows(output.head_features[head])[sample], features, strict=True):
                    if a > 0 or b > 0:
                        compared += (a - b) ** 2
    assert terms["byot/cross_entropy"] == close(0.7 * classified)
    assert terms["byot/distillation"] == close(0.3 * 4 * distilled)
    assert terms["byot/features"] == close(1e-6 * compared)


def test_byot_teaches_without_gradient_to_the_deepest_classifier():
    """Only its own cross-entropy reaches it."""
    outputs = [torch.randn(BATCH, n, dtype=torch.float64, requires_grad=True) for n in (CLASSES, 6, CLASSES, 6)]
    logits, features, head_logits, head_features = outputs
    objective, _ = toy_objective({"byot": {}}, heads=1)
    terms = objective.terms([], [Output(logits, features, (head_logits,), (head_features,))], toy_batch())
    taught = terms["byot/distillation"] + terms["byot/features"]
    gradients = torch.autograd.grad(taught, outputs, allow_unused=True, retain_graph=True)
    assert gradients[1] is None
    assert gradients[0] is None or not gradients[0].any()
    assert gradients[2].any() and gradients[3].any()
    assert torch.autograd.grad(terms["byot/cross_entropy"], logits)[0].any()


def test_byot_heads_see_the_softened_targets():
    terms, outputs, _ = run({"byot": {}, "label_smoothing": {}})
    expected = 0.0
    for classifier in (outputs[0].logits, *outputs[0].head_logits):
        for label, z in zip(LABELS, rows(classifier), strict=True):
            expected += 0.9 * ce([0.9 * t + 0.1 / CLASSES for t in hard(label)], softmax(z)) / BATCH
    assert terms["byot/cross_entropy"] == close(expected)


def test_byot_without_feature_weight_takes_heads_of_any_width():
    objective, _ = toy_objective({"byot": {"feature_weight": 0}}, heads=2)
    terms, _ = objective([ToyNetwork(heads=2, head_width=4).double()], toy_batch())
    assert list(terms) == ["cross_entropy", "byot/cross_entropy", "byot/distillation"]


@pytest.mark.parametrize("networks", [1, 2])
def test_dmfl(networks):
    terms, outputs, _ = run({"dmfl": {}}, networks)
    expected = 0.0
    for output in outputs:
        for head in output.head_features:
            for a, b in zip(rows(head), rows(output.features), strict=True):
                a, b = softmax(a), softmax(b)
                expected += (kl(a, b) + kl(b, a)) / BATCH / len(output.head_features)
    assert terms["dmfl/features"] == close(expected)


def test_dmfl_released():
    terms, outputs, _ = run({"dmfl": {"variant": "released"}})
    expected = mean(
        ce(softmax(a), softmax(b)) + ce(softmax(b), softmax(a))
        for head in outputs[0].head_features
        for a, b in zip(rows(head), rows(outputs[0].features), strict=True)
    )
    assert terms["dmfl/features"] == close(expected)


def test_dml():
    terms, (first, second), _ = run({"dml": {}})
    expected = mean(
        kl(softmax(b), softmax(a)) + kl(softmax(a), softmax(b))
        for a, b in zip(rows(first.logits), rows(second.logits), strict=True)
    )
    assert terms["dml/mutual"] == close(expected)


def test_dml_gives_each_network_the_gradient_of_its_own_divergence():
    """d KL(q || softmax z) / dz = (softmax z - q) / B when nothing flows through q."""
    logits = [torch.randn(BATCH, CLASSES, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    objective, _ = toy_objective({"dml": {}})
    terms = objective.terms([], [Output(values, values) for values in logits], toy_batch())
    gradients = torch.autograd.grad(terms["dml/mutual"], logits)
    difference = (logits[0].softmax(1) - logits[1].softmax(1)) / BATCH
    torch.testing.assert_close(gradients[0], difference)
    torch.testing.assert_close(gradients[1], -difference)


@pytest.mark.parametrize("heads", [(1, 1), (2, 2), (3, 2)])
def test_dcm_over_all_pairs(heads):
    objective, _ = toy_objective({"dcm": {}, "label_smoothing": {}}, heads=max(heads))
    networks = [ToyNetwork(seed, count).double() for seed, count in enumerate(heads)]
    terms, outputs = objective(networks, toy_batch())
    classifiers = [[rows(z) for z in (*output.head_logits, output.logits)] for output in outputs]
    classified = mutual = 0.0
    for sample, label in enumerate(LABELS):
        target = [0.9 * t + 0.1 / CLASSES for t in hard(label)]
        for own, peer in (classifiers, reversed(classifiers)):
            for z in own[:-1]:
                classified += ce(target, softmax(z[sample])) / BATCH
            for z in own:
                for other in peer:
                    mutual += kl(softmax(other[sample]), softmax(z[sample])) / BATCH
    assert terms["dcm/cross_entropy"].item() == close(classified)
    assert terms["dcm/mutual"].item() == close(mutual)


@pytest.mark.parametrize("own", [0, 1])
def test_dcm_takes_no_gradient_through_the_peer(own):
    objective, networks = toy_objective({"dcm": {}}, heads=1)
    terms, outputs = objective(networks, toy_batch())
    gradient = torch.autograd.grad(terms["dcm/mutual"], outputs[own].logits)[0]
    peer = [*outputs[1 - own].head_logits, outputs[1 - own].logits]
    expected = sum(outputs[own].logits.softmax(1) - logits.softmax(1) for logits in peer) / BATCH
    torch.testing.assert_close(gradient, expected)


def test_dcm_heads_see_the_targets_of_their_own_network():
    """PS-KD softens those of the second network alone, since alone that one said anything yet."""
    objective, networks = toy_objective({"dcm": {}, "pskd": {"alpha": 1}}, heads=1)
    previous = torch.rand(SAMPLES, CLASSES, dtype=torch.float64).softmax(1)
    (pskd,) = (method for method in objective.methods if method.name == "pskd")
    pskd.tables[1] = previous
    terms, outputs = objective(networks, toy_batch())
    expected = 0.0
    for sample, (label, index) in enumerate(zip(LABELS, toy_batch().indices.tolist(), strict=True)):
        softened = [0.5 * t + 0.5 * p for t, p in zip(hard(label), rows(previous)[index], strict=True)]
        for output, target in zip(outputs, (hard(label), softened), strict=True):
            expected += ce(target, softmax(rows(output.head_logits[0])[sample])) / BATCH
    assert terms["dcm/cross_entropy"].item() == close(expected)


def test_pskd_mixes_in_what_the_network_said_one_epoch_ago():
    """Two networks, two epochs of three steps: every target, from the softmax before each update."""
    objective, networks = toy_objective({"pskd": {"alpha": 0.6}}, networks=2)
    networks.train()
    pskd = objective.methods[0]
    previous = [[hard(label) for label in toy_labels().tolist()] for _ in range(2)]
    for epoch in range(2):
        pskd.start_epoch(epoch, 5)
        weight = 0.6 * (epoch + 1) / 5
        tables = [list(table) for table in previous]
        for step in range(3):
            batch = toy_batch(10 * epoch + step)
            batch = batch._replace(indices=torch.arange(4 * step, 4 * step + 4))
            batch = batch._replace(labels=toy_labels()[batch.indices])
            before = [rows(network(batch.inputs).logits) for network in networks]
            expected = 0.0
            for network in range(2):
                for z, index, label in zip(before[network], batch.indices.tolist(), batch.labels.tolist(), strict=True):
                    mixed = [
                        (1 - weight) * t + weight * p
                        for t, p in zip(hard(label), previous[network][index], strict=True)
                    ]
                    expected += ce(mixed, softmax(z)) / BATCH
                    tables[network][index] = softmax(z)
            assert train_step(objective, networks, batch)["cross_entropy"].item() == close(expected)
        previous = tables
        for network in range(2):
            assert pskd.tables[network].shape == (SAMPLES, CLASSES)
            torch.testing.assert_close(pskd.tables[network], torch.tensor(tables[network], dtype=torch.float64))


def test_pskd_and_label_smoothing():
    """The smoothed label takes the label's place; the first epoch's prediction is the bare label."""
    terms, outputs, _ = run({"pskd": {"alpha": 0.8}, "label_smoothing": {}})
    weight = 0.8 * 2 / 4
    targets = [[(1 - weight) * (0.9 * t + 0.1 / CLASSES) + weight * t for t in hard(y)] for y in LABELS]
    expected = mean(ce(t, softmax(z)) for t, z in zip(targets, rows(outputs[0].logits), strict=True))
    assert terms["cross_entropy"] == close(expected)


@pytest.mark.parametrize("method", ["byot", "dmfl"])
def test_features_of_unequal_width_are_refused(method):
    objective, _ = toy_objective({method: {}}, heads=1)
    with pytest.raises(ValueError, match="a head has 4 feature channels and the deepest classifier 6"):
        objective([ToyNetwork(heads=1, head_width=4).double()], toy_batch())
