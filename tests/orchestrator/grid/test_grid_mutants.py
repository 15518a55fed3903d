"""Thousands of damaged grid files: each loads, or is refused with a place in the file. Never another exception."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.grid import GridError
from orchestrator.grid.document import compose
from tests.orchestrator.grid_files import SHIPPED, load
from tests.orchestrator.grid_mutants import SEEDS, mutant
from trainer.config import TrainConfig

# Hundreds of each kind are tried with every change, thousands with the slow tests.
FEW = [*range(3), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 8))]


def judge(data: bytes) -> bool:
    """Return whether a file loads; fail where one is refused without places in the file."""
    try:
        grid = load(data)
    except GridError as error:
        assert error.problems
        lines = len(data.splitlines()) + 1
        for problem in error.problems:
            assert problem.line is not None and 1 <= problem.line <= lines, problem
            assert problem.column is None or problem.column >= 1
            assert problem.message and "\n" not in str(problem) and len(str(problem)) < 1500
        return False
    assert grid.trials and len({trial.name for trial in grid.trials}) == len(grid.trials)
    return True


@pytest.mark.parametrize("seed", FEW)
def test_mutants_of_grid_files_load_or_are_refused(seed: int):
    generator = random.Random(seed)
    loaded = sum(judge(mutant(generator.choice(SEEDS), generator)) for _ in range(300))
    assert 10 < loaded < 290


ODD = [
    *(None, True, False, 0, -1, 1, 2**70, 0.5, -0.0, 1e-300, 1e300, "", "no", "null", "baseline", "pskd+byot"),
    *("..", "/", "resnet50", "digits", "a" * 300, "\u202e", [], {}, [[]], [None], {"": None}, {"powerset": ["pskd"]}),
    *({"byot": {"blocks": [1]}}, {"pskd": None}, ["pskd", "pskd"], [[1, 2], [3]], "1e-3", "0x10", [{"seed": 1}]),
]
NAMES = [
    "network",
    "methods",
    "seed",
    "peer",
    "heads",
    "stages",
    "fixed",
    "grid",
    "exclude",
    "name",
    "powerset",
    "x",
    "",
]


def structural_mutant(value, generator: random.Random):
    """The content of a file with one value, key or item replaced, removed or doubled somewhere."""
    if not isinstance(value, (dict, list)) or not value or generator.random() < 0.15:
        return generator.choice(ODD)
    if isinstance(value, dict):
        key = generator.choice(list(value))
        kind = generator.randrange(5)
        if kind == 0:
            return {name: child for name, child in value.items() if name != key}
        if kind == 1:
            return {generator.choice(NAMES) if name == key else name: child for name, child in value.items()}
        if kind == 2:
            return {**value, generator.choice(NAMES): generator.choice(ODD)}
        return {**value, key: structural_mutant(value[key], generator)}
    place = generator.randrange(len(value))
    kind = generator.randrange(4)
    if kind == 0:
        return value[:place] + value[place + 1 :]
    if kind == 1:
        return [*value, value[place]]
    return [*value[:place], structural_mutant(value[place], generator), *value[place + 1 :]]


@pytest.mark.parametrize("seed", FEW)
def test_mutants_of_the_content_load_or_are_refused(seed: int):
    generator = random.Random(seed)
    contents = [compose(str(path), path.read_text())[0].plain() for path in SHIPPED]
    loaded = 0
    for _ in range(250):
        content = generator.choice(contents)
        for _ in range(generator.choice((1, 1, 2))):
            content = structural_mutant(content, generator)
        loaded += judge(json.dumps(content, indent=1).encode())
    assert 10 < loaded < 240


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.sampled_from(NAMES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | st.text(), inner, max_size=3),
    max_leaves=12,
)
SECTIONS = st.fixed_dictionaries(
    {"name": st.just("x") | JSON},
    optional={
        "fixed": st.dictionaries(st.sampled_from([*TrainConfig.model_fields]), JSON, max_size=3) | JSON,
        "grid": st.dictionaries(st.sampled_from([*TrainConfig.model_fields]), JSON, max_size=3) | JSON,
        "exclude": st.lists(st.dictionaries(st.sampled_from([*TrainConfig.model_fields]), JSON, max_size=2)) | JSON,
        "resources": st.dictionaries(st.sampled_from(["gpu", "cpu", "per_network"]), JSON) | JSON,
        "report": st.dictionaries(st.sampled_from(["tables", "figures", "selection"]), JSON) | JSON,
    },
)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode(errors="replace")))
def test_any_bytes_load_or_are_refused(data: bytes):
    judge(data)


@settings(max_examples=200, deadline=None)
@given(SECTIONS)
def test_any_values_load_or_are_refused(content: dict):
    judge(json.dumps(content).encode())
