"""Experiment trackers beside the database: which there are, what they need, and what they are told of an epoch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any, Literal, get_args

from orchestrator.exit_codes import BAD_INPUT
from orchestrator.scheduler.observer import Observer
from orchestrator.scheduler.options import RunOptions

Tracker = Literal["tensorboard", "mlflow", "wandb"]

# The module that each is written with; the extra of the same name installs it.
MODULES: dict[Tracker, str] = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}


class TrackerError(Exception):
    """A tracker cannot be used; the message says what is missing."""

    exit_code = BAD_INPUT


def check_trackers(names: Iterable[str]) -> None:
    """Raise TrackerError where one of these trackers does not exist or is not installed."""
    for name in names:
        if name not in MODULES:
            raise TrackerError(f"--log-to {name}: there is no such tracker (allowed: {', '.join(get_args(Tracker))})")
        module = MODULES[name]
        if find_spec(module) is None:
            raise TrackerError(
                f"--log-to {name} needs the package {module}, which is not installed: "
                f"pip install 'orchestrate-ablations[{name}]'"
            )


def flat_metrics(result: dict[str, Any]) -> dict[str, float]:
    """The finite numbers of an epoch (an `EpochResult` as a dict) by name: `loss/cross_entropy`, `test/main/nll`.

    The second of two networks has its number in the name: `test/1/main/nll`.
    """
    found = {name: result[name] for name in ("learning_rate", "train_seconds", "eval_seconds", "data_seconds")}
    found |= {f"loss/{name}": value for name, value in result["losses"].items()}
    for evaluation in result["evaluations"]:
        network = f"{evaluation['network']}/" if evaluation["network"] else ""
        place = f"{evaluation['split']}/{network}{evaluation['classifier']}"
        metrics = evaluation["metrics"] | {"ood_auroc": evaluation["ood_auroc"]}
        found |= {f"{place}/{name}": value for name, value in metrics.items()}
    return {name: float(value) for name, value in found.items() if value is not None and math.isfinite(value)}


def tracker_callbacks(options: RunOptions, observer: Observer) -> list[Any]:
    """Ray's own callbacks for experiment trackers, told of epochs alone.

    What goes wrong there is said once, and stops neither the trial nor the grid.
    """
    from ray import tune
    from ray.tune.logger import TBXLoggerCallback

    class Board(TBXLoggerCallback):
        def log_trial_start(self, trial: Any) -> None:
            # Ray would write to its own folder of the trial, which does not outlive the run.
            folder = options.logs.with_name("tensorboard") / str(trial)
            self._trial_writer[trial] = self._summary_writer_cls(str(folder), flush_secs=30)
            self._trial_result[trial] = {}

    def made(name: str) -> Any:
        if name == "tensorboard":
            return Board()  # type: ignore[no-untyped-call]
        if name == "mlflow":
            from ray.air.integrations.mlflow import MLflowLoggerCallback

            return MLflowLoggerCallback(experiment_name=options.grid)
        from ray.air.integrations.wandb import WandbLoggerCallback

        return WandbLoggerCallback(project=options.grid, excludes=["job"])

    class Told(tune.Callback):
        def __init__(self, name: str) -> None:
            self.name, self.inner, self.works = name, made(name), True

        def __reduce__(self) -> tuple[Any, ...]:
            return (object, ())

        def tell(self, hook: str, *arguments: Any, **named: Any) -> None:
            if not self.works:
                return
            try:
                getattr(self.inner, hook)(*arguments, **named)
            except Exception as error:
                self.works = False
                observer.note(f"{self.name} gets nothing more: {type(error).__name__}: {error}")

        def setup(self, *arguments: Any, **named: Any) -> None:
            self.tell("setup", *arguments, **named)

        def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            self.tell("log_trial_start", trial)

        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
        ) -> None:
            if result.get("kind") == "epoch" and not result["result"]["restored"]:
                step = result["result"]["epoch"] + 1
                metrics = flat_metrics(result["result"])
                self.tell("log_trial_result", step, trial, {"training_iteration": step, **metrics})

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            self.tell("log_trial_end", trial, failed=False)

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            self.tell("log_trial_end", trial, failed=True)

    return [Told(name) for name in options.trackers]
