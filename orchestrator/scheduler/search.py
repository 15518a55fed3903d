"""Ask Ray Tune's searcher for draws: Optuna's model of a row, fed with the draws that have ended."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.grid.draws import Values
    from orchestrator.grid.search import Space


def suggest(
    spaces: Sequence[Space], ended: Sequence[tuple[Values, float | None]], count: int, *, seed: int, higher: bool
) -> list[Values]:
    """Return the values of the next draws of a row, a pure function of the arguments.

    `ended` are the draws so far, in order, with their score; one without a score failed, and its values are not to be
    preferred. `higher` says that a higher score is better. The model is new for every call, so that a run that was
    killed goes on with the same draws.
    """
    import optuna
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("ray.tune.search.optuna").setLevel(logging.ERROR)
    names = {str(place): space for place, space in enumerate(spaces)}

    def domain(space: Space) -> Any:
        low, high = space.values[0], space.values[-1]
        if space.kind == "choice":
            # By place: a choice may be a list or a mapping, which a model takes for none of its values.
            return tune.choice(list(range(len(space.values))))
        if space.kind == "int":
            return tune.randint(low, high + 1)
        return tune.loguniform(low, high) if space.kind == "log" else tune.uniform(low, high)

    def asked(space: Space, value: Any) -> Any:
        return list(space.values).index(value) if space.kind == "choice" else value

    # The first draws are random ones that depend on no result, so the model need not draw at random itself.
    sampler = optuna.samplers.TPESampler(seed=seed + len(ended), n_startup_trials=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        searcher = OptunaSearch(
            {name: domain(space) for name, space in names.items()},
            metric="score",
            mode="max" if higher else "min",
            sampler=sampler,
        )
        for values, score in ended:
            # The default of a row may lie outside of its spaces, and the model knows nothing outside of them.
            if all(_inside(space, values[space.path]) for space in spaces):
                point = {name: asked(space, values[space.path]) for name, space in names.items()}
                searcher.add_evaluated_point(point, 0.0 if score is None else score, error=score is None)
        suggested = [searcher.suggest(str(number)) for number in range(count)]
    return [{space.path: _value(space, point[name]) for name, space in names.items()} for point in suggested if point]


def _inside(space: Space, value: Any) -> bool:
    if space.kind == "choice":
        return value in space.values
    return bool(space.values[0] <= value <= space.values[1])


def _value(space: Space, value: Any) -> Any:
    from orchestrator.grid.draws import rounded

    if space.kind == "choice":
        return space.values[int(value)]
    return int(value) if space.kind == "int" else rounded(space, float(value))
