"""A results database with made-up numbers that are the same every time, in every state that a report has to show."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert, select

from orchestrator.database import Database, PartRow, open_database
from orchestrator.database.models import Attempt, Epoch, Evaluation, Grid, GridTrial, Trial
from orchestrator.database.parts import record
from trainer.config import TrainConfig
from trainer.registry import Part

START = datetime(2025, 1, 1, 12)
METHODS = ("byot", "dmfl", "pskd")
POWERSET = [[m for bit, m in enumerate(METHODS) if number >> bit & 1] for number in range(8)]
# Gains of the methods in top-1 error, and what they cost in time.
GAIN = {
    "byot": 0.9,
    "dmfl": 0.25,
    "pskd": 1.4,
    "label_smoothing": 0.6,
    "cskd": 0.5,
    "tfkd": 0.4,
    "dml": 0.8,
    "dcm": 1.9,
}
COST = {"byot": 4.5, "dmfl": 0.4, "pskd": 1.6}
ERROR = {
    "resnet18": 22.4,
    "resnet34": 21.6,
    "resnet50": 20.8,
    "resnext50_32x4d": 20.1,
    "wrn28_10": 18.7,
    "mobilenet": 26.3,
}
SECONDS = {"resnet18": 25.3, "resnet50": 68.9, "resnext50_32x4d": 147.0}
PARAMETERS = {
    ("resnet18", True): 13_011_152,
    ("resnet18", False): 11_220_132,
    ("resnet50", True): 50_430_928,
    ("resnet50", False): 23_705_252,
}


def configuration(methods: Iterable[str] | Mapping[str, Any] = (), **fields: Any) -> TrainConfig:
    """A configuration with the methods' defaults unless given."""
    given = methods if isinstance(methods, dict) else {name: {} for name in methods}
    return TrainConfig(methods=given, **fields)


def part_row(part: Part[Any]) -> PartRow:
    """Return a part as the database keeps it."""
    return PartRow(part.kind, part.name, part.version, part.title, part.to_dict(), part.digest, part.source)


def above_best(epoch: int, epochs: int, noise: random.Random) -> float:
    """Return by how much an epoch's error is above the best: one epoch before the last, so that no two rules agree."""
    distance = abs(epoch - max(0, epochs - 2))
    return 55.0 * (1 - math.exp(-distance / 2)) if epoch < epochs - 2 else 0.3 * distance


class Filler:
    """Fills a database through its tables, as the driver would have; `above` is the shape of its curves."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.above = above_best
        self.trials: dict[str, int] = {}
        self.rows: dict[Any, list[dict[str, Any]]] = {
            model: [] for model in (Grid, Trial, GridTrial, Attempt, Epoch, Evaluation)
        }

    def _insert(self, model: Any, **values: Any) -> int:
        """Remember a row for `write`, and return its id."""
        rows = self.rows[model]
        if model is not GridTrial:
            values["id"] = len(rows) + 1
        rows.append({name: round(value, 6) if type(value) is float else value for name, value in values.items()})
        return len(rows)

    def write(self) -> None:
        """Insert everything."""
        for model, rows in self.rows.items():
            names = dict.fromkeys(name for row in rows for name in row)
            if rows:
                self.connection.execute(insert(model), [{name: row.get(name) for name in names} for row in rows])

    def parts(self) -> None:
        """Insert the parts of every trial, with their titles."""
        configs = [TrainConfig(**row["config"]) for row in self.rows[Trial]]
        parts = {(part.kind, part.name): part for config in configs for part in config.parts()}
        record(self.connection, "here", [part_row(part) for part in parts.values()], None)

    def grid(
        self, name: str, report: Mapping[str, Any], trials: Iterable[tuple[str, TrainConfig, dict[str, Any]]]
    ) -> None:
        """A grid of (name, configuration, what happened); see `trial` for the last."""
        grid = self._insert(
            Grid, name=name, source=f"grids/{name}.yaml", text="", report=report, created=START, updated=START
        )
        for position, (title, config, fate) in enumerate(trials):
            key = config.key()
            if key not in self.trials:
                self.trials[key] = self.trial(config, **fate)
            self._insert(GridTrial, grid_id=grid, trial_id=self.trials[key], position=position, name=title)

    def trial(
        self,
        config: TrainConfig,
        state: str = "done",
        epochs: int = 6,
        quality: str = "exclusive",
        error_class: str | None = None,
        error: float | None = None,
        timed: bool = False,
    ) -> int:
        """A trial with its attempt and the first `epochs` of its epochs."""
        noise = random.Random(config.key())
        values = config.model_dump(mode="json")
        finished = START + timedelta(hours=9) if state in ("done", "failed") else None
        trial = self._insert(Trial, key=config.key(), config=values, state=state, created=START, finished=finished)
        if state == "pending":
            return trial
        heads = config.heads != "none"
        attempt = self._insert(
            Attempt,
            trial_id=trial,
            number=1,
            purpose="train",
            host="node7",
            device="cuda:0 (NVIDIA A100)",
            pid=4242,
            environment={
                "commit": "0123456789abcdef0123456789abcdef01234567",
                "dirty": False,
                "versions": {"torch": "2.11"},
            },
            started=START,
            ended=finished,
            outcome={"done": "done", "failed": "failed"}.get(state),
            error_class=error_class,
            log=f"/logs/{config.key()[:8]}.log",
            parameters=PARAMETERS.get((config.network, heads)),
        )
        base = error
        if base is None:
            base = ERROR.get(config.network, 21.0) - sum(GAIN[name] for name in config.methods) + noise.gauss(0, 0.12)
        seconds = SECONDS.get(config.network, 40.0) + sum(COST.get(name, 1.0) for name in config.methods)
        for epoch in range(epochs if state != "pending" else 0):
            self._epoch(config, trial, attempt, epoch, epochs, base, seconds, quality, noise)
        if timed:
            timing = self._insert(
                Attempt,
                trial_id=trial,
                number=2,
                purpose="time",
                environment={},
                started=START,
                ended=START,
                outcome="done",
            )
            for epoch in range(3):
                self._row(trial, timing, epoch, None, seconds + noise.gauss(0, 0.05), "exclusive", {})
        return trial

    def _row(
        self, trial: int, attempt: int, epoch: int, accepted: int | None, seconds: float, quality: str, losses: Any
    ) -> int:
        return self._insert(
            Epoch,
            trial_id=trial,
            attempt_id=attempt,
            epoch=epoch,
            accepted=accepted,
            learning_rate=0.1,
            train_seconds=seconds * 0.9,
            eval_seconds=seconds * 0.08,
            data_seconds=seconds * 0.02,
            images=50_000,
            losses=losses,
            timing_quality=quality,
            recorded=START + timedelta(seconds=epoch * seconds),
        )

    def _epoch(
        self,
        config: TrainConfig,
        trial: int,
        attempt: int,
        epoch: int,
        epochs: int,
        base: float,
        seconds: float,
        quality: str,
        noise: random.Random,
    ) -> None:
        losses = {"cross_entropy": round(1.5 * math.exp(-epoch / 3) + 0.2, 6)}
        losses |= {f"{name}/term": 0.4 + 0.1 * len(name) for name in config.methods if name != "pskd"}
        row = self._row(trial, attempt, epoch, 1, seconds + noise.gauss(0, 0.1), quality, losses)
        error = base + self.above(epoch, epochs, noise)
        classifiers = {"main": error}
        if config.heads != "none":
            trained = "byot" in config.methods or "dcm" in config.methods
            stages = config.stages or 4
            classifiers |= {
                f"head{k}": error + 4.0 * (stages - k) if trained else 98.5 + 0.3 * k for k in range(1, stages)
            }
            classifiers["ensemble"] = error - 0.35 if trained else error + 0.5
        two = bool({"dml", "dcm"} & set(config.methods))
        shift = ERROR.get(config.peer or config.network, 21.0) - ERROR.get(config.network, 21.0)
        images = {"digits": 360}.get(config.dataset, 10_000)
        for network in range(1 + two):
            for classifier, value in classifiers.items():
                percent = min(99.0, value + network * shift)
                exact = round(percent * images / 100) * 100 / images
                self._insert(
                    Evaluation,
                    epoch_id=row,
                    network=network,
                    classifier=classifier,
                    split="test",
                    images=images,
                    top1_error=exact,
                    top5_error=round(exact / 4.4 * images / 100) * 100 / images,
                    nll=exact / 24 + noise.gauss(0, 0.004),
                    ece=exact / 4 + noise.gauss(0, 0.1),
                    aurc=exact * 2.5 + noise.gauss(0, 0.3),
                    ood_auroc=98.0 - exact / 20 if config.ood_dataset else None,
                )


def name_of(config: TrainConfig) -> str:
    """A readable name that tells this file's trials apart."""
    methods = [name + (f"[{given}]" if given else "") for name, given in sorted(config.methods.items())]
    differing = [
        f"{name}{value}" for name, value in config.science().items() if name in ("stages", "peer", "learning_rate")
    ]
    return "/".join([config.network, "+".join(methods) or "baseline", config.dataset, *differing, f"seed{config.seed}"])


def trials(configs: Iterable[TrainConfig], **fate: Any) -> list[tuple[str, TrainConfig, dict[str, Any]]]:
    """Trials with one fate."""
    return [(name_of(config), config, dict(fate)) for config in configs]


def ablation(seeds: Iterable[int], **fields: Any) -> list[TrainConfig]:
    """Return all combinations of the three methods by seed."""
    return [configuration(methods, seed=seed, **fields) for methods in POWERSET for seed in seeds]


def fill(filler: Filler) -> None:
    """Grids like the ones that the project brings, unfinished in every way."""
    many = trials(ablation((0, 1, 2), network="resnet18", heads="native"), timed=True)
    one = trials(ablation((0,), network="resnet50"))
    for place, fate in {
        2: {"state": "failed", "error_class": "diverged", "epochs": 2},
        5: {"state": "running", "epochs": 3},
        8: {"state": "pending"},
    }.items():
        many[place][2].update(fate)
    one[1][2].update(state="failed", error_class="diverged", epochs=1)
    one[2][2].update(state="failed", error_class="code", epochs=0)
    one[3][2].update(state="running", epochs=4)
    one[4][2].update(quality="packed")
    one[6][2].update(state="pending")
    asked = {"tables": [1, 2, "interactions", "losses"], "figures": [2], "selection": "best_test"}
    filler.grid("table1", asked, many + one)
    blocks = [{"pskd": {}, "dmfl": {}, "byot": {"blocks": list(range(first, 4))}} for first in (1, 2, 3)]
    filler.grid(
        "table3",
        {"tables": [3], "figures": [], "selection": "best_test"},
        trials(
            [configuration(methods, network="resnet18", heads="native", seed=0) for methods in blocks],
            quality="unknown",
        ),
    )
    cut = [
        configuration({"pskd": {}, "dmfl": {}, "byot": {"blocks": [n - 1]}}, network="resnet18", stages=n, seed=0)
        for n in (4, 3, 2)
    ]
    filler.grid("table4", {"tables": [4], "figures": [], "selection": "best_test"}, trials(cut))
    mutual = {"epochs": 200, "milestones": (60, 120, 160), "gamma": 0.2, "nesterov": False, "padding_mode": "reflect"}
    pairs = [
        configuration(network=name, seed=seed, **mutual) for name in ("wrn28_10", "mobilenet") for seed in range(5)
    ]
    pairs += [
        configuration([method], network="wrn28_10", peer=peer, seed=seed, **mutual)
        for peer in ("wrn28_10", "mobilenet")
        for method in ("dml", "dcm")
        for seed in range(5)
    ]
    filler.grid("dcm", {"tables": ["dcm"], "figures": [], "selection": "best_test"}, trials(pairs))
    distant = [
        configuration(methods, dataset=inside, ood_dataset="svhn", network="preact_resnet18", seed=0)
        for inside in ("cifar10", "cifar100")
        for methods in ([], ["pskd"])
    ]
    filler.grid("far", {"tables": ["ood"], "figures": [], "selection": "best_test"}, trials(distant))
    readings = [
        configuration(methods, network="resnet18", heads="native", seed=seed)
        for methods in ({}, {"dmfl": {}}, {"dmfl": {"variant": "released"}})
        for seed in (0, 1, 2)
    ]
    filler.grid("fidelity", {"tables": ["fidelity"], "figures": [], "selection": "best_test"}, trials(readings))
    small = {"dataset": "digits", "network": "resnet18", "width": 8, "epochs": 5, "precision": "float32"}
    rates = [configuration(methods, learning_rate=rate, **small) for methods in ([], ["pskd"]) for rate in (0.01, 0.1)]
    filler.grid("rates_<b>&%é", {}, trials(rates, epochs=5))


def make_database(path: Path, filling: Any = fill) -> Database:
    """A database file with a filling, opened for reading."""
    with open_database(path, create=True) as database, database.engine.begin() as connection:
        filler = Filler(connection)
        filling(filler)
        filler.write()
        filler.parts()
    return open_database(path, readonly=True)


def keys(database: Database) -> list[str]:
    """Return every trial's key."""
    with database.engine.connect() as connection:
        return list(connection.execute(select(Trial.key)).scalars())
