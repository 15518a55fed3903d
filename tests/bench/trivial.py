"""Many trivial trials: `python -m tests.bench.trivial ours|reuse|fresh COUNT FOLDER` prints the seconds they took.

All three train the same tiny network and report three times; `reuse` and `fresh` are plain Ray Tune, with and without
actor reuse. Starting Ray is not counted.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from trainer.config import TrainConfig

SHAPE = {"dataset": "digits", "subset": 2, "width": 2, "epochs": 1, "batch_size": 20, "precision": "float32"}


def ours(count: int, folder: Path) -> float:
    """Seconds from Ray being ready to the last trial being recorded."""
    from orchestrator.database import driver_lock, open_database
    from orchestrator.grid import Resources, Trial
    from orchestrator.provenance import code_provenance
    from orchestrator.scheduler import Observer, RunOptions, run_trials

    configs = [TrainConfig(**SHAPE, seed=seed) for seed in range(count)]
    trials = [Trial(each.key(), f"seed{each.seed}", each, Resources(gpu=0, cpu=1)) for each in configs]
    began = 0.0

    def ready(url: str | None) -> None:
        nonlocal began
        began = time.perf_counter()

    options = RunOptions("bench", folder, folder / "checkpoints", folder / "logs", code_provenance(), dashboard=False)
    with open_database(folder / "results.db", create=True) as database, driver_lock(database, grid="bench") as driver:
        rows = [(trial.key, trial.config.model_dump(mode="json"), trial.name) for trial in trials]
        database.save_grid("bench", "bench.yaml", "", {}, rows)
        database.claim([trial.key for trial in trials], driver)
        last = [0.0]

        def finished(name: str) -> None:
            last[0] = time.perf_counter()

        summary = run_trials(database, trials, options, Observer(ready=ready, finished=finished))
    if len(summary.done) != count:
        raise RuntimeError(f"{summary.failed}")
    return last[0] - began


def plain(count: int, folder: Path, *, reuse: bool) -> float:
    """The same trials through Tune alone."""
    import os

    from orchestrator.scheduler.cluster import ENVIRONMENT, LOOPBACK

    os.environ.update(ENVIRONMENT | {LOOPBACK: "0"})
    import ray
    from ray import tune

    root = str(Path(__file__).resolve().parent.parent.parent)
    ray.init(
        include_dashboard=False, log_to_driver=False, logging_level="ERROR", object_store_memory=200 * 2**20,
        runtime_env={"env_vars": {"PYTHONPATH": root}},
    )  # fmt: skip

    def trainable(config: dict[str, Any]) -> None:
        import torch

        from trainer.train import train

        torch.set_num_threads(1)
        tune.report({"kind": "started"})
        train(TrainConfig(**SHAPE, seed=config["seed"]), lambda result: tune.report({"kind": "epoch"}))
        tune.report({"kind": "done"})

    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space={"seed": tune.grid_search(list(range(count)))},
        tune_config=tune.TuneConfig(reuse_actors=reuse),
        run_config=tune.RunConfig(name="plain", storage_path=str(folder), verbose=0),
    )
    began = time.perf_counter()
    results = tuner.fit()
    seconds = time.perf_counter() - began
    if results.num_errors:
        raise RuntimeError(str(results.errors[0]))
    ray.shutdown()
    return seconds


if __name__ == "__main__":
    case, count, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    taken = ours(count, folder) if case == "ours" else plain(count, folder, reuse=case == "reuse")
    print(json.dumps({"seconds": taken}))
