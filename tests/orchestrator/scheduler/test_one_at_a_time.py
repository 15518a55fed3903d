"""The number of trials that Tune is asked to run at once, by what they are run for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.scheduler import Observer, RunOptions, trials
from orchestrator.scheduler.cluster import Cluster
from tests.orchestrator.grid_files import load

if TYPE_CHECKING:
    # Tune takes two seconds to load, in every process that collects the tests.
    from ray import tune


@pytest.mark.parametrize(("timing", "at_once"), [(True, 1), (False, None)])
def test_measured_trials_have_a_machine_of_many_gpus_to_themselves(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, timing: bool, at_once: int | None
) -> None:
    asked: list[tune.TuneConfig] = []

    class Tuner:
        def __init__(self, *_: Any, tune_config: tune.TuneConfig, **__: Any) -> None:
            asked.append(tune_config)

        def fit(self) -> None:
            pass

    @contextmanager
    def ray_cluster(options: RunOptions) -> Iterator[Cluster]:
        yield Cluster([{"CPU": 64.0, "GPU": 8.0}], None)

    monkeypatch.setattr("ray.tune.Tuner", Tuner)
    monkeypatch.setattr(trials, "ray_cluster", ray_cluster)
    members = load({"grid": {"seed": [0, 1, 2]}, "resources": {"cpu": 4}}).trials
    options = RunOptions("test", tmp_path, tmp_path, tmp_path, {"code_digest": "0"}, canaries=False, dashboard=False)
    if timing:
        trials.time_trials(None, members, options, Observer(), warm_up=1, timed=1)
    else:
        trials.run_trials(None, members, options, Observer())
    assert [config.max_concurrent_trials for config in asked] == [at_once]
