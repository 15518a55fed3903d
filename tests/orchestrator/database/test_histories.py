"""The page's queries, on each of the two kinds of databases."""

from __future__ import annotations

import pytest

from orchestrator.database import Database, histories, queries
from tests.reports.synthetic import Filler, ablation, trials


def test_epochs_are_thinned_with_the_seconds_of_all_of_them(database: Database) -> None:
    with database.engine.begin() as connection:
        filler = Filler(connection)
        filler.grid("one", {}, trials(ablation([0])[:2], epochs=6, timed=True))
        filler.grid("other", {}, trials(ablation([1])[:1]))
        filler.write()
    with database.reading() as connection:
        last = queries.last_epochs(connection, [1])
        every, thinned = (list(histories.epochs(connection, last, step)) for step in (1, 4))
        attempts = histories.attempts(connection, [1])
        assert list(histories.own_metrics(connection, last, 1)) == []
    assert {row.trial_id for row in every} == {1, 2}
    assert [(row.trial_id, row.epoch) for row in thinned] == [(1, 1), (1, 5), (2, 1), (2, 5)]
    seconds = {(row.trial_id, row.epoch): row.seconds for row in every}
    # Epochs of the timing pass are not among them.
    assert len(seconds) == 12 and all(seconds[1, epoch] < seconds[1, epoch + 1] for epoch in range(5))
    assert [row.seconds for row in thinned] == pytest.approx([seconds[row.trial_id, row.epoch] for row in thinned])
    assert all(row.top1_error > 0 and row.split == "test" and "cross_entropy" in row.losses for row in every)
    assert [(row.trial_id, row.number, row.purpose) for row in attempts] == [
        (1, 1, "train"),
        (1, 2, "time"),
        (2, 1, "train"),
        (2, 2, "time"),
    ]
    assert (attempts[0].commit[:4], attempts[0].dirty, attempts[1].commit) == ("0123", False, None)
