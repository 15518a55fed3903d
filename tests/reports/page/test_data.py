"""The data behind the page: what it says of trials, and that it agrees with the tables and the database."""

from __future__ import annotations

import json
import math
import random
import socket
from dataclasses import replace

import pytest
from sqlalchemy import select, update

from orchestrator.database import open_database
from orchestrator.database.models import Attempt, Epoch, Evaluation
from orchestrator.statistics import IMAGES, Outcomes, compare
from reports.columns import TOP1
from reports.gathering import gather
from reports.layouts.entries import candidate
from reports.page import curves as curves_module
from reports.page import page_data
from reports.page.data import Tails
from reports.report import page_of
from reports.table import Entry, Row, Sample, Table
from tests.reports.synthetic import ablation, make_database, trials


@pytest.fixture(scope="module")
def data(database):
    return page_of(database)


def test_the_page_has_every_entry_of_every_table_with_its_trials(database, data):
    tables = gather(database).tables
    assert [shown["id"] for shown in data["tables"]] == [table.name for table in tables]
    for table, shown in zip(tables, data["tables"], strict=True):
        rows = [row for group in shown["groups"] for row in group["rows"]]
        for row, shown_row in zip(table.rows, rows, strict=True):
            for entry, cell in zip(row.entries, shown_row["cells"], strict=True):
                assert (cell["value"], cell["n"], cell["bold"]) == (entry.value, entry.n, entry.bold)
                behind = [(data["trials"][place]["key"], epoch) for place, epoch, *_ in cell["samples"]]
                assert behind == [(sample.key, sample.epoch) for sample in entry.samples]
            assert {data["trials"][place]["key"] for place in shown_row["trials"]} >= {
                sample.key for entry in row.entries for sample in entry.samples
            }


def test_the_page_is_json_and_the_same_every_time(database, data):
    text = json.dumps(data, allow_nan=False)
    assert text == json.dumps(page_of(database), allow_nan=False)


def test_trials_have_their_values_states_attempts_and_configurations(data):
    by_name = {trial["name"]: trial for trial in data["trials"]}
    done = by_name["resnet18/pskd/cifar100/seed0"]
    cell = data["cells"][done["cell"]]
    assert cell["config"]["methods"] == "PS-KD" and cell["config"]["network"] == "ResNet-18"
    assert data["trials"].index(done) in cell["trials"] and "table1" in cell["grids"]
    train, timing = done["attempts"]
    assert (train["purpose"], train["outcome"], train["commit"][:6]) == ("train", "done", "012345")
    assert train["log"].startswith("/logs/") and timing["purpose"] == "time"
    table = next(table for table in data["tables"] if table["id"] == "table1")
    row = next(row for group in table["groups"] for row in group["rows"] if row["key"] == "resnet18/pskd")
    sample = next(sample for sample in row["cells"][0]["samples"] if data["trials"][sample[0]] is done)
    assert sample[2] == pytest.approx(done["values"]["top1"])
    assert {"network", "methods", "dataset"} <= set(data["fields"]) and "momentum" not in data["fields"]
    states = {trial["state"] for trial in data["trials"]}
    assert states == {"done", "running", "pending", "failed", "diverged"}


def test_curves_are_what_the_database_has(database, data):
    place = next(place for place, trial in enumerate(data["trials"]) if trial["name"].startswith("resnet18/byot/"))
    line = data["curves"]["lines"][place]
    with database.engine.connect() as connection:
        rows = connection.execute(
            select(Epoch, Evaluation.top1_error, Evaluation.nll)
            .join(Evaluation, Evaluation.epoch_id == Epoch.id)
            .join(Attempt, Attempt.id == Epoch.attempt_id)
            .where(Evaluation.classifier == "main", Evaluation.network == 0, Epoch.accepted == 1)
            .where(Attempt.log == data["trials"][place]["attempts"][0]["log"])
            .order_by(Epoch.epoch)
        ).all()
    assert line["epochs"] == [row.epoch + 1 for row in rows] == [1, 2, 3, 4, 5, 6]
    series = {each["title"]: str(index) for index, each in enumerate(data["curves"]["series"])}
    assert line["series"][series["Top-1 error"]] == pytest.approx([row.top1_error for row in rows], rel=1e-5)
    assert line["series"][series["NLL"]] == pytest.approx([row.nll for row in rows], rel=1e-5)
    seconds = [row.train_seconds + row.eval_seconds + row.data_seconds for row in rows]
    assert line["seconds"] == pytest.approx([math.fsum(seconds[: index + 1]) for index in range(6)], rel=1e-5)
    assert "Loss: cross_entropy" in series and "Learning rate" in series


def test_curves_are_thinned_from_the_last_epoch_back_and_the_page_says_so(database, monkeypatch):
    whole = page_of(database)["curves"]
    monkeypatch.setattr(curves_module, "NUMBERS", 1_000)
    thin = page_of(database)["curves"]
    assert whole["every"] == 1 and thin["every"] > 1
    for full, line in zip(whole["lines"], thin["lines"], strict=True):
        if full is not None:
            assert line["epochs"] == full["epochs"][:: -thin["every"]][::-1]
            # Added up in another order, they may differ in the last digit.
            assert line["seconds"] == pytest.approx(full["seconds"][:: -thin["every"]][::-1], rel=1e-5)


def test_what_is_not_finite_is_a_gap(tmp_path):
    with make_database(tmp_path / "results.db", lambda filler: filler.grid("one", {}, trials(ablation([0])))):
        pass
    with open_database(tmp_path / "results.db") as database, database.engine.begin() as connection:
        connection.execute(update(Evaluation).where(Evaluation.id == 1).values(nll=math.inf))
    with open_database(tmp_path / "results.db", readonly=True) as database:
        data = page_of(database)
    place = next(str(i) for i, series in enumerate(data["curves"]["series"]) if series["title"] == "NLL")
    assert data["curves"]["lines"][0]["series"][place][0] is None
    json.dumps(data, allow_nan=False)


def test_a_page_has_room_for_so_many_logs_and_counts_the_others(tmp_path):
    key = "0123456789abcdef" * 4
    path = tmp_path / "01234567-1.log"
    path.write_text("x" * 3_000)
    tails = Tails(room=5_000)
    ends = [tails.read(str(path), key, socket.gethostname()) for _ in range(4)]
    assert [end is None for end in ends] == [False, False, True, True] and tails.left_out == 2


def test_failed_trials_have_their_logs_first(tmp_path, monkeypatch):
    monkeypatch.setattr("reports.page.data.Tails", lambda: Tails(room=1))

    def filling(filler):
        many = trials(ablation([0]))
        many[5][2].update(state="failed", error_class="code", epochs=1)
        filler.grid("one", {}, many)
        for row in filler.rows[Attempt]:
            trial = filler.rows[list(filler.rows)[1]][row["trial_id"] - 1]
            path = tmp_path / f"{trial['key'][:8]}-1.log"
            path.write_text("the end")
            row |= {"log": str(path), "host": socket.gethostname()}

    with make_database(tmp_path / "results.db", filling) as database:
        data = page_of(database)
    with_end = [trial for trial in data["trials"] if trial["attempts"][0].get("end")]
    assert [trial["state"] for trial in with_end] == ["failed"] and data["logs_left_out"] == 7


def test_an_empty_database_has_data(tmp_path):
    with make_database(tmp_path / "results.db", lambda filler: None) as database:
        data = page_of(database)
    assert data["trials"] == data["cells"] == data["fields"] == [] and data["title"] == "Results"


def test_tests_over_images_come_with_the_data(database, monkeypatch):
    """The outcomes stay in the database, so the page's script cannot do these tests; differences are not tested."""
    chances = random.Random(3)
    rows = []
    for place, wrong in enumerate((20, 32, 33)):
        bits = "".join("0" if chances.random() < wrong / 100 else "1" for _ in range(96))
        outcomes = Outcomes(int(bits, 2).to_bytes(12), 96, "digest")
        error = 100 * bits.count("0") / 96
        sample = Sample("k" * 64, "name", 0, 1, error, 96, outcomes=outcomes)
        rows.append(Row("", f"row{place}", ("x",), (Entry("done", error, n=1, planned=1, samples=(sample,)),) * 2))
    columns = (TOP1, replace(TOP1, key="gain", form="signed"))
    table = Table("own", "own", "Own", "", ("Row",), columns, tuple(rows))
    data = page_data(database, gather(database).results, [table])
    by_pair = {tuple(line[:3]): line[3:] for line in data["tables"][0]["comparisons"]}
    assert by_pair.keys() == {(0, 1, 0), (0, 2, 0), (1, 2, 0)}
    for (one, two, _), (p, difference, margin, n, images) in by_pair.items():
        expected = compare(*(candidate(rows[place].entries[0]) for place in (one, two)))
        assert (expected.test, n, images) == (IMAGES, 1, 96)
        assert (p, difference, margin) == pytest.approx((expected.p, expected.difference, expected.margin), rel=1e-5)
    assert data["tables"][0]["untested"] == {}
    # Where the page has no room for them all, it says of which columns and rows.
    monkeypatch.setattr("reports.page.data.MOST_COMPARISONS", 2)
    (cut,) = page_data(database, gather(database).results, [table])["tables"]
    assert len(cut["comparisons"]) == 2 and cut["untested"] == {"0": [0, 1, 2]}
