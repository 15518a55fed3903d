"""Add the trials of a tuning to its grid: the draws, and the rows as the draws that won have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.grid.draws import most_draws, values_of, winner_config
from orchestrator.grid.search import TunedRow
from orchestrator.grid.trial import Grid, Trial
from orchestrator.records import Score
from trainer.config import TrainConfig


@dataclass(frozen=True)
class Winner:
    """The draw that won a row, by its number (None: all draws failed), and its score beside that of draw 0."""

    row: TunedRow
    number: int | None
    value: float | None
    default: float | None
    config: TrainConfig | None
    failed: int


def with_draws(grid: Grid, draws: Mapping[str, Sequence[TrainConfig]]) -> Grid:
    """Return a grid with the draws of its rows, by name, in place of those that it has; draw k of all rows first."""
    assert grid.tuning is not None
    trials = [trial for trial in grid.trials if trial.role == "row"]
    resources = {trial.key: trial.resources for trial in trials}
    for number in range(max(map(len, draws.values()), default=0)):
        for row in grid.tuning.rows:
            if number < len(draws[row.name]):
                config = draws[row.name][number]
                name = f"{row.name}/draw{number}"
                trials.append(Trial(config.key(), name, config, resources[row.keys[0]], "draw"))
    return _described(replace(grid, trials=trials), [])


def draws_of(grid: Grid) -> dict[str, list[Trial]]:
    """Return the draws of a grid by the name of their row, in order."""
    names = [row.name for row in grid.tuning.rows] if grid.tuning else []
    draws: dict[str, list[Trial]] = {name: [] for name in names}
    for trial in grid.trials:
        if trial.role == "draw":
            draws[trial.name.rpartition("/draw")[0]].append(trial)
    return draws


def winners(grid: Grid, scores: Mapping[str, Score]) -> list[Winner]:
    """Return the winner of every row whose draws have all ended, by the draws' keys: the best value, the first of it.

    A row whose draws are not all there yet, or not all over, has none.
    """
    tuning = grid.tuning
    assert tuning is not None
    decided, every = [], draws_of(grid)
    for row in tuning.rows:
        draws = every[row.name]
        ended = [scores.get(trial.key, Score("open")) for trial in draws]
        # Of a random search the file alone decides the draws, and has all of them.
        asked = len(draws) if tuning.search == "random" else most_draws(tuning, row)
        if len(draws) < asked or any(score.state == "open" for score in ended):
            continue
        sign = -1 if tuning.higher_is_better else 1
        ranked = sorted((sign * score.value, number) for number, score in enumerate(ended) if score.value is not None)
        number = ranked[0][1] if ranked else None
        decided.append(
            Winner(
                row,
                number,
                None if number is None else ended[number].value,
                ended[0].value,
                None if number is None else draws[number].config,
                sum(score.value is None for score in ended),
            )
        )
    return decided


def with_winners(grid: Grid, decided: Sequence[Winner]) -> Grid:
    """Return a grid with the rows that are decided as tuned, on the grid's seeds.

    A row that draw 0 won is tuned as it is, and needs no further trial.
    """
    trials = [trial for trial in grid.trials if trial.role != "tuned"]
    resources = {trial.key: trial.resources for trial in trials}
    for winner in decided:
        if winner.number and winner.config is not None:
            for seed in winner.row.seeds:
                config = winner_config(winner.row, winner.config, seed)
                name = f"{winner.row.name}/tuned/seed{seed}"
                trials.append(Trial(config.key(), name, config, resources[winner.row.keys[0]], "tuned"))
    return _described(replace(grid, trials=trials), decided)


def _described(grid: Grid, decided: Sequence[Winner]) -> Grid:
    """Return a grid whose report section has what tables say of the tuning, in JSON's types."""
    tuning = grid.tuning
    assert tuning is not None
    draws, results = draws_of(grid), {winner.row.name: _result(winner) for winner in decided}
    facts = {name: getattr(tuning, name) for name in ("draws", "metric", "epochs", "seed", "search", "selection")}
    rows = {
        row.name: {
            "draws": len(draws[row.name]),
            "spaces": {".".join(space.path): {space.kind: list(space.values)} for space in row.spaces},
            **results.get(row.name, {}),
        }
        for row in tuning.rows
    }
    return replace(grid, report={**grid.report, "tune": {**facts, "rows": rows}})


def _result(winner: Winner) -> dict[str, Any]:
    values = values_of(winner.row, winner.config) if winner.config is not None else {}
    return {
        "winner": winner.number,
        "failed": winner.failed,
        "values": {
            ".".join(path): list(value) if isinstance(value, tuple) else value for path, value in values.items()
        },
    }
