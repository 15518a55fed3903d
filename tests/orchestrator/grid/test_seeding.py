"""The section `seeds` of a grid file: the rule, its pairs, and what is wrong with it."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.grid import Grid
from tests.orchestrator.grid_files import load, problems

RULE = {"start": 3, "step": 2, "most": 8, "against": "baseline"}
GRID = {"grid": {"network": ["resnet18", "resnet34"], "methods": ["baseline", "pskd", "byot"]}, "seeds": RULE}


def pairs(grid: Grid) -> list[tuple[str, str]]:
    assert grid.seeds is not None
    return [
        (grid.rows[row][0].name.removesuffix("/seed0"), grid.rows[other][0].name.removesuffix("/seed0"))
        for row, other in grid.seeds.pairs
    ]


def test_a_rule_gives_the_first_seeds_and_knows_the_others() -> None:
    grid = load(GRID)
    assert grid.seeds is not None and grid.seeds.looks == (3, 5, 7, 8) and grid.seeds.metric == "top1"
    assert [trial.name for trial in grid.trials[:4]] == [
        "resnet18/baseline/seed0",
        "resnet18/baseline/seed1",
        "resnet18/baseline/seed2",
        "resnet18/pskd/seed0",
    ]
    assert len(grid.trials) == 6 * 3 and all(len(members) == 8 for members in grid.rows.values())
    assert pairs(grid) == [
        ("resnet18/pskd", "resnet18/baseline"),
        ("resnet18/byot", "resnet18/baseline"),
        ("resnet34/pskd", "resnet34/baseline"),
        ("resnet34/byot", "resnet34/baseline"),
    ]
    # A trial is the same one as in a file that lists its seeds, and the rule is stored with the grid.
    listed = load({"grid": {**GRID["grid"], "seed": [0, 1, 2]}})
    assert [trial.key for trial in grid.trials] == [trial.key for trial in listed.trials]
    assert [trial.name for trial in grid.trials] == [trial.name for trial in listed.trials]
    assert grid.report["seeds"] == {**RULE, "metric": "top1", "selection": "best_test"}
    assert listed.seeds is None and listed.rows == {}


def test_any_field_may_be_what_rows_are_compared_by() -> None:
    rates = {"grid": {"learning_rate": [0.1, 0.05], "methods": ["baseline", "pskd"]}}
    grid = load({**rates, "seeds": {"most": 4, "against": {"learning_rate": 0.1}}})
    assert [(row.split("/")[1:], other.split("/")[1:]) for row, other in pairs(grid)] == [
        (["baseline", "learning_rate0.05"], ["baseline", "learning_rate0.1"]),
        (["pskd", "learning_rate0.05"], ["pskd", "learning_rate0.1"]),
    ]
    assert load({**GRID, "set": {"seeds.most": 5}}).seeds.looks == (3, 5)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"seeds": [0, 1]}, "seeds: [0, 1] is no rule; a list of seeds stands under `grid`"),
        ({"seeds": {"start": 3}}, "seeds: has no most"),
        ({"seeds": RULE | {"most": 3}}, "seeds.most: 3 is no number of seeds from 4 to 100 (more than the 3"),
        ({"seeds": RULE | {"start": 1}}, "seeds.start: 1 is no number of seeds from 2"),
        ({"seeds": RULE | {"step": 0.5}}, "seeds.step: 0.5 is no number of seeds from 1"),
        ({"seeds": RULE | {"metric": "top2"}}, "seeds.metric: "),
        ({"seeds": RULE | {"against": "cskd"}}, "seeds.against: 'cskd' is no row of this grid"),
        ({"seeds": RULE | {"against": {"methot": 1}}}, "did you mean 'methods'"),
        ({"seeds": RULE | {"stop": 9}}, "did you mean 'step'"),
        ({"fixed": {"seed": 1}}, "fixed.seed: seeds come by the rule of `seeds`"),
        ({"grid": {**GRID["grid"], "seed": [0, 1]}}, "grid.seed: seeds come by the rule of `seeds`"),
        ({"grid": {"methods": ["baseline"]}}, "seeds.against: is every row of this grid"),
        ({"exclude": [{"network": "resnet34", "methods": "baseline"}]}, "2 rows have no such row to be compared with"),
        ({"grid": {"methods": ["baseline", {"pskd": {"alpha": 0.5}}, "pskd"]}, "seeds": RULE | {"against": "pskd"}},
         "are several rows that differ in nothing else"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_place(change: dict[str, Any], expected: str) -> None:
    messages = problems({**GRID, **change})
    assert any(expected in line for line in messages), messages


def test_a_row_whose_name_is_cut_is_named_as_well_as_it_can_be() -> None:
    long = {
        "byot": {"temperature": 3.123456789012345, "alpha": 0.123456789012345, "feature_weight": 0.123456789012345},
        "cskd": {"temperature": 3.123456789012345, "weight": 0.123456789012345},
        "mixup": {"alpha": 0.123456789012345},
        "label_smoothing": {"smoothing": 0.123456789012345},
    }
    grid = {"grid": {"network": ["resnet18", "resnet34"], "methods": ["baseline", long]}, "seeds": RULE}
    (message,) = problems({**grid, "exclude": [{"network": "resnet34", "methods": "baseline"}]})
    assert "1 row has no such row to be compared with, for example resnet34/byot[temperature=3.12345" in message
