"""The hyperparameters of methods: what is refused, and one way to say each."""

import math

import pytest
from pydantic import ValidationError

from trainer.config import TrainConfig
from trainer.objective import build_methods


@pytest.mark.parametrize("method", ["byot", "dmfl", "dcm"])
def test_networks_without_heads_are_refused(method):
    with pytest.raises(ValueError, match=f"^{method} .*this network has none"):
        build_methods({method: {}})[0].resolve(0)


@pytest.mark.parametrize(
    ("given", "heads", "resolved"),
    [(None, 3, None), ([1, 2, 3], 3, None), ([3, 1, 3], 3, (1, 3)), ([1], 1, None), ([2], 2, (2,))],
)
def test_byot_blocks_are_canonical(given, heads, resolved):
    assert build_methods({"byot": {"blocks": given}})[0].resolve(heads).blocks == resolved


@pytest.mark.parametrize(
    ("blocks", "heads", "message"),
    [([4], 3, "no block 4 .* allowed: 1 to 3"), ([0, 1], 2, "no block 0 .* 1 to 2"), ([2], 1, "no block 2 .* only 1")],
)
def test_byot_blocks_that_do_not_exist_are_refused(blocks, heads, message):
    with pytest.raises(ValueError, match=message):
        build_methods({"byot": {"blocks": blocks}})[0].resolve(heads)


@pytest.mark.parametrize(
    ("method", "wrong"),
    [
        ("label_smoothing", {"smoothing": 1.5}),
        ("cskd", {"temperature": 0}),
        ("cskd", {"weight": math.inf}),
        ("tfkd", {"variant": "other"}),
        ("tfkd", {"alpha": math.nan}),
        ("tfkd", {"confidence": 1}),
        ("pskd", {"alpha": -0.1}),
        ("byot", {"blocks": []}),
        ("byot", {"feature_weight": -1}),
        ("dmfl", {"variant": "published"}),
        ("dml", {"temperature": 1}),
        ("dcm", {"blocks": [1]}),
    ],
)
def test_wrong_hyperparameters_are_refused(method, wrong):
    with pytest.raises(ValidationError) as error:
        build_methods({method: wrong})
    assert error.value.errors()[0]["loc"][0] == next(iter(wrong))


def test_tfkd_settings_are_canonical_and_none_is_left_unused():
    for variant, published in (("self", (0.95, 6)), ("virtual", (0.1, 20))):
        given = {"variant": variant, "alpha": published[0], "temperature": published[1]}
        assert build_methods({"tfkd": given})[0].resolve(0) == build_methods({"tfkd": {"variant": variant}})[0]
    with pytest.raises(ValueError, match=r"confidence: 0.9 is not used by variant 'self'"):
        build_methods({"tfkd": {"confidence": 0.9}})[0].resolve(0)


def test_only_self_training_needs_a_teacher():
    assert TrainConfig(methods={"tfkd": {}}).requires.teacher
    assert not TrainConfig(methods={"tfkd": {"variant": "virtual"}}).requires.teacher
