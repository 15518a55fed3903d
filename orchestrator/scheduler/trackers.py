"""Ray Tune callbacks for experiment trackers: one for each of TensorBoard, MLflow and wandb."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any, Literal, get_args

from orchestrator.errors import OrchestrateError
from orchestrator.scheduler.observer import Observer
from orchestrator.scheduler.options import RunOptions
from orchestrator.worker.messages import EpochDone, from_values
from trainer.results import EpochResult

Tracker = Literal["tensorboard", "mlflow", "wandb"]

# The Python module of each tracker; the extra of the tracker's name installs it.
MODULES: dict[Tracker, str] = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}


class TrackerError(OrchestrateError):
    """A tracker cannot be used; the message says what is missing."""


def check_trackers(names: Iterable[str]) -> None:
    """Raise TrackerError for a tracker that does not exist or is not installed."""
    for name in names:
        if name not in MODULES:
            raise TrackerError(f"--log-to {name}: there is no such tracker (allowed: {', '.join(get_args(Tracker))})")
        module = MODULES[name]
        if find_spec(module) is None:
            raise TrackerError(
                f"--log-to {name} needs the package {module}, which is not installed: "
                f"pip install 'orchestrate-ablations[{name}]'"
            )


def flat_metrics(result: EpochResult) -> dict[str, float]:
    """Return an epoch's finite numbers by name: `loss/cross_entropy`, `test/main/nll`.

    The second of two networks has its number in the name: `test/1/main/nll`.
    """
    numbers = {
        name: getattr(result, name) for name in ("learning_rate", "train_seconds", "eval_seconds", "data_seconds")
    }
    numbers |= {f"loss/{name}": value for name, value in result.losses.items()}
    for evaluation in result.evaluations:
        network = f"{evaluation.network}/" if evaluation.network else ""
        place = f"{evaluation.split}/{network}{evaluation.classifier}"
        metrics = asdict(evaluation.metrics) | {"ood_auroc": evaluation.ood_auroc}
        numbers |= {f"{place}/{name}": value for name, value in metrics.items()}
    return {name: float(value) for name, value in numbers.items() if value is not None and math.isfinite(value)}


def tracker_callbacks(options: RunOptions, observer: Observer) -> list[Any]:
    """Return a Tune callback for each experiment tracker."""
    from ray import tune
    from ray.tune.logger import TBXLoggerCallback

    class Board(TBXLoggerCallback):
        def log_trial_start(self, trial: Any) -> None:
            # Not Ray's own folder of the trial, which does not outlive the run.
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

    class TrackerCallback(tune.Callback):
        """Forwards epochs to a Ray logger callback. Its first error disables it with a note; training continues."""

        def __init__(self, name: str) -> None:
            self.name, self.inner, self.works = name, made(name), True

        def __reduce__(self) -> tuple[Any, ...]:
            return (object, ())

        def forward(self, hook: str, *arguments: Any, **named: Any) -> None:
            if not self.works:
                return
            try:
                getattr(self.inner, hook)(*arguments, **named)
            except Exception as error:
                self.works = False
                observer.note(f"{self.name} gets nothing more: {type(error).__name__}: {error}")

        def setup(self, *arguments: Any, **named: Any) -> None:
            self.forward("setup", *arguments, **named)

        def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            self.forward("log_trial_start", trial)

        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
        ) -> None:
            message = from_values(result)
            if isinstance(message, EpochDone) and not message.result.restored:
                step = message.result.epoch + 1
                metrics = flat_metrics(message.result)
                self.forward("log_trial_result", step, trial, {"training_iteration": step, **metrics})

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            self.forward("log_trial_end", trial, failed=False)

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            self.forward("log_trial_end", trial, failed=True)

    return [TrackerCallback(name) for name in options.trackers]
