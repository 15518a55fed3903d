"""Trials of one cell that were trained by engines which round differently: a footnote, in every format."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

import pytest

from orchestrator.database.models import Attempt, Epoch
from reports.checks.tracing import explain
from reports.gathering import gather
from reports.layouts.bold import DESPITE
from reports.loading import load
from reports.render import plain
from reports.render.html import fragment
from reports.render.latex import latex
from reports.table import Table
from tests.orchestrator.databases.postgresql_server import Missing, postgresql_server
from tests.reports.lookup import entry, one
from tests.reports.synthetic import Filler, ablation, make_database, trials

TWO = "2 of the 3 trials trained with compiled networks, which round differently"
PARTLY = f"{TWO} (1 of them in only a part of the epochs)"


def filling(engines: Sequence[Sequence[str | None]]):
    """A grid of Table 1 with as many seeds as `engines`, by which each seed's attempts ran; None leaves no word of it.

    An attempt goes on after the one before, at the middle of the trial's epochs.
    """

    def fill(filler: Filler) -> None:
        filler.grid(
            "table1",
            {"tables": [1, "interactions"]},
            trials(ablation(range(len(engines)), network="resnet18"), timed=True),
        )
        for first in [row for row in filler.rows[Attempt] if row["purpose"] == "train"]:
            # Eight rows of the table, and their seeds side by side.
            names = engines[(first["trial_id"] - 1) % len(engines)]
            attempts = [first]
            for number in range(1, len(names)):
                filler._insert(Attempt, **{**first, "number": 10 + number, "environment": {}})
                attempts.append(filler.rows[Attempt][-1])
            for attempt, name in zip(attempts, names, strict=True):
                facts = {} if name is None else {"engine": name, "deterministic": False}
                attempt["environment"] = {**first["environment"], **facts}
            for epoch in filler.rows[Epoch]:
                if epoch["attempt_id"] == first["id"] and epoch["epoch"] >= 3:
                    epoch["attempt_id"] = attempts[-1]["id"]

    return fill


@pytest.fixture
def database(tmp_path):
    opened = []

    def make(*engines: Sequence[str | None]):
        opened.append(make_database(tmp_path / f"{len(opened)}.db", filling(engines)))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


def notes(table: Table) -> list[str]:
    return [text for mark, text in table.footnotes if mark != "*" and text != DESPITE]


@pytest.mark.parametrize(
    ("engines", "expected"),
    [
        ([["compiled"], ["compiled"], ["launched"]], [TWO]),
        ([["compiled"], ["replayed", "compiled"], ["replayed"]], [PARTLY]),
        # Before engines were recorded no network was compiled.
        ([["compiled"], ["compiled"], [None]], [TWO]),
        ([["replayed", "compiled"]], ["trained partly with compiled networks, which round differently"]),
        ([["launched"], ["replayed"], ["auto"]], []),
        ([["compiled"], ["compiled"], ["compiled", "compiled"]], []),
        ([[None], [None], [None]], []),
    ],
)
def test_a_cell_that_mixes_engines_which_round_differently_says_so(database, engines, expected):
    table = one(gather(database(*engines)).tables, "table1")
    assert notes(table) == expected
    top1, time = entry(table, "resnet18/pskd/top1"), entry(table, "resnet18/pskd/train_time")
    assert (len(top1.notes), time.notes) == (len(expected), ())


def test_the_footnote_stands_in_every_format(database):
    opened = database(["compiled"], ["compiled"], ["launched"])
    tables = gather(opened, vs_paper=True).tables
    table = one(tables, "table1")
    markdown, tex = plain.markdown(table), latex(table)
    assert f"<sup>a</sup> {TWO}" in markdown and markdown.count("<sup>a</sup>") > 8
    assert f"\\item[a] {TWO}" in tex and "\\tnote{a}" in tex
    assert TWO in fragment(table)
    row = next(csv.DictReader(io.StringIO(plain.csv(table))))
    assert "mixed" in row["top1_flags"].split() and "mixed" not in row["train_time_flags"].split()
    entries = json.loads(plain.json(table))["rows"][0]["entries"]
    assert entries["top1"]["mixed"] == TWO and "mixed" not in entries["train_time"]
    # Of the gains, the trials of two cells.
    gains = one(tables, "interactions")
    assert "4 of the 6 trials trained with compiled networks, which round differently" in notes(gains)
    assert TWO in notes(one(tables, "table1-vs-paper"))
    assert "engine compiled" in explain(opened, "table1:resnet18/pskd/top1")


def test_a_timing_pass_and_what_was_trained_again_do_not_count(tmp_path):
    def fill(filler: Filler) -> None:
        filling([["launched"], ["launched"]])(filler)
        for attempt in list(filler.rows[Attempt]):
            if attempt["purpose"] == "time":
                attempt["environment"] = {"engine": "compiled"}
            else:
                filler._insert(Attempt, **{**attempt, "number": 20, "environment": {"engine": "compiled"}})
                lost = filler.rows[Attempt][-1]["id"]
                epoch = next(row for row in filler.rows[Epoch] if row["attempt_id"] == attempt["id"])
                filler._insert(Epoch, **{**epoch, "attempt_id": lost, "accepted": None})

    with make_database(tmp_path / "results.db", fill) as opened:
        assert notes(one(gather(opened).tables, "table1")) == []


def test_postgresql_tells_the_same(tmp_path):
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    from orchestrator.database import open_database

    try:
        with postgresql_server() as server, open_database(server.new_database(), create=True) as opened:
            with opened.engine.begin() as connection:
                filler = Filler(connection)
                filling([["compiled"], ["replayed", "compiled"], ["replayed"]])(filler)
                filler.write()
            shares = [trial.compiled for trial in load(opened).cells[0].trials]
            assert shares == [1.0, 0.5, 0.0]
            assert notes(one(gather(opened).tables, "table1")) == [PARTLY]
    except Missing as reason:
        pytest.skip(str(reason))
