"""Bold numbers: who is ruled out as the best, by which test, and what the caption says of it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import insert, select

from orchestrator.database import open_database
from orchestrator.database.models import Epoch, Evaluation, Outcome, Trial
from orchestrator.statistics import Outcomes
from reports.columns import TOP1
from reports.gathering import gather
from reports.layouts.bold import DESPITE, embolden
from reports.loading import load
from reports.table import Entry, Row, Sample
from tests.reports.lookup import entry, one
from tests.reports.synthetic import configuration, make_database, trials


def row(name: str, *values: float, outcomes: tuple[np.ndarray, ...] = ()) -> Row:
    kept = [Outcomes(np.packbits(bits).tobytes(), len(bits), "labels") for bits in outcomes] or [None] * len(values)
    samples = tuple(
        Sample(f"{name}{seed}", name, seed, 1, value, 10_000, outcomes=kept[seed]) for seed, value in enumerate(values)
    )
    mean = sum(values) / len(values)
    return Row("", name, (name,), (Entry("done", mean, None, len(values), len(values), samples=samples),))


def bold(rows: list[Row], **rules: Any) -> tuple[list[str], Any, list[tuple[str, str]]]:
    notes: list[tuple[str, str]] = []
    marked, how = embolden(rows, [TOP1], notes, **rules)
    return [each.key for each in marked if each.entries[0].bold], how, notes


def declare(database: Any, selection: str = "best_test", **fields: Any) -> Any:
    return one(gather(database, tables=[{"name": "mine", **fields}], selection=selection).tables, "mine")


FIVE = [
    row("best", 20.0, 20.1, 20.2, 20.1, 20.0),
    row("close", 20.3, 20.0, 20.5, 20.0, 20.4),
    row("far", 22.0, 22.2, 22.1, 22.0, 22.3),
]


def test_the_correction_is_hsus_unless_the_table_says_otherwise() -> None:
    names, how, notes = bold(FIVE)
    assert names == ["best", "close"] and notes == []
    assert how.sentence == (
        "Bold: not ruled out as the best of its group by a t test paired over 5 seeds; with 95 % confidence the best "
        "is among the bold ones (Hsu: one-sided, 5 % shared among the comparisons of a row)."
    )
    assert how.short == "bold: may be the best (paired t, Hsu, 5 %)"
    assert "(Holm)" in bold(FIVE, correction="holm")[1].sentence
    assert bold(FIVE, correction="none")[1].short == "bold: may be the best (paired t, uncorrected, 5 %)"


def test_two_rows_need_no_correction() -> None:
    names, how, _ = bold(FIVE[::2])
    assert names == ["best"]
    assert how.sentence.endswith("by a t test paired over 5 seeds; two rows: two-sided, 5 % level.")
    assert how.short == "bold: may be the best (paired t, 5 %)"


def test_a_bold_number_behind_a_better_one_that_is_not_has_a_footnote() -> None:
    steady, noisy = row("steady", 97.2, 97.31, 97.4), row("noisy", 97.1, 97.9, 98.4)
    names, _, notes = bold([row("best", 97.0, 97.1, 97.2), steady, noisy])
    assert names == ["best", "noisy"] and notes == [("a", DESPITE)]
    assert bold(FIVE)[2] == []


def test_one_seed_is_tested_over_its_images_where_they_are_kept() -> None:
    noise = np.random.default_rng(0)
    hard = noise.random(10_000)
    # Two networks with much in common: unpaired, 40 images of 10,000 are nothing; paired, they are.
    first = hard < 0.8
    second = first.copy()
    second[np.flatnonzero(first)[:40]] = False
    values = [100 * (1 - bits.mean()) for bits in (first, second)]
    pair = [row("a", values[0], outcomes=(first,)), row("b", values[1], outcomes=(second,))]
    names, how, _ = bold(pair)
    assert names == ["a"]
    assert "an exact test paired over 10,000 test images (fewer than 3 seeds)" in how.sentence
    assert how.short == "bold: may be the best (McNemar, 10,000 images, 5 %)"
    # McNemar's test is for one seed; of two, signs are flipped.
    pair = [row("a", *2 * values[:1], outcomes=(first, first)), row("b", *2 * values[1:], outcomes=(second, second))]
    how = bold(pair)[1]
    assert how.short == "bold: may be the best (sign flips, 10,000 images, 5 %)"
    assert "10,000 test images (fewer than 3 seeds; with two, exact for exchangeable rows)" in how.sentence
    names, how, _ = bold([row("a", values[0]), row("b", values[1])])
    assert names == ["a", "b"]
    assert "unpaired (fewer than 3 seeds, outcomes per image not kept)" in how.sentence


@pytest.fixture
def pair(tmp_path: Path):
    """A database of two trials of one seed, with outcomes at their best and last epochs, and the bits by method."""
    configs = [configuration(methods, seed=0) for methods in ((), ("pskd",))]
    noise = random.Random(3)
    kept: dict[tuple[int, int], np.ndarray] = {}
    make_database(tmp_path / "r.db", lambda filler: filler.grid("g", {}, trials(configs))).close()
    with open_database(tmp_path / "r.db") as database:
        with database.engine.begin() as connection:
            rows = connection.execute(
                select(Trial.id, Epoch.epoch, Evaluation.id.label("evaluation"))
                .join(Epoch, Epoch.trial_id == Trial.id)
                .join(Evaluation, Evaluation.epoch_id == Epoch.id)
                .where(Evaluation.classifier == "main", Evaluation.split == "test")
            ).all()
            for line in rows:
                if line.epoch in (4, 5):
                    bits = np.array([noise.random() < 0.8 for _ in range(10_000)])
                    kept[line.id, line.epoch] = bits
                    values = {
                        "evaluation_id": line.evaluation,
                        "labels_sha256": "1a",
                        "correct": np.packbits(bits).tobytes(),
                    }
                    connection.execute(insert(Outcome).values(**values))
        yield database, kept


@pytest.mark.parametrize(("selection", "epoch"), [("best_test", 4), ("last", 5)])
def test_tables_compare_the_images_of_the_selected_epoch(pair, selection: str, epoch: int) -> None:
    from statsmodels.stats.contingency_tables import mcnemar

    database, kept = pair
    fields = {"rows": "methods", "columns": ["top1", {"top1": {"p": "baseline"}}]}
    table = declare(database, **fields, selection=selection)
    first, second = kept[2, epoch], kept[1, epoch]
    counts = [[int((a & b).sum()) for b in (second, ~second)] for a in (first, ~first)]
    assert entry(table, "pskd/top1-p").value == pytest.approx(mcnemar(counts, exact=True).pvalue)


def test_a_mean_of_epochs_has_no_images(pair) -> None:
    database, _ = pair
    results = load(database, selection="mean_last_2")
    assert [each.measurements[0, "main"].outcomes for cell in results.cells for each in cell.trials] == [None, None]


def test_the_short_caption_names_what_was_used(pair) -> None:
    database, _ = pair
    table = declare(database, rows="methods", columns=["top1"])
    assert "bold: may be the best (McNemar, 10,000 images, 5 %)" in table.caption
