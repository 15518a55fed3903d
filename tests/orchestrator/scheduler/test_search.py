"""A model's draws are nearer to the best of what it was told than draws at random, and the same for the same draws."""

from __future__ import annotations

import math
from statistics import fmean

import pytest

from orchestrator.grid.draws import Values, draw_config, random_values, values_of
from orchestrator.grid.search import Space, TunedRow, Tuning
from trainer.config import TrainConfig

pytest.importorskip("optuna", reason="optuna is not installed")

RATE, SCHEDULE = ("learning_rate",), ("schedule",)
SPACES = [
    Space(RATE, "log", (0.001, 1.0)),
    Space(SCHEDULE, "choice", ("steps", {"cosine": {}}, "linear")),
    Space(("batch_size",), "int", (16, 64)),
]


def error_of(values: Values) -> float:
    """The error of a draw: a rate of 0.03 and the second schedule are best."""
    return abs(math.log(values[RATE] / 0.03)) + 2 * (values[SCHEDULE] != {"cosine": {}})


def drawn(count: int) -> list[tuple[Values, float | None]]:
    """Return `count` random draws with their errors."""
    draws = [random_values(SPACES, 5, "row", number) for number in range(count)]
    return [(values, error_of(values)) for values in draws]


@pytest.mark.parametrize("higher", [False, True])
def test_a_model_learns_from_the_draws_that_ended(higher: bool) -> None:
    from orchestrator.scheduler.search import suggest

    sign = -1 if higher else 1
    ended = [(values, sign * score) for values, score in drawn(40) if score is not None]
    suggested = [values for seed in range(6) for values in suggest(SPACES, ended, 2, seed=seed, higher=higher)]
    assert fmean(map(error_of, suggested)) < 0.7 * fmean(sign * score for _, score in ended)
    assert all(0.001 <= values[RATE] <= 1 and 16 <= values[("batch_size",)] <= 64 for values in suggested)
    assert suggest(SPACES, ended, 2, seed=0, higher=higher) == suggested[:2]


def test_a_model_learns_where_a_choice_holds_lists_and_a_default() -> None:
    from orchestrator.scheduler.search import suggest

    # Of 8 epochs, 4 and 6 are the default, which a configuration has as None, and any other list as a tuple.
    choices = ([4, 6], [2, 3], [5, 7], [1, 2])
    spaces = (Space(("milestones",), "choice", choices), Space(("momentum",), "uniform", (0.5, 0.99)))
    config = TrainConfig(epochs=8)
    row = TunedRow("row", config.key(), config, (0,), (config.key(),), spaces)
    tuning = Tuning(40, "top1", None, 100, "optuna", "last", (row,))
    for best in choices:
        ended = [
            (values_of(row, draw), float(values["milestones",] != best) + values["momentum",] / 100)
            for number in range(40)
            for values in [random_values(spaces, 5, "row", number)]
            for draw in [draw_config(tuning, row, values)]
        ]
        suggested = [values for seed in range(10) for values in suggest(spaces, ended, 1, seed=seed, higher=False)]
        assert sum(values["milestones",] == best for values in suggested) >= 7


def test_draws_that_failed_or_lie_outside_of_the_spaces_are_no_obstacle() -> None:
    from orchestrator.scheduler.search import suggest

    failed: list[tuple[Values, float | None]] = [(values, None) for values, _ in drawn(5)]
    outside: Values = {RATE: 5.0, SCHEDULE: "steps", ("batch_size",): 1000}
    assert len(suggest(SPACES, [(outside, 1.0), *failed], 3, seed=1, higher=False)) == 3
