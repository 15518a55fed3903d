"""Users' own metrics in tables, files and frames: a column like any other, and a reason where there is no number."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.database import Database, PartRow, open_database
from orchestrator.grid import load_grid
from reports import explain, export, open_results, verify, write_report
from reports.columns import COLUMNS, QUALITY
from reports.gathering import gather
from tests.orchestrator.databases.samples import result, start
from tests.reports.lookup import entry, one
from trainer.builtin_metrics import ALWAYS
from trainer.config import TrainConfig
from trainer.parts import METRICS

BRIER = PartRow(
    "metric", "brier", 1, "Brier score", {"direction": "higher", "digits": 3, "unit": "pt"}, "b1" * 32, "mine.py:7"
)
TABLE = {
    "name": "own",
    "rows": ["methods"],
    "columns": ["top1", "brier", {"brier": {"classifier": "head1", "digits": 1, "title": "Of a head"}}],
}
# By methods and seed: the values of the metric after two epochs; the first epoch is the better one.
VALUES = {
    ("", 0): ({"brier": 0.25}, {"brier": 0.5}),
    ("", 1): ({"brier": 0.35}, {"brier": 0.7}),
    ("pskd", 0): ({}, {}),
    ("pskd", 1): ({}, {"brier": 0.9}),
    ("byot", 0): ({"brier": 0.75}, {"brier": 0.1}),
    ("byot", 1): ({"brier": 0.75}, {"brier": 0.1}),
}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A grid of three cells of two seeds; of one, no trial had the metric after its best epoch."""
    path = tmp_path / "results.db"
    with open_database(path, create=True) as opened:
        configs = {
            (methods, seed): TrainConfig(methods={methods: {}} if methods else {}, seed=seed)
            for methods, seed in VALUES
        }
        trials = [
            (config.key(), config.model_dump(mode="json"), f"{methods or 'baseline'}/seed{seed}")
            for (methods, seed), config in configs.items()
        ]
        opened.save_grid("mine", "mine.yaml", "", {"tables": [TABLE]}, trials)
        opened.record_parts([BRIER])
        for place, config in configs.items():
            attempt = start(opened, config.key())
            for epoch, own in enumerate(VALUES[place]):
                done = result(epoch, error=20.0 + epoch)
                evaluations = [
                    replace(each, own_metrics={name: value + number for name, value in own.items()})
                    for number, each in enumerate(done.evaluations)
                ]
                opened.record_epoch(attempt, replace(done, evaluations=evaluations), "exclusive")
            opened.finish_attempt(attempt, "done", trial_state="done")
    with open_database(path, readonly=True) as opened:
        yield opened


def test_a_column_has_the_metrics_title_unit_digits_and_direction(database: Database) -> None:
    table = one(gather(database).tables, "own")
    titles = [(column.heading, column.digits, column.direction) for column in table.columns]
    assert titles == [
        ("Top-1 error (%)", 2, "lower"),
        ("Brier score (pt)", 3, "higher"),
        ("Of a head (pt)", 1, "higher"),
    ]
    brier = entry(table, "baseline/brier")
    assert (brier.value, brier.n, [each.value for each in brier.samples]) == (pytest.approx(0.3), 2, [0.25, 0.35])
    assert entry(table, "baseline/brier-head1").value == pytest.approx(1.3)
    # Seeds without spread: the greater one is the better one.
    assert entry(table, "byot/brier").value == 0.75


def test_a_trial_without_the_metric_is_a_dash_with_its_reason(database: Database) -> None:
    table = one(gather(database).tables, "own")
    missing = entry(table, "pskd/brier")
    assert (missing.state, missing.value) == ("missing", None)
    notes = dict(table.footnotes)
    (mark,) = missing.notes
    assert notes[mark] == (
        "2 of the 2 trials did not measure brier at the epochs that count: the grid file did not ask for it then, and "
        "orchestrate score measures it only where probabilities are kept"
    )
    assert entry(table, "pskd/top1").value == 20.0 and not entry(table, "baseline/brier").notes
    last = one(gather(database, selection="last").tables, "own")
    half = entry(last, "pskd/brier")
    assert (half.value, half.n, half.state) == (0.9, 1, "partial")
    assert dict(last.footnotes)[half.notes[-1]].startswith("1 of the 2 trials did not measure brier")


def test_the_mean_of_epochs_of_which_one_has_no_value_is_none(database: Database) -> None:
    table = one(gather(database, selection="mean_last_2").tables, "own")
    assert entry(table, "baseline/brier").value == pytest.approx(0.45)
    assert entry(table, "pskd/brier").value is None and entry(table, "pskd/top1").value == 20.5


def test_verify_and_explain_follow_it(database: Database, tmp_path: Path) -> None:
    write_report(database, tmp_path / "out", formats=["tex", "csv"])
    text = (tmp_path / "out" / "own.tex").read_text()
    assert "0.300 $\\pm$ 0.071" in text
    assert not verify(database, tmp_path / "out" / "own.tex").problems
    (tmp_path / "out" / "own.tex").write_text(text.replace("0.300", "0.301"))
    assert verify(database, tmp_path / "out" / "own.tex").problems
    explanation = explain(database, "own:baseline/brier")
    assert "0.25" in explanation and "baseline/seed0" in explanation


def test_the_own_table_of_a_grid_shows_what_was_measured(database: Database, tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with open_database(path, create=True) as other:
        config = TrainConfig(epochs=1)
        other.save_grid("g", "g.yaml", "", {}, [(config.key(), config.model_dump(mode="json"), "baseline/seed0")])
        other.record_parts([BRIER, replace(BRIER, name="never", title="Never")])
        attempt = start(other, config.key())
        other.record_epoch(attempt, result(0, own={"brier": 0.5}), "exclusive")
        other.finish_attempt(attempt, "done", trial_state="done")
        table = one(gather(other).tables, "grid-g")
    keys = [column.key for column in table.columns]
    assert "brier" in keys and "never" not in keys


def test_files_and_frames_have_a_typed_column(database: Database, tmp_path: Path) -> None:
    export(database, tmp_path / "export")
    with (tmp_path / "export" / "evaluations.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["brier"] for row in rows if row["classifier"] == "main"][:6] == ["0.25", "0.5", "0.35", "0.7", "", ""]
    export(database, tmp_path / "export", "parquet")
    frame = open_results(database.path).evaluations
    assert str(frame["brier"].dtype) == "float64" and frame["brier"].notna().sum() == 18


def test_a_column_of_every_evaluation_has_the_facts_of_its_metric() -> None:
    assert [column.key for column in QUALITY] == list(ALWAYS)
    for name, field in ALWAYS.items():
        column, part = COLUMNS[name], METRICS[name]
        assert (column.title, column.unit, column.direction, column.digits, column.quantity) == (
            part.title,
            part.facts.unit,
            part.facts.direction,
            part.facts.digits,
            f"main/{field}",
        )


def test_a_grid_names_its_metrics_and_no_key_changes(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    text = "name: g\ngrid: {dataset: digits}\n"
    path.write_text(text)
    plain = load_grid(path)
    path.write_text(text + "metrics: [e_aurc]\n")
    grid = load_grid(path)
    assert grid.metrics == ("e_aurc",) and plain.metrics == ()
    assert [trial.key for trial in grid.trials] == [trial.key for trial in plain.trials]
