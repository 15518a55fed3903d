"""Tune the rows of a grid: their draws, then the rows as the draws that won have them, on the grid's own seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.grid import tuned
from orchestrator.grid.draws import draw_config, first_draws, fresh_draw, most_draws, sampler_seed, values_of
from orchestrator.planning import Work, as_measured, make_estimate
from orchestrator.records import draw_of
from orchestrator.stages.decision import Decision
from orchestrator.text import counted
from trainer.config import TrainConfig
from trainer.parts import METRICS

if TYPE_CHECKING:
    from orchestrator.database import Database
    from orchestrator.grid import Grid, Trial
    from orchestrator.grid.search import TunedRow, Tuning
    from orchestrator.grid.tuned import Winner
    from orchestrator.planning import Plan
    from orchestrator.records import Score

Facts = Mapping[str, Any]


def tune(grid: Grid, database: Database | None) -> Decision:
    """Return a grid with the draws of its rows, and with the winners of the rows whose draws have all ended.

    All draws of a random search stand in the file. Of a search by a model the file has the first; the later ones are
    asked for by a run or a timing, not by a plan, and from then on are trials of the grid in the database.
    """
    tuning = grid.tuning
    if tuning is None:
        return Decision(grid)
    stored: Facts = {}
    if database is not None:
        stored = next((row.report.get("tune") or {} for row in database.grids() if row.name == grid.name), {})
    if tuning.search != "random" and database is not None:
        grid = _searched(tuned.with_winners(grid, []), tuning, database, stored)
    scores = _scores(grid, tuning, database)
    decided = tuned.winners(grid, scores)
    grown = tuned.with_winners(grid, decided)
    results, before = grown.report["tune"]["rows"], stored.get("rows", {})
    news = [_news(tuning, winner) for winner in decided if results[winner.row.name] != before.get(winner.row.name)]
    is_over = {winner.row.name for winner in decided}
    waiting = [row for row in tuning.rows if row.name not in is_over]
    draws = tuned.draws_of(grid)
    missing = {row.name: most_draws(tuning, row) - len(draws[row.name]) for row in waiting}
    may_come = sum(missing.values()) + sum(len(row.seeds) for row in waiting)
    outlook = _outlook(tuning, draws, waiting, missing, database) if database is None or database.readonly else []
    return Decision(grown, tuple(news), tuple(outlook), may_come)


def counted_as_draws(grid: Grid, plan: Plan) -> int:
    """Return how many failed trials of a plan are draws that count all the same: their row has a winner."""
    rows = grid.report["tune"]["rows"] if grid.tuning else {}
    failed = [draw_of(entry.trial.name) for entry in plan.entries if entry.status == "failed"]
    return sum(rows[draw[0]].get("winner") is not None for draw in failed if draw is not None)


def _scores(grid: Grid, tuning: Tuning, database: Database | None) -> dict[str, Score]:
    keys = [trial.key for trial in grid.trials if trial.role == "draw"]
    return {} if database is None else database.scores(keys, tuning.metric, tuning.selection)


def _searched(grid: Grid, tuning: Tuning, database: Database, stored: Facts) -> Grid:
    """Return a grid with the draws that its database has of a search by a model, and with the next that are due."""
    facts = grid.report["tune"]
    draws: dict[str, list[TrainConfig]] = {row.name: list(first_draws(tuning, row)) for row in tuning.rows}
    if all(stored.get(name) == facts[name] for name in ("metric", "epochs", "seed", "search")):
        kept = _kept(database, grid.name)
        for row in tuning.rows:
            if stored["rows"].get(row.name, {}).get("spaces") == facts["rows"][row.name]["spaces"]:
                later = [config for number, config in sorted(kept.get(row.name, {}).items())]
                draws[row.name] += later[len(draws[row.name]) : tuning.draws]
    grid = tuned.with_draws(grid, draws)
    if database.readonly:
        return grid
    scores = _scores(grid, tuning, database)
    trials = tuned.draws_of(grid)
    for row in tuning.rows:
        ended = [(trial.config, scores[trial.key]) for trial in trials[row.name] if trial.key in scores]
        missing = most_draws(tuning, row) - len(trials[row.name])
        if missing and len(ended) == len(trials[row.name]) and all(score.state != "open" for _, score in ended):
            draws[row.name] += _asked(tuning, row, ended, min(missing, max(1, tuning.draws // 10)))
    return tuned.with_draws(grid, draws)


def _kept(database: Database, grid: str) -> dict[str, dict[int, TrainConfig]]:
    """Return the draws of a grid that its database has, by row and number."""
    kept: dict[str, dict[int, TrainConfig]] = {}
    for row in database.progress(grid):
        if (draw := draw_of(row.trial_name)) is not None:
            kept.setdefault(draw[0], {})[draw[1]] = TrainConfig(**row.config)
    return kept


def _asked(tuning: Tuning, row: TunedRow, ended: Sequence[tuple[TrainConfig, Score]], count: int) -> list[TrainConfig]:
    """Return the next draws of a row by the model; where it repeats a draw, a random one in its place."""
    from orchestrator.scheduler.search import suggest

    points = [(values_of(row, config), score.value) for config, score in ended]
    seed = sampler_seed(tuning, row)
    seen = {config.key() for config, _ in ended}
    fresh: list[TrainConfig] = []
    for values in suggest(row.spaces, points, count, seed=seed, higher=tuning.higher_is_better):
        config: TrainConfig | None = draw_config(tuning, row, values)
        if config is not None and config.key() in seen:
            config = fresh_draw(tuning, row, len(ended) + len(fresh), seen)
        if config is not None:
            seen.add(config.key())
            fresh.append(config)
    return fresh


def _news(tuning: Tuning, winner: Winner) -> str:
    name, facts = winner.row.name, METRICS[tuning.metric].facts
    if winner.number is None or winner.config is None:
        return f"tuning: all {counted(tuning.draws, 'draw')} of {name} failed, so that it has no tuned row; see triage"
    failed = f", {winner.failed} failed" if winner.failed else ""
    digits = 2 if facts.digits is None else facts.digits

    def shown(value: float | None) -> str:
        return "no value" if value is None else f"{value:.{digits}f}{' %' if facts.unit == '%' else ''}"

    if winner.number == 0:
        return (
            f"tuning: no draw of {name} is better than the row as it is ({tuning.metric} {shown(winner.value)}{failed})"
        )
    chosen = values_of(winner.row, winner.config)
    values = ", ".join(f"{space.name} {chosen[space.path]}" for space in winner.row.spaces)
    return (
        f"tuning: draw {winner.number} of {name} wins with {tuning.metric} {shown(winner.value)} on the validation "
        f"images, {shown(winner.default)} as it is{failed}: {values}"
    )


def _outlook(
    tuning: Tuning,
    draws: Mapping[str, Sequence[Trial]],
    waiting: Sequence[TunedRow],
    missing: Mapping[str, int],
    database: Database | None,
) -> list[str]:
    """Return lines for a plan: what the search costs, and what comes when it is over."""
    lines: list[str] = []
    total = sum(most_draws(tuning, row) for row in tuning.rows)
    epochs = f" of {counted(tuning.epochs, 'epoch')}" if tuning.epochs else ""
    cost = _cost([trial.config for some in draws.values() for trial in some], total, database)
    lines.append(
        f"tuning: {counted(tuning.draws, 'draw')} of {counted(len(tuning.rows), 'row')}{epochs} by {tuning.search} "
        f"search, {counted(total, 'trial')}{cost}"
    )
    for row in tuning.rows:
        if (most := most_draws(tuning, row)) < tuning.draws:
            lines.append(f"tuning: the spaces of {row.name} hold {counted(most, 'draw')}, which is all that it gets")
    if later := sum(missing.values()):
        lines.append(f"tuning: {counted(later, 'draw')} of these will be chosen by what the first ones come to")
    if waiting:
        winners = [row.config for row in waiting for _ in row.seeds]
        lines.append(
            f"tuning: then up to {counted(len(winners), 'trial')} more, the rows as their best draws have them, on the "
            f"grid's seeds{_cost(winners, len(winners), database)}"
        )
    return lines


def _cost(configs: Sequence[TrainConfig], count: int, database: Database | None) -> str:
    """Return the device-hours of trials, from what the database has measured; nothing without that."""
    if database is None or not configs:
        return ""
    measured = as_measured(database.measured())
    work = [Work(config.model_dump(mode="json"), config.epochs) for config in configs]
    estimate = make_estimate(work, measured, 1)
    if estimate is None:
        return ""
    return f", about {estimate.device_seconds * count / len(configs) / 3600:.3g} device-hours"
