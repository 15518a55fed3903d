"""A method's default that was another one when trials were trained: figures place them by theirs, tables say so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.database import Database, PartRow, open_database
from reports import verify, write_report
from reports.gathering import gather, plotted
from tests.orchestrator.databases.samples import result, start
from tests.reports.lookup import one
from trainer.config import TrainConfig

OLD = PartRow("method", "pskd", 1, "PS-KD", {"defaults": {"alpha": 0.6}}, "a1" * 32, "mine.py:7")
NEW = replace(OLD, facts={"defaults": {"alpha": 0.8}}, digest="b2" * 32)
TABLE = {"name": "own", "rows": ["methods", "width"], "columns": ["top1"]}
FIGURE = {"name": "f", "x": "methods.pskd.alpha", "y": "top1", "lines": "width"}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """Three cells: one of the old default, one of the new default, and one with a value of its own."""
    cells = [
        (TrainConfig(methods={"pskd": {}}), OLD),
        (TrainConfig(methods={"pskd": {}}, width=32), NEW),
        (TrainConfig(methods={"pskd": {"alpha": 0.7}}), NEW),
    ]
    with open_database(tmp_path / "results.db", create=True) as opened:
        named = [(config.key(), config.model_dump(mode="json"), f"{n}/seed0") for n, (config, _) in enumerate(cells)]
        opened.save_grid("mine", "mine.yaml", "", {"tables": [TABLE], "figures": [FIGURE]}, named)
        for number, (config, part) in enumerate(cells):
            attempt = start(opened, config.key())
            opened.record_parts([part], attempt)
            opened.record_epoch(attempt, result(0, error=20.0 + number), "exclusive")
            opened.finish_attempt(attempt, "done", trial_state="done")
    with open_database(tmp_path / "results.db", readonly=True) as opened:
        yield opened


def test_a_figure_places_a_trial_by_the_default_of_its_training(database: Database) -> None:
    (plot,) = plotted(database, gather(database))
    places = sorted(point.place for series in plot.panels[0].series for point in series.points)
    assert places == [0.6, 0.7, 0.8]


def test_a_table_and_verify_say_which_default_it_was(database: Database, tmp_path: Path) -> None:
    table = one(gather(database).tables, "own")
    sentence = "trained with alpha {}, the default of PS-KD then; in other trials that was {}"
    notes = dict(table.footnotes)
    assert sorted(notes.values()) == [sentence.format(0.6, 0.8), sentence.format(0.8, 0.6)]
    marked = {row.key: [notes[mark] for mark in row.entries[0].notes] for row in table.rows}
    assert marked == {
        "pskd/64": [sentence.format(0.6, 0.8)],
        "pskd/32": [sentence.format(0.8, 0.6)],
        "pskd-alpha-0-7/64": [],
    }
    write_report(database, tmp_path / "report", formats=["tex"])
    problems = verify(database, tmp_path / "report/own.tex").problems
    assert [problem.kind for problem in problems] == ["mixed", "mixed"]
    assert sentence.format(0.6, 0.8) in problems[0].message
