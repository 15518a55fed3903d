"""`orchestrate score`: metrics of one's own on kept probabilities, without training."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sqlalchemy import inspect, text
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.database import Database, driver_lock, open_database
from orchestrator.database.schema import VERSION
from reports.gathering import gather
from tests.orchestrator.databases.samples import count, result, start
from tests.reports.lookup import entry, one
from trainer.config import TrainConfig
from trainer.metrics import excess_aurc
from trainer.outcomes import Keeper
from trainer.parts import METRICS
from trainer.plugins import load_plugins
from trainer.results import EpochResult, Evaluation, Metrics
from trainer.train import train as train_one

DATABASES = Path(__file__).parent / "databases"
IMAGES, CLASSES = 40, 3
# Top-1 errors of the epochs on the test images: the second is the best one, the fourth the last.
ERRORS = (50.0, 20.0, 30.0, 25.0)
TABLE = {"name": "own", "rows": ["methods"], "columns": ["top1", "brier"]}
PARTS = '''
from trainer import metric


@metric("brier", title="Brier score", direction="lower", digits=3)
def brier(probabilities, labels):
    """The mean square of what is missing to certainty."""
    right = probabilities.gather(1, labels[:, None])[:, 0]
    return (probabilities.square().sum(1) - 2 * right + 1).mean()
'''
FAILING = """

@metric("surprise", title="Surprise", direction="lower")
def surprise(probabilities, labels):
    return -probabilities.gather(1, labels[:, None]).log().mean()


@metric("broken", title="Broken", direction="lower")
def broken(probabilities, labels):
    return probabilities[len(labels)]
"""


def probabilities(seed: int, network: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed * 10 + network)
    given = torch.randn(IMAGES, CLASSES, generator=generator, dtype=torch.float64).mul(2).softmax(1)
    return given, torch.arange(IMAGES) % CLASSES


def brier(seed: int, network: int = 0) -> float:
    """The Brier score of the probabilities as they are kept, in float16."""
    given, labels = probabilities(seed, network)
    right = torch.nn.functional.one_hot(labels, CLASSES)
    return (given.half().double() - right).square().sum(1).mean().item()


def seed_of(trial: int, epoch: int) -> int:
    return trial * 100 + epoch


def train(
    database: Database,
    kind: str,
    *,
    grid: str = "mine",
    trials: Sequence[int] = (0,),
    zero: bool = False,
    own: Mapping[str, float] | None = None,
    networks: int = 1,
) -> list[str]:
    """Store a grid of trained trials that differ in their seed, with what the trainer keeps of every epoch."""
    configs = {trial: TrainConfig(seed=trial, epochs=len(ERRORS)) for trial in trials}
    rows = [(one.key(), one.model_dump(mode="json"), f"{grid}/seed{trial}") for trial, one in configs.items()]
    database.save_grid(grid, f"{grid}.yaml", "", {"tables": [TABLE]}, rows)
    for trial, config in configs.items():
        attempt = start(database, config.key())
        keeper = Keeper(kind, len(ERRORS))
        for epoch, error in enumerate(ERRORS):
            kept = {}
            for network in range(networks):
                given, labels = probabilities(seed_of(trial, epoch), network)
                if zero:
                    given[0] = torch.tensor([0, 1, 0])
                kept |= keeper.collect(network, given, labels)
            evaluations = [
                Evaluation(network, name, Metrics(error + network, 1.0, 1.0, 1.0, 1.0), IMAGES, own_metrics=own or {})
                for network in range(networks)
                for name in ("main", "head1")
            ]
            done: EpochResult = result(epoch, evaluations=keeper.keep(epoch, evaluations, kept))
            database.record_epoch(attempt, done, "exclusive")
        database.finish_attempt(attempt, "done", trial_state="done")
    return [config.key() for config in configs.values()]


def values(database: Database) -> dict[tuple[int, int, str, str], float]:
    """Return the own metrics' values by seed, epoch, network and classifier, and metric."""
    query = text(
        "SELECT t.key, e.epoch, v.network, v.classifier, m.metric, m.value FROM metric_values m "
        "JOIN evaluations v ON v.id = m.evaluation_id JOIN epochs e ON e.id = v.epoch_id "
        "JOIN trials t ON t.id = e.trial_id"
    )
    seeds = {TrainConfig(seed=seed, epochs=len(ERRORS)).key(): seed for seed in range(4)}
    with database.engine.connect() as connection:
        return {
            (seeds[key], epoch, f"{network}/{classifier}", metric): value
            for key, epoch, network, classifier, metric, value in connection.execute(query)
        }


def everything_else(database: Database) -> dict[str, list[tuple[object, ...]]]:
    """Return every table but those that a score adds to."""
    with database.engine.connect() as connection:
        return {
            name: [tuple(row) for row in connection.execute(text(f"SELECT * FROM {name}"))]
            for name in inspect(connection).get_table_names()
            if name not in ("metric_values", "parts", "attempt_parts")
        }


def score(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["score", *words])
    return done.exit_code, done.output


@pytest.fixture(autouse=True)
def metrics_apart() -> Iterator[None]:
    """Take the metrics of a test's file out of the registry again, whose names other tests have as well."""
    with METRICS.apart():
        yield


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    file = tmp_path / "my_parts.py"
    file.write_text(PARTS)
    return file


def test_kept_epochs_get_the_values_and_tables_the_column(location: str, parts: Path) -> None:
    with open_database(location, create=True) as database, driver_lock(database, grid="mine"):
        train(database, "probabilities", trials=(0, 1))
        train(database, "correct", grid="bits", trials=(2,))
        train(database, "none", grid="old", trials=(3,))
        before = everything_else(database)
    status, output = score(str(parts), "--db", location)
    assert status == 0, output
    assert f"brier ({parts}:5): 4 values stored, of 2 trials\n" in output
    assert "2 trained trials have no probabilities: bits/seed2, old/seed3; " in output
    assert "`outcomes: probabilities`" in output
    with open_database(location, readonly=True) as database:
        measured = values(database)
        assert measured == {
            (trial, epoch, "0/main", "brier"): pytest.approx(brier(seed_of(trial, epoch)), abs=1e-15)
            for trial in (0, 1)
            for epoch in (1, 3)
        }
        assert everything_else(database) == before
        (recorded,) = [part for part in database.parts() if part.kind == "metric"]
        assert (recorded.name, recorded.title, recorded.source) == ("brier", "Brier score", f"{parts}:5")
        key = TrainConfig(seed=0, epochs=len(ERRORS)).key()
        uses = [use for origin in database.origins([key])[key] for use in origin.parts]
        assert [(use.kind, use.name, use.digest) for use in uses] == [("metric", "brier", recorded.digest)]
        for selection, epoch in (("best_test", 1), ("last", 3)):
            table = one(gather(database, grids=["mine"], selection=selection).tables, "own")
            expected = (brier(seed_of(0, epoch)) + brier(seed_of(1, epoch))) / 2
            assert entry(table, "baseline/brier").value == pytest.approx(expected)
        table = one(gather(database, grids=["mine"], selection="mean_last_2").tables, "own")
        missing = entry(table, "baseline/brier")
        assert missing.value is None and entry(table, "baseline/top1").value is not None
        assert dict(table.footnotes)[missing.notes[-1]].startswith("2 of the 2 trials did not measure brier at the")
    status, output = score(str(parts), "--db", location)
    assert status == 0 and f"brier ({parts}:5): 4 values there already\n" in output
    with open_database(location, readonly=True) as database:
        assert values(database) == measured


def test_other_code_of_one_name_is_said_and_its_values_stay(location: str, parts: Path) -> None:
    with open_database(location, create=True) as database, driver_lock(database, grid="mine"):
        train(database, "probabilities")
    assert score(str(parts), "--db", location)[0] == 0
    with open_database(location, readonly=True) as database:
        measured = values(database)
    parts.write_text("# A comment changes no code.\n" + PARTS)
    assert "2 values there already" in score(str(parts), "--db", location)[1]
    parts.write_text(PARTS.replace(".mean()", ".sum()"))
    with open_database(location) as database, driver_lock(database, grid="more"):
        train(database, "probabilities", grid="more", trials=(1,))
    status, output = score(str(parts), "--db", location)
    assert status == 0
    assert "2 values stored, of 1 trial" in output
    assert "brier: measured by other code already, and left as it is: mine/seed0; under another name" in output
    with open_database(location, readonly=True) as database:
        after = values(database)
        assert {place: after[place] for place in measured} == measured
        assert after[1, 3, "0/main", "brier"] == pytest.approx(IMAGES * brier(seed_of(1, 3)))


def test_what_training_measured_stays(location: str, parts: Path) -> None:
    with open_database(location, create=True) as database, driver_lock(database, grid="mine"):
        train(database, "probabilities", own={"brier": 7.0})
    status, output = score(str(parts), "--db", location)
    assert status == 0 and f"brier ({parts}:5): 2 values there already\n" in output
    with open_database(location, readonly=True) as database:
        assert set(values(database).values()) == {7.0}


def test_a_failing_metric_is_named_and_the_others_are_stored(tmp_path: Path, parts: Path) -> None:
    parts.write_text(PARTS + FAILING)
    db = str(tmp_path / "results.db")
    with open_database(db, create=True) as database, driver_lock(database, grid="mine"):
        train(database, "probabilities", trials=(0, 1), zero=True)
    status, output = score(str(parts), "--db", db)
    assert status == 1
    assert f"error: mine/seed0, mine/seed1: the metric 'surprise' ({parts}:12) returns inf, not a finite" in output
    assert f"error: mine/seed0, mine/seed1: the metric 'broken' ({parts}:17) fails for" in output
    assert f"broken ({parts}:17): no value stored\n" in output
    assert "IndexError" in output and "Traceback" not in output
    with open_database(db, readonly=True) as database:
        assert {place[3] for place in values(database)} == {"brier"}
        assert [part.name for part in database.parts()] == ["brier"]
    # What failed is tried again, alone.
    status, output = score(str(parts), "--metric", "surprise", "--db", db)
    assert status == 1 and "brier" not in output


def test_a_metric_that_ships_and_one_grid_of_two(tmp_path: Path) -> None:
    db = str(tmp_path / "results.db")
    with open_database(db, create=True) as database, driver_lock(database, grid="mine"):
        train(database, "probabilities", networks=2)
        train(database, "probabilities", grid="other", trials=(1,))
    status, output = score("--metric", "e_aurc", "--grid", "mine", "--db", db)
    assert status == 0 and "4 values stored, of 1 trial" in output
    with open_database(db, readonly=True) as database:
        measured = values(database)
    expected = {}
    for epoch in (1, 3):
        for network in (0, 1):
            given, labels = probabilities(seed_of(0, epoch), network)
            expected[0, epoch, f"{network}/main", "e_aurc"] = excess_aurc(given.half().double(), labels)
    assert measured == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--metric", "top1"], "top1 is measured in every evaluation; the tables have it already"),
        (["--metric", "e_arc"], "unknown metric 'e_arc'; did you mean 'e_aurc'?"),
        ([], "give a file with a function under @metric(...), or --metric with one that ships"),
        (["nothing.py"], "nothing.py registers no metric; give a file"),
        (["missing.py"], "missing.py: no such file"),
        (["--metric", "e_aurc", "--grid", "none"], "no grid named 'none' in this database (it holds: mine)"),
        (["--metric", "e_aurc", "--db", "missing.db"], "missing.db"),
        (["--metric", "e_aurc", "--db", "empty.db"], "empty.db is empty"),
    ],
)
def test_what_cannot_be_computed_is_said(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("nothing.py").write_text("x = 1\n")
    Path("empty.db").touch()
    with open_database("results.db", create=True) as database, driver_lock(database, grid="mine"):
        train(database, "probabilities")
    status, output = score(*words)
    assert status == 2, output
    assert message in output and "Traceback" not in output
    with open_database("results.db", readonly=True) as database:
        assert values(database) == {}


def test_a_driver_that_holds_the_database_is_named(tmp_path: Path) -> None:
    db = str(tmp_path / "results.db")
    with open_database(db, create=True) as database, driver_lock(database, grid="mine"):
        train(database, "probabilities")
        status, output = score("--metric", "e_aurc", "--db", db)
        assert status == 3 and "is in use by `orchestrate` for mine" in output
        assert values(database) == {}


@pytest.mark.parametrize("version", range(1, VERSION))
def test_a_database_of_before_is_migrated_and_has_no_probabilities(version: int, tmp_path: Path) -> None:
    db = str(tmp_path / "results.db")
    shutil.copy(DATABASES / f"v{version}.sqlite", db)
    status, output = score("--metric", "e_aurc", "--db", db)
    assert status == 0, output
    assert f"was migrated from version {version} to {VERSION}" in output and "no probabilities: " in output
    assert "stored" not in output


def test_a_database_without_trained_trials_says_so(tmp_path: Path) -> None:
    db = str(tmp_path / "results.db")
    open_database(db, create=True).close()
    assert score("--metric", "e_aurc", "--db", db) == (0, "no trial was trained yet\n")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("UPDATE outcomes SET probabilities = x'00ff'", "they are damaged ("),
        ("UPDATE label_sets SET labels = x'789c030000000001'", "120 probabilities and 0 labels do not fit 40 images"),
        ("DELETE FROM label_sets", "the labels of its test images are missing"),
    ],
)
def test_damaged_probabilities_are_named(tmp_path: Path, change: str, reason: str) -> None:
    db = str(tmp_path / "results.db")
    with open_database(db, create=True) as database, driver_lock(database, grid="mine"):
        train(database, "probabilities")
        with database.engine.begin() as connection:
            connection.execute(text(change))
    status, output = score("--metric", "e_aurc", "--db", db)
    assert status == 1
    assert f"error: mine/seed0: e_aurc is not measured on the probabilities of epoch 2: {reason}" in output
    with open_database(db, readonly=True) as database:
        assert count(database, "metric_values") == 0


def test_probabilities_that_are_not_finite_are_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    db = str(tmp_path / "results.db")
    given, labels = probabilities(0)
    given[0, 0] = torch.nan
    monkeypatch.setattr(f"{__name__}.probabilities", lambda *_: (given, labels))
    with open_database(db, create=True) as database, driver_lock(database, grid="mine"):
        train(database, "probabilities")
    status, output = score("--metric", "e_aurc", "--db", db)
    assert status == 0 and "e_aurc: not measured, because the probabilities are not finite: mine/seed0" in output


def test_a_score_is_what_the_training_would_have_measured(tmp_path: Path, parts: Path) -> None:
    db = str(tmp_path / "results.db")
    load_plugins([str(parts)], beside=tmp_path)
    config = TrainConfig(
        dataset="digits", network="resnet18", width=4, subset=6, batch_size=20, epochs=2, learning_rate=0.05
    )
    results: list[EpochResult] = []
    train_one(config, results.append, data_root=tmp_path, own_metrics=["brier"], outcomes="probabilities")
    with open_database(db, create=True) as database, driver_lock(database, grid="mine"):
        trials = [(config.key(), config.model_dump(mode="json"), "mine/seed0")]
        database.save_grid("mine", "mine.yaml", "", {"tables": [TABLE]}, trials)
        attempt = start(database, config.key())
        for done in results:
            without = [replace(each, own_metrics={}) for each in done.evaluations]
            database.record_epoch(attempt, replace(done, evaluations=without), "exclusive")
        database.finish_attempt(attempt, "done", trial_state="done")
    status, output = score(str(parts), "--db", db)
    assert status == 0, output
    with open_database(db, readonly=True) as database:
        table = one(gather(database, selection="last").tables, "own")
        (main,) = [each for each in results[-1].evaluations if each.classifier == "main" and each.split == "test"]
        value = entry(table, "baseline/brier").value
        assert value == pytest.approx(main.own_metrics["brier"], rel=1e-3) and value != main.own_metrics["brier"]
