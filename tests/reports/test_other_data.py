"""Trials of one cell that were trained on other data, or by other code: a footnote, and a failure of `verify`."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from sqlalchemy import select, update

from orchestrator.database import open_database
from orchestrator.database.models import Attempt, AttemptPart, GridTrial, Part
from orchestrator.records import Origin, PartRow
from reports import verify
from reports.checks.tracing import explain
from reports.gathering import gather
from reports.layouts.bold import DESPITE
from reports.layouts.entries import entry
from reports.render import plain
from reports.render.latex import latex
from tests.reports.lookup import one
from tests.reports.synthetic import ablation, make_database, trials


def small(filler):
    filler.grid("table1", {"tables": [1]}, trials(ablation([0, 1, 2], network="resnet18")))


@pytest.fixture
def folder(tmp_path):
    make_database(tmp_path / "results.db", small).close()
    return tmp_path


def attempts_of(connection, name):
    """Return the training attempts of the trials whose names begin with `name`, in the order of their seeds."""
    query = (
        select(Attempt.id)
        .join(GridTrial, GridTrial.trial_id == Attempt.trial_id)
        .where(GridTrial.name.startswith(name), Attempt.purpose == "train")
        .order_by(GridTrial.position)
    )
    return list(connection.scalars(query))


def on_other_data(connection):
    first = attempts_of(connection, "resnet18/pskd/")[0]
    connection.execute(update(Attempt).values(data_sha256="a" * 64))
    connection.execute(update(Attempt).where(Attempt.id == first).values(data_sha256="b" * 64))


def by_other_code(connection):
    first, *rest = attempts_of(connection, "resnet18/pskd/")
    for number, attempts in enumerate(([first], rest)):
        part = Part(
            kind="method", name="pskd", version=1, title="PS-KD", facts={}, digest=str(number) * 64, source="/m.py:3"
        )
        values = {column.name: getattr(part, column.name) for column in Part.__table__.columns if column.name != "id"}
        (part_id,) = connection.execute(Part.__table__.insert().values(values).returning(Part.id)).one()
        for attempt in attempts:
            connection.execute(AttemptPart.__table__.insert().values(attempt_id=attempt, part_id=part_id))


@pytest.mark.parametrize(("change", "word"), [(on_other_data, "data that differs"), (by_other_code, "m.py (00000000")])
def test_a_mean_over_what_differs_says_so_and_fails(folder, change, word):
    with open_database(folder / "results.db", readonly=True) as database:
        table = one(gather(database).tables, "table1")
        (folder / "table1.tex").write_text(latex(table), encoding="utf-8")
        assert [text for mark, text in table.footnotes if mark != "*" and text != DESPITE] == []
        assert not [problem for problem in verify(database, folder / "table1.tex").problems if problem.kind != "note"]
    with open_database(folder / "results.db") as database, database.engine.begin() as connection:
        change(connection)
    with open_database(folder / "results.db", readonly=True) as database:
        table = one(gather(database).tables, "table1")
        (footnote,) = [text for mark, text in table.footnotes if mark != "*" and text != DESPITE]
        assert word in footnote and "seed0" in footnote, footnote
        assert footnote in plain.markdown(table).replace("\\", "")
        assert footnote in explain(database, "table1:resnet18/pskd/top1")
        # Nothing that is printed has changed, and the mean is none all the same.
        mixed = [problem for problem in verify(database, folder / "table1.tex").problems if problem.kind == "mixed"]
        assert {problem.address.split("/")[1] for problem in mixed} == {"pskd"}, mixed


def test_a_changed_metric_marks_only_its_own_numbers():
    one, two = (
        Origin(number, None, None, (PartRow("metric", "brier", 1, "Brier score", {}, str(number) * 64, "/m.py:3"),))
        for number in (1, 2)
    )
    metrics = {"top1_error": 10.0, "brier": 0.3}
    measured = {(0, "main"): SimpleNamespace(metrics=metrics, images=9, epoch=0, outcomes=None)}
    cell = SimpleNamespace(
        config={},
        trials=tuple(
            SimpleNamespace(
                key=str(seed),
                name=f"seed{seed}",
                seed=seed,
                state="done",
                measurements=measured,
                compiled=0.0,
                pair="",
                origins=(origin,),
                replaced=(),
            )
            for seed, origin in enumerate((one, two))
        ),
    )
    assert entry(cell, "0:main/top1_error").differing.footnotes == ()
    (footnote,) = entry(cell, "0:main/brier").differing.footnotes
    assert "m.py (11111111" in footnote
