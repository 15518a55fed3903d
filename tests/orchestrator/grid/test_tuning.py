"""`tune:` gives every row of a grid the same number of draws, from spaces that are checked before anything runs."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.grid import Grid, load_grid, tuning
from orchestrator.grid.draws import random_values
from orchestrator.grid.search import Space
from orchestrator.grid.tuned import draws_of, winners, with_winners
from orchestrator.records import Score, draw_of, tuned_row_of
from tests.orchestrator.grid_files import load, problems

FIXED = {"dataset": "digits", "width": 8, "epochs": 6, "batch_size": 64, "learning_rate": 0.05, "validation": 300}
SPACES = {
    "*": {"learning_rate": {"log": [0.01, 0.3]}},
    "pskd": {"alpha": {"uniform": [0.3, 0.95]}},
    "byot": {"temperature": {"choice": [1, 2, 3, 4]}},
}
CONTENT: dict[str, Any] = {
    "fixed": FIXED,
    "grid": {"methods": ["baseline", "pskd", "byot+pskd"], "seed": [0, 1]},
    "tune": {"draws": 5, "epochs": 4, "seed": 7, "spaces": SPACES},
}


def tuned(**changes: Any) -> dict[str, Any]:
    """The content with other values of its section `tune`; None takes one away."""
    content = copy.deepcopy(CONTENT)
    content["tune"] = {name: value for name, value in (content["tune"] | changes).items() if value is not None}
    return content


def drawn(grid: Grid) -> dict[str, list[tuple[str, float, float | None]]]:
    """Key, learning rate and alpha of every draw, by row."""
    return {
        row: [(draw.key, draw.config.learning_rate, draw.config.methods.get("pskd", {}).get("alpha")) for draw in draws]
        for row, draws in draws_of(grid).items()
    }


def scored(grid: Grid, **values: list[float | None]) -> dict[str, Score]:
    """Scores of the draws of rows, given by the end of the row's name; None is a draw that failed."""
    scores = {}
    for row, draws in draws_of(grid).items():
        for draw, value in zip(draws, values.get(row.rpartition("/")[2].replace("+", "_"), ()), strict=False):
            scores[draw.key] = Score("failed", None, "diverged") if value is None else Score("done", value)
    return scores


def test_every_row_gets_as_many_draws_and_the_first_is_the_row_itself() -> None:
    grid = load(CONTENT)
    rows = ["resnet18/baseline", "resnet18/pskd", "resnet18/byot+pskd"]
    assert {row: len(draws) for row, draws in draws_of(grid).items()} == dict.fromkeys(rows, 5)
    for trial in (trial for trial in grid.trials if trial.role == "draw"):
        assert (trial.config.seed, trial.config.epochs, trial.config.validation) == (7, 4, 300)
        row, number = draw_of(trial.name) or ("", -1)
        default = next(trial.config for trial in grid.trials if trial.name == f"{row}/seed0")
        if number == 0:
            assert trial.config == default.model_copy(update={"seed": 7, "epochs": 4})
        else:
            assert 0.01 <= trial.config.learning_rate <= 0.3
            assert 0.3 <= trial.config.methods.get("pskd", {"alpha": 0.5}).get("alpha", 0.8) <= 0.95
    # The rows themselves are what they are without the search, and come first; then draw k of every row.
    plain = load({name: value for name, value in CONTENT.items() if name != "tune"})
    assert [trial.key for trial in grid.trials][:6] == [trial.key for trial in plain.trials]
    assert [trial.name for trial in grid.trials][6:12] == [f"{row}/draw{k}" for k in (0, 1) for row in rows]
    assert len({trial.key for trial in grid.trials}) == len(grid.trials) == 6 + 15


def test_draws_stay_when_more_are_asked_for_and_when_rows_come_and_go() -> None:
    draws = drawn(load(CONTENT))
    assert {row: more[:5] for row, more in drawn(load(tuned(draws=9))).items()} == draws
    without = copy.deepcopy(CONTENT)
    without["grid"]["methods"] = ["pskd", "byot+pskd+dmfl"]
    assert drawn(load(without))["resnet18/pskd"] == draws["resnet18/pskd"]
    assert drawn(load(tuned(seed=8)))["resnet18/pskd"][1:] != draws["resnet18/pskd"][1:]


def test_draws_are_what_they_are_on_every_machine() -> None:
    spaces = [
        Space(("learning_rate",), "log", (0.01, 0.3)),
        Space(("methods", "pskd", "alpha"), "uniform", (0.3, 0.95)),
        Space(("batch_size",), "int", (16, 64)),
        Space(("schedule",), "choice", ("steps", "cosine")),
    ]
    # sha256 of seed, row, number, attempt and name, its first 48 bits as a fraction of 2^48.
    assert random_values(spaces, 100, "row", 3) == {
        ("learning_rate",): 0.1447,
        ("methods", "pskd", "alpha"): 0.5786,
        ("batch_size",): 60,
        ("schedule",): "cosine",
    }
    many = [random_values(spaces, 100, "row", number) for number in range(2000)]
    rates = sorted(values[("learning_rate",)] for values in many)
    # The median of a logarithmic range is its geometric mean.
    assert rates[1000] == pytest.approx((0.01 * 0.3) ** 0.5, rel=0.1)
    assert {values[("batch_size",)] for values in many} == set(range(16, 65))
    assert sum(values[("schedule",)] == "cosine" for values in many) == pytest.approx(1000, abs=100)


def test_no_draw_of_a_row_is_drawn_twice_and_a_small_space_is_drawn_empty() -> None:
    content = tuned(
        draws=8, spaces={"*": {"weight_decay": {"choice": [0.0001, 0.001]}, "batch_size": {"int": [63, 65]}}}
    )
    grid = load(content)
    for draws in draws_of(grid).values():
        values = {(draw.config.weight_decay, draw.config.batch_size) for draw in draws}
        # The default has a weight decay of its own, so that there are 1 + 2 * 3.
        assert len(values) == len(draws) == 7


def test_the_winner_is_the_best_on_validation_images_and_the_default_wins_a_tie() -> None:
    grid = load(CONTENT)
    scores = scored(grid, baseline=[4.0, 5.0, 4.0, 6.0, 4.5], pskd=[4.0, None, 3.0, 5.0, 3.0], byot_pskd=[None] * 5)
    decided = winners(grid, scores)
    assert [(winner.number, winner.value, winner.default, winner.failed) for winner in decided] == [
        (0, 4.0, 4.0, 0),
        (2, 3.0, 4.0, 1),
        (None, None, None, 5),
    ]
    grown = with_winners(grid, decided)
    new = grown.trials[len(grid.trials) :]
    # On the grid's own seeds and epochs, and never that of the search; the default needs no further trial.
    assert [(trial.name, trial.config.seed, trial.config.epochs) for trial in new] == [
        ("resnet18/pskd/tuned/seed0", 0, 6),
        ("resnet18/pskd/tuned/seed1", 1, 6),
    ]
    assert [tuned_row_of(trial.name) for trial in new] == ["resnet18/pskd"] * 2
    draw = draws_of(grid)["resnet18/pskd"][2].config
    assert (new[0].config.learning_rate, new[0].config.methods) == (draw.learning_rate, draw.methods)
    rows = grown.report["tune"]["rows"]
    assert [rows[name]["winner"] for name in rows] == [0, 2, None]
    assert rows["resnet18/pskd"]["values"] == {
        "learning_rate": draw.learning_rate,
        "methods.pskd.alpha": draw.methods["pskd"]["alpha"],
    }
    # A second time, with the same results, it is the same grid.
    assert with_winners(grown, winners(grown, scores)) == grown


def test_a_row_without_all_of_its_draws_has_no_winner_yet() -> None:
    grid = load(CONTENT)
    scores = scored(grid, baseline=[4.0, 5.0, 4.0, 6.0], pskd=[4.0, 3.0, 2.0, 1.0, 0.5])
    assert [winner.row.name for winner in winners(grid, scores)] == ["resnet18/pskd"]


def test_a_metric_of_which_more_is_better_has_the_highest_winner(tmp_path: Path) -> None:
    code = """from trainer import metric

@metric("agreement", title="Agreement", direction="higher")
def agreement(probabilities, labels):
    return 1.0
"""
    (tmp_path / "own.py").write_text(code)
    content = tuned(metric="agreement") | {"name": "own", "plugins": ["own.py"], "metrics": ["agreement"]}
    (tmp_path / "own.yaml").write_text(json.dumps(content))
    grid = load_grid(tmp_path / "own.yaml")
    assert [winner.number for winner in winners(grid, scored(grid, pskd=[0.1, 0.5, None, 0.9, 0.9]))] == [3]


def test_the_rule_of_selection_is_by_validation_images() -> None:
    assert load(CONTENT).report["selection"] == "best_val"
    assert load(CONTENT | {"report": {"selection": "mean_last_2"}}).report["selection"] == "mean_last_2"
    (message,) = problems(CONTENT | {"report": {"selection": "best_test"}})
    assert "report.selection: best_test chooses epochs by test images" in message and "write best_val" in message


def test_tables_of_a_tuned_grid_have_a_field_for_it() -> None:
    table = {
        "name": "mine",
        "rows": ["methods", "tuning"],
        "columns": ["top1", {"top1": {"minus": {"tuning": "default"}, "key": "gain"}}],
    }
    assert load(CONTENT | {"report": {"tables": [table]}}).report["tables"]
    (message,) = problems(CONTENT | {"report": {"tables": [table | {"rows": ["methods"]}]}})
    assert "tuning varies (default, tuned) and has no place" in message
    plain = {name: value for name, value in CONTENT.items() if name != "tune"}
    assert any("unknown field 'tuning'" in message for message in problems(plain | {"report": {"tables": [table]}}))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"draws": 1}, "tune.draws: 1 is not a whole number from 2 to 1,000 (draw 0 is the default, so 2 at least)"),
        ({"draws": None}, "tune: has no draws; write draws: 20, or so"),
        ({"spaces": None}, "tune: has no spaces; write spaces: "),
        ({"drawn": 3}, "tune.drawn: unknown key 'drawn'; did you mean 'draws'?"),
        ({"seed": 1}, "tune.seed: 1 is a seed of the grid"),
        ({"metric": "top"}, "tune.metric: unknown metric 'top'; did you mean"),
        ({"search": "optun"}, "tune.search: unknown search 'optun'; did you mean 'optuna'?"),
        ({"epochs": 0}, "tune.epochs: 0 is not a whole number from 1 to 1,000,000"),
        (
            {"spaces": {"*": {"lr": {"log": [0.1, 1]}}}},
            "tune.spaces.*.lr: unknown field 'lr'; did you mean 'learning_rate'?",
        ),
        ({"spaces": {"*": {"alpha": {"log": [0.1, 1]}}}}, "tune.spaces.*.alpha: is a hyperparameter of"),
        (
            {"spaces": {"pskt": {"alpha": {"log": [0.1, 1]}}}},
            "tune.spaces.pskt: unknown method 'pskt'; did you mean 'pskd'?",
        ),
        (
            {"spaces": {**SPACES, "pskd": {"alhpa": {"log": [0.1, 1]}}}},
            "tune.spaces.pskd.alhpa: unknown hyperparameter of pskd 'alhpa'; did you mean 'alpha'?",
        ),
        ({"spaces": {"*": {"epochs": {"int": [1, 5]}}}}, "tune.spaces.*.epochs: says what is compared"),
        (
            {"spaces": {"*": {"learning_rate": [0.1, 1]}}},
            "tune.spaces.*.learning_rate: [0.1, 1] is not a space; write one of",
        ),
        ({"spaces": {"*": {"learning_rate": {"lgo": [0.1, 1]}}}}, "unknown kind of space 'lgo'; did you mean 'log'?"),
        ({"spaces": {"*": {"learning_rate": {"log": [0.3, 0.1]}}}}, "the low end comes first"),
        ({"spaces": {"*": {"learning_rate": {"log": [0, 0.1]}}}}, "a logarithmic range begins above 0"),
        ({"spaces": {"*": {"learning_rate": {"log": [0.1, "a"]}}}}, "is not a range; give two numbers: [low, high]"),
        ({"spaces": {"*": {"batch_size": {"int": [16, 64.5]}}}}, "is not a range; give two whole numbers"),
        (
            {"spaces": {"*": {"momentum": {"uniform": [0.5, 1.5]}}}},
            "tune.spaces.*.momentum.uniform: 1.5 is too large; it must be less than 1",
        ),
        ({"spaces": {"*": {"batch_size": {"uniform": [16.5, 64]}}}}, "write {int: [low, high]}"),
        (
            {"spaces": {"*": {"schedule": {"choice": ["cosine", "consine"]}}}},
            "unknown schedule 'consine'; did you mean 'cosine'?",
        ),
        ({"spaces": {"*": {"schedule": {"choice": ["cosine"]}}}}, "is not a list of two different values"),
        (
            {"spaces": {**SPACES, "mixup": {"alpha": {"uniform": [0.1, 1]}}}},
            "tune.spaces.mixup: no row of this grid trains with it",
        ),
        ({"spaces": {"pskd": SPACES["pskd"]}}, "row resnet18/baseline has nothing to tune"),
        (
            {
                "spaces": {
                    **SPACES,
                    "pskd": {"learning_rate": {"log": [0.01, 0.1]}},
                    "byot": {"learning_rate": {"log": [0.1, 0.2]}},
                }
            },
            "has another space under",
        ),
    ],
)
def test_a_mistake_is_said_with_its_line_and_what_to_write(changes: dict[str, Any], expected: str) -> None:
    messages = problems(tuned(**changes))
    assert any(expected in message for message in messages), messages
    assert all(message.split(":")[0].isdecimal() for message in messages)


def test_a_search_by_a_model_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "find_spec", lambda name: None)
    (message,) = problems(tuned(search="optuna"))
    assert "tune.search: optuna is not installed: pip install 'orchestrate-ablations[optuna]'" in message


def test_a_search_and_seeds_by_a_rule_do_not_go_together() -> None:
    content = tuned()
    del content["grid"]["seed"]
    messages = problems(content | {"seeds": {"start": 3, "step": 2, "most": 9}})
    assert any("none may come by a rule" in message for message in messages), messages


@pytest.mark.parametrize(("section", "expected"), [(None, "is empty; write {draws: 20"), ("no", "is not a mapping")])
def test_a_section_that_is_none_is_refused(section: Any, expected: str) -> None:
    (message,) = problems(CONTENT | {"tune": section})
    assert message.startswith("1: tune: ") and expected in message


def test_without_validation_images_nothing_is_tuned() -> None:
    content = copy.deepcopy(CONTENT)
    del content["fixed"]["validation"]
    wrong = problems(content)
    error = "tune: a draw is judged on validation images alone, and 6 trials hold out none; add validation: 5000, or so"
    assert any(error in line for line in wrong), wrong


def test_rows_that_the_search_would_make_one_are_refused() -> None:
    content = copy.deepcopy(CONTENT)
    del content["fixed"]["learning_rate"]
    content["grid"] = {"learning_rate": [0.05, 0.1]}
    content["tune"]["spaces"] = {"*": SPACES["*"]}
    (message,) = problems(content)
    assert "differ in nothing but what is tuned (learning_rate); leave one of them out" in message
    # Beside something else that differs, the rate of each network is its own.
    del content["grid"]
    content["grid"] = {"zip": {"network": ["resnet18", "resnet50"], "learning_rate": [0.05, 0.1]}}
    assert len(load(content).trials) == 2 + 10


def test_a_space_of_a_method_takes_the_place_of_that_for_all_rows() -> None:
    content = tuned(
        spaces={
            **SPACES,
            "pskd": {"learning_rate": {"log": [0.001, 0.002]}},
            "baseline": {"momentum": {"uniform": [0.1, 0.2]}},
        }
    )
    draws = draws_of(load(content))
    assert all(draw.config.learning_rate <= 0.002 for draw in draws["resnet18/pskd"][1:])
    assert all(draw.config.learning_rate >= 0.01 for draw in draws["resnet18/baseline"])
    assert all(draw.config.momentum <= 0.2 for draw in draws["resnet18/baseline"][1:])
